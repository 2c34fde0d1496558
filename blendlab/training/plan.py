"""Train every network of tinyworld in order: `blendlab train all`.

What a network needs of those before it comes from their runs. A run that is over is not trained
again, so the same command continues after a crash or a reboot. Read next: harness.py.
"""

import json
import os
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path

from .. import files
from ..errors import Refused
from . import check, harness, main, steps_of

# Minutes on one core with fast bf16 multiplication (AMX), in the order in which networks need each
# other.
PLAN = {
    "autoencoder": 180,
    "judge": 60,
    "clip": 180,
    "latent": 900,
    "exemplar": 480,
    "pixel": 720,
    "inpaint": 360,
}
NEEDS = {  # network: {argument of its job: the network whose export it is}
    "judge": {"autoencoder": "autoencoder"},
    "latent": {"autoencoder": "autoencoder"},
    "exemplar": {"latent": "latent", "clip": "clip"},
    "pixel": {"latent": "latent"},
    "inpaint": {"latent": "latent"},
}


def train_all(out="runs", share=1.0, restart=None, **given) -> None:
    """Train all networks of PLAN in folders of `out`.

    share: of the plan's minutes, as in 0.1 for a trial. restart: as for `main`. given: more
    arguments of `main` for every network, as in source="shipped".
    """
    check_all(share, given)
    if restart:
        harness.with_jemalloc(restart)
    out = Path(out)
    with files.locked(out) if os.environ.get("RANK", "0") == "0" else nullcontext():
        for name, minutes in PLAN.items():
            print(time.strftime("%Y-%m-%d %H:%M"), name, f"{minutes * share:g} minutes", flush=True)
            needs = {key: out / other / "export" for key, other in NEEDS.get(name, {}).items()}
            main(name, out=out / name, minutes=minutes * share, **needs, **given)
            done = harness.load_checkpoint(out / name)
            if (
                not done
                or done["seconds"] < 60 * minutes * share
                and done["step"] < steps_of(name, given.get("steps"))
            ):
                print(f"stopped in {name}; the same command goes on from there", flush=True)
                return


def check_all(share: float, given: dict) -> None:
    """Refuse, before anything is trained, what any network of the plan would refuse."""
    harness.number("share", share, 0.0, 1000.0, float)
    for name in ("minutes", "export_to"):
        if given.get(name) is not None:
            raise Refused(
                f"the plan names the {'minutes' if name == 'minutes' else 'folders'}; use --share, "
                "or train one network by its name"
            )
    if given.get("source") not in (None, "shipped"):
        raise Refused("all networks start from 'shipped' or from nothing; one folder fits one")
    wanted = ("steps", "lr", "precision", "batch", "seed", "options")
    known = {"steps": None, "lr": None, "precision": "auto", "batch": None, "seed": 0}
    known |= {"options": None} | {name: given[name] for name in wanted if name in given}
    sizes = {name: v for name, v in given.items() if name not in (*wanted, "source", "cpu")}
    for name, minutes in PLAN.items():
        check(name, minutes=minutes * share, sizes=sizes, **known)


def in_background(out="runs", **given) -> None:
    """`train_all` in a process that outlives the terminal; it writes to train.log in `out`."""
    check_all(given.get("share", 1.0), {key: v for key, v in given.items() if key != "share"})
    out = Path(out)
    with files.locked(out):  # refuse now what the other process would refuse
        log = out / "train.log"
    again = [
        sys.executable,
        "-m",
        "blendlab.training.plan",
        json.dumps(given | {"out": out}, default=str),
    ]
    with open(log, "a") as file:
        process = subprocess.Popen(again, stdout=file, stderr=file, start_new_session=True)
    print(f"training in the background; progress is in {log}; kill {process.pid} stops it")


if __name__ == "__main__":
    train_all(**json.loads(sys.argv[1]), restart=["-m", "blendlab.training.plan", sys.argv[1]])
