"""How tinyworld's networks are made: `python -m blendlab.training NAME` (or `blendlab train NAME`).

harness.py is the loop, one file per network is its job. Order: autoencoder, then judge and latent,
which use it; exemplar starts from latent and clip. Read next: harness.py.
"""

from pathlib import Path

JOBS = {
    "autoencoder": "autoencoder:Autoencoder",
    "judge": "judge:JudgeJob",
    "latent": "latent:Latent",
    "clip": "clip:ClipJob",
    "pixel": "pixel:Pixel",
    "exemplar": "exemplar:Exemplar",
}
SHIPPED = {
    "autoencoder": "tinyworld/vae",
    "judge": "tinyworld-judge",
    "latent": "tinyworld",
    "clip": "tinyworld-clip",
    "pixel": "tinyworld-pixel",
    "exemplar": "tinyworld-exemplar",
}
STEPS = {
    "autoencoder": 20000,
    "judge": 12000,
    "latent": 60000,
    "clip": 12000,
    "pixel": 60000,
    "exemplar": 20000,
}


def job_class(name: str):
    """The job called `name`."""
    from importlib import import_module

    if name not in JOBS:
        raise ValueError(f"blendlab cannot train '{name}'; it can train {', '.join(JOBS)}")
    module, attribute = JOBS[name].split(":")
    return getattr(import_module(f".{module}", __name__), attribute)


def shipped(name: str) -> Path:
    """The folder of the weights that travel with the package."""
    from .harness import WEIGHTS

    return WEIGHTS / SHIPPED[name]


def settings(pairs: list[str]) -> dict:
    """["rung=tokens", "pool=64"] as arguments of a job; whole numbers become ints."""
    for pair in pairs:
        if "=" not in pair:
            raise ValueError(f"'{pair}' is no setting; write NAME=VALUE, as in rung=tokens")
    split = (pair.split("=", 1) for pair in pairs)
    return {name: int(value) if value.isdigit() else value for name, value in split}


def main(
    name,
    steps=None,
    out=None,
    source=None,
    batch=None,
    lr=None,
    seed=0,
    precision="auto",
    minutes=None,
    cpu=False,
    export_to=None,
    options=None,
    **sizes,
) -> Path:
    """Train `name` in `out` (default runs/NAME), continuing the checkpoint there; returns the
    export.

    `source`: "shipped" or a folder of weights to start from. `minutes`: stop then, the learning
    rate arriving at its end with the time. `export_to`: train nothing, write the checkpoint's
    averaged weights there (runs may go on). `options`: further fields of harness.Options; `sizes`:
    further arguments of the job (widths, pool, autoencoder).
    """
    from . import harness

    start = shipped(name) if source == "shipped" else source and Path(source)
    if start and not start.is_dir():
        raise ValueError(
            f"there are no weights in {start} to start from; give 'shipped' or the folder of "
            "an export"
        )
    accelerator = harness.make_accelerator(precision, cpu)
    kind = job_class(name)
    sizes = (kind.sizes_of(start) if start else {}) | sizes
    place = {"device": accelerator.device, "rank": accelerator.process_index}
    job = kind(seed=seed, batch_size=batch, **place, **sizes)
    out = Path(out or f"runs/{name}")
    choices = harness.Options(
        steps=steps or STEPS[name], minutes=minutes, lr=lr or kind.lr, **(options or {})
    )
    if export_to:
        return harness.export_checkpoint(job, out, Path(export_to), choices, accelerator)
    if start and not (out / "checkpoint.pt").exists():
        job.load(start)
    return harness.train(job, out, choices, accelerator)
