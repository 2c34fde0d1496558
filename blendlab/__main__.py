"""`python -m blendlab` is the same as the command `blendlab`; see cli.py."""

from .cli import main

main()
