"""The course around the package: exercises, the notebook runner, plots, the doctor. Next:
runner.py.
"""
