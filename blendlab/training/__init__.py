"""How tinyworld's networks are made: `python -m blendlab.training NAME` (or `blendlab train NAME`).

harness.py is the loop, one file per network is its job. Order: autoencoder, then judge and latent,
which use it; exemplar starts from latent and clip, inpaint from latent. Read next: harness.py.
"""

from contextlib import contextmanager
from inspect import signature
from pathlib import Path

from ..errors import Refused
from ..options import pairs

# Each network's class, what ships of it, and the steps of a whole training.
JOBS = {
    "autoencoder": ("autoencoder:Autoencoder", "tinyworld/vae", 20000),
    "judge": ("judge:JudgeJob", "tinyworld-judge", 12000),
    "latent": ("latent:Latent", "tinyworld", 60000),
    "clip": ("clip:ClipJob", "tinyworld-clip", 12000),
    "pixel": ("pixel:Pixel", "tinyworld-pixel", 60000),
    "exemplar": ("exemplar:Exemplar", "tinyworld-exemplar", 20000),
    "inpaint": ("inpaint:Inpaint", "tinyworld-inpaint", 20000),
}


def job_class(name: str):
    """The job called `name`."""
    from importlib import import_module

    if name not in JOBS:
        raise Refused(f"blendlab cannot train '{name}'; it can train {', '.join(JOBS)}")
    module, attribute = JOBS[name][0].split(":")
    return getattr(import_module(f".{module}", __name__), attribute)


def shipped(name: str) -> Path:
    """The folder of the weights that travel with the package."""
    from .harness import WEIGHTS

    return WEIGHTS / JOBS[name][1]


def steps_of(name: str, steps: int | None = None) -> int:
    """How many steps a network is trained for at most: what is asked for, else a whole training."""
    return JOBS[name][2] if steps is None else steps


def settings(texts: list[str]) -> dict:
    """["rung=tokens", "widths=8,16"] as arguments of a job; numbers become numbers."""
    flags = {*signature(main).parameters, "share", "background", "autoencoder"}
    return pairs(texts, "rung=tokens", flags)


def check_sizes(kind, sizes: dict) -> None:
    """Refuse arguments that a job does not know, and those of the wrong form or size."""
    from .harness import number

    known = {name: p.default for name, p in signature(kind.__init__).parameters.items()}
    known = {name: default for name, default in known.items() if name not in ("self", "kwargs")}
    for name, value in sizes.items():
        if name not in known:
            raise Refused(f"{kind.name} has no setting '{name}'; it has {', '.join(known)}")
        if name == "widths":
            _check_widths(kind, value)
        elif name == "pool":
            value is None or number(name, value, 16, 10**6)
        elif name == "size" and number(name, value, 32, 1024) % 32:
            raise Refused(f"size is {value}; take a multiple of 32")
        elif isinstance(known[name], int | float):
            whole = isinstance(known[name], int)
            number(name, value, *((1, 8192, int) if whole else (0.0, 1.0, float)))
        elif value is not None and not isinstance(value, str | Path):
            raise Refused(f"{name} is {value!r}; give a name or a folder")


def _check_widths(kind, widths):
    least, most = kind.levels
    good = isinstance(widths, list | tuple) and least <= len(widths) <= most
    if not good or not all(
        type(w) is int and 0 < w <= 4096 and w % kind.groups == 0 for w in widths
    ):
        count = f"{least} to {most}" if least < most else f"{least}"
        raise Refused(
            f"widths is {widths!r}; give {count} whole numbers, multiples of {kind.groups} up to "
            f"4096, as in widths={','.join(str(kind.groups * 2**i) for i in range(max(least, 2)))}"
        )


def check(name, steps, minutes, lr, precision, batch, seed, options, sizes):
    """The job called `name` and its harness.Options; ValueError about the first wrong argument."""
    from . import harness

    kind = job_class(name)
    check_sizes(kind, sizes)
    harness.number("seed", seed, 0, harness.SEEDS)
    if batch is not None:
        harness.number("batch", batch, 1, 4096)
    steps, lr = steps_of(name, steps), kind.lr if lr is None else lr
    return kind, harness.Options(
        steps=steps, minutes=minutes, lr=lr, precision=precision, **(options or {})
    )


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
    restart=None,
    **sizes,
) -> Path:
    """Train `name` in `out` (default runs/NAME), continuing the checkpoint there; returns the
    export.

    `source`: "shipped" or a folder of weights to start from. `minutes`: stop then, the learning
    rate arriving at its end with the time. `export_to`: train nothing, write the checkpoint's
    averaged weights there (runs may go on). `options`: further fields of harness.Options;
    `restart`: arguments of Python that start this program again, with a faster allocator where
    there is one. `sizes`: further arguments of the job (widths, pool, autoencoder).
    """
    from . import harness

    kind, choices = check(name, steps, minutes, lr, precision, batch, seed, options, sizes)
    start = shipped(name) if source == "shipped" else None if source is None else Path(source)
    if start and not start.is_dir():
        raise Refused(
            f"there are no weights in {start} to start from; give 'shipped' or the folder of "
            "an export"
        )
    if restart:
        harness.with_jemalloc(restart)
    accelerator = harness.make_accelerator(precision, cpu)
    place = {"device": accelerator.device, "rank": accelerator.process_index}
    out = Path(out or f"runs/{name}")
    with _readable(start):
        sizes = (kind.sizes_of(start) if start else {}) | sizes
    job = kind(seed=seed, batch_size=batch, **place, **sizes)
    if export_to:
        return harness.export_checkpoint(job, out, Path(export_to), choices, accelerator)
    if start and not (out / "checkpoint.pt").exists():
        with _readable(start):
            job.load(start)
    return harness.train(job, out, choices, accelerator)


@contextmanager
def _readable(start):
    """Whatever a library says of weights that it cannot read becomes a sentence that names them."""
    try:
        yield
    except Refused as error:
        raise Refused(f"{error}; without --from it starts afresh") from error
    except Exception as error:
        raise Refused(
            f"the weights in {start} are incomplete or damaged, copy the folder again: {error}"
        ) from error
