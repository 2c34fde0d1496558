"""`python -m blendlab.training NAME`: the same as `blendlab train NAME`."""

import argparse
import sys

from . import JOBS, main, settings
from .harness import with_jemalloc
from .plan import train_all

parser = argparse.ArgumentParser(
    prog="python -m blendlab.training", description=main.__doc__.split("\n")[0]
)
parser.add_argument("name", choices=[*JOBS, "all"])
parser.add_argument("--steps", type=int, help="how many steps; may change when a run is resumed")
parser.add_argument(
    "--minutes", type=float, help="stop after this time; the learning rate ends with it"
)
parser.add_argument(
    "--out", help="folder of the run (default runs/NAME); an interrupted run there is continued"
)
parser.add_argument("--from", dest="source", help="'shipped', or a folder of weights to start from")
parser.add_argument("--batch", type=int, help="pictures per step and process")
parser.add_argument("--lr", type=float, help="highest learning rate")
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--precision", default="auto", choices=["auto", "bf16", "fp16", "no"])
parser.add_argument("--cpu", action="store_true", help="leave the GPU alone")
parser.add_argument("--autoencoder", help="folder of the autoencoder that judge and latent use")
parser.add_argument(
    "--export",
    dest="export_to",
    help="train nothing: write the run's averaged weights to this folder",
)
parser.add_argument(
    "--set", nargs="+", default=[], metavar="NAME=VALUE", help="of the job, as in --set rung=tokens"
)
parser.add_argument(
    "--compile", action="store_true", help="torch.compile the step; pays in runs of hours"
)
parser.add_argument(
    "--share", type=float, default=1.0, help="with all: share of the plan's minutes"
)
parser.add_argument("--background", action="store_true", help="with all: return at once and go on")
with_jemalloc(["-m", "blendlab.training", *sys.argv[1:]])
given = {key: value for key, value in vars(parser.parse_args()).items() if value is not None}
share, background, compiled = given.pop("share"), given.pop("background"), given.pop("compile")
if given["name"] == "all":
    taken = {"all", "--background", "--share", str(share), "--out", given.get("out")}
    train_all(
        given.get("out", "runs"),
        share,
        [word for word in sys.argv[1:] if word not in taken],
        background,
    )
else:
    print(main(**settings(given.pop("set")), options={"compile": compiled}, **given))
