"""`python -m blendlab.course` executes the notebooks; see runner.py."""

import typer

from .runner import main

typer.run(main)
