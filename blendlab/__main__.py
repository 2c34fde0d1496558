"""`python -m blendlab` is the same as the command `blendlab`; see cli.py."""

from blendlab.cli import main

main()
