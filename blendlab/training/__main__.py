"""`python -m blendlab.training NAME` is `blendlab train NAME`, for torchrun and accelerate too."""

import runpy
import sys

sys.argv.insert(1, "train")
runpy.run_module("blendlab", run_name="__main__", alter_sys=True)
