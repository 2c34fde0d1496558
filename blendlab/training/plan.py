"""Train every network of tinyworld in order: `blendlab train all`.

Each network is a run in a process of its own; what it needs of the networks before it comes from
their runs. A run that is over is not trained again, so the same command continues after a crash or
a reboot. Read next: harness.py.
"""

import subprocess
import sys
import time
from pathlib import Path

# Minutes on one core with fast bf16 multiplication (AMX), in the order in which networks need each
# other.
PLAN = {"autoencoder": 180, "judge": 60, "clip": 180, "latent": 900, "exemplar": 480, "pixel": 720}
NEEDS = {  # network: {argument of its job: the network whose export it is}
    "judge": {"autoencoder": "autoencoder"},
    "latent": {"autoencoder": "autoencoder"},
    "exemplar": {"latent": "latent", "clip": "clip"},
    "pixel": {"latent": "latent"},
}


def train_all(out="runs", share=1.0, arguments=(), background=False) -> None:
    """Train all networks of PLAN in folders of `out`; a line a minute goes to out/train.log.

    share: of the plan's minutes, as in 0.1 for a trial. arguments: more of `python -m
           blendlab.training`, for every
    network, as in ["--from", "shipped"]. background: return at once; training goes on when the
    terminal closes.
    """
    if not 0 < share < float("inf"):
        raise ValueError(
            f"share is {share}; it multiplies the plan's minutes, so take a number above 0"
        )
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    log = out / "train.log"
    if background:
        again = [
            sys.executable,
            "-m",
            "blendlab.training",
            "all",
            "--out",
            str(out),
            "--share",
            f"{share}",
            *arguments,
        ]
        with open(log, "a") as file:
            subprocess.Popen(again, stdout=file, stderr=file, start_new_session=True)
        print(f"training in the background; progress is in {log}")
        return
    for name, minutes in PLAN.items():
        with open(log, "a") as file:
            print(
                time.strftime("%Y-%m-%d %H:%M"),
                name,
                f"{minutes * share:g} minutes",
                file=file,
                flush=True,
            )
            done = subprocess.run(
                command(name, out, minutes * share, arguments), stdout=file, stderr=file
            )
        if done.returncode:
            raise RuntimeError(f"training {name} failed; the last lines of {log} say why")


def command(name: str, out: Path, minutes: float, arguments=()) -> list[str]:
    """The command that trains one network of the plan."""
    needs = [f"{key}={out / needed / 'export'}" for key, needed in NEEDS.get(name, {}).items()]
    run = ["--out", str(out / name), "--minutes", f"{minutes:g}", *arguments]
    return [
        sys.executable,
        "-m",
        "blendlab.training",
        name,
        *run,
        *(["--set", *needs] if needs else []),
    ]
