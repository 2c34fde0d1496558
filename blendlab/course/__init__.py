"""The course around the package: exercises, notebook runner, plots, the doctor. Next: runner.py."""
