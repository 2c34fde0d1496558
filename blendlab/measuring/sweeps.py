"""Which settings a model recommends: sweeps that change one number of a middle choice at a time.

All on tasks that no other table reports, so that choosing here flatters none of them. What was
chosen stands in each model's blendlab.json. Next: cards.settings, which hands it out.
"""

from .. import world
from ..cards import RECOMMENDED
from ..papers.decoder import reconstruct
from ..papers.exemplar import exemplar
from . import metrics
from .exemplars import common, references
from .pixel_blending import clips_word, guided
from .tables import (
    blocks,
    edited,
    joined,
    kept_inside,
    measured,
    progress,
    seen_inside,
    seen_outside,
    side,
)

APART = world.HELD_OUT + 1  # the seed of these tasks


def around(middle: dict, **tried) -> dict[str, dict]:
    """The middle choice, and those that differ from it in one number, by their labels."""
    rows = [middle] + [middle | {name: value} for name, values in tried.items() for value in values]
    return {", ".join(f"{name}={value:g}" for name, value in how.items()): how for how in rows}


LATENT = around(
    RECOMMENDED["tinyworld"]["blended_latent"],
    w=(1.0, 3.0, 4.0, 6.0),
    eta=(0.0, 0.5),
    skip=(0.0, 0.25),
    steps=(15, 50),
    window=(0, 96),
)
PIXEL = around(
    RECOMMENDED["tinyworld-pixel"]["blended"],
    scale=(1000.0, 10000.0),
    augmentations=(1, 8),
    steps=(12, 25),
    skip=(0.0,),
    resamplings=(1,),
) | around(
    RECOMMENDED["tinyworld-pixel"]["blended"] | {"steps": 54, "resamplings": 1}
)  # as many calls as the middle
EXEMPLAR = around(
    RECOMMENDED["tinyworld-exemplar"]["exemplar"] | {"window": 0},
    w=(1.0, 2.0, 3.0, 5.0),
    eta=(0.0,),
    skip=(0.1,),
    steps=(15, 50),
    window=(64,),
)
DECODER = around(
    RECOMMENDED["tinyworld"]["reconstruct"]["weights"], steps=(25, 150), lr=(1e-4, 1e-3)
) | {"preset fast (Muon, 18 steps)": {"preset": "fast"}}


@measured(64, "tinyworld", "tinyworld-judge")
def settings(n, pipe, judge):
    """Which settings make the best latent edits: each row changes one number of a middle choice. On
    tasks that no other table reports, so that choosing here flatters none of them.
    """
    rows = {}
    for label, how in LATENT.items():
        parts = []
        for k, tasks in blocks(n, pipe, label, seed=APART):
            edit = edited(pipe, tasks, k, **how)
            parts.append(seen_inside(judge, edit.tensor, tasks) | seen_outside(edit.tensor, tasks))
        rows[label] = joined(parts)
    return rows


@measured(32, "tinyworld-pixel", "tinyworld-clip", "tinyworld-judge")
def pixel_settings(n, model, clip, judge):
    """Which settings make the best guided edits in pixels: each row changes one number of a middle
    choice. On tasks that no other table reports.
    """
    rows = {}
    for label, how in PIXEL.items():
        parts = []
        for k, tasks in blocks(n, model, label, seed=APART):
            images = guided(model, clip, tasks, seed=k, **how)
            parts.append(seen_inside(judge, images, tasks) | clips_word(clip, images, tasks))
        rows[label] = joined(parts)
    return rows


@measured(48, "tinyworld-exemplar", "tinyworld-judge")
def exemplar_settings(n, pipe, judge):
    """Which settings follow a reference best: does the judge see its class and colour, how far is
    the result from the truth, and what becomes of the background? Each row changes one number of a
    middle choice. On tasks that no other table reports.
    """
    tasks, _, reference, *_ = references(n, side(pipe), seed=APART)
    rows = {}
    for label, how in EXEMPLAR.items():
        with progress(n, label, "task") as bar:
            images = exemplar(
                pipe, tasks.image, tasks.mask, reference, n=n, seed=0, batch=metrics.BLOCK, **how
            ).tensor
            bar.update(n)
        rows[label] = common(judge, images.cpu(), tasks) | seen_outside(images.cpu(), tasks)
    return rows


@measured(6, "tinyworld")
def decoder_settings(n, pipe):
    """Steps, rate and optimizer of decoder tuning: the background of latent edits before it, and
    after it; and how near the inside stays to the edit as decoded. On tasks that no other table
    reports.
    """
    rows = {}
    for k, tasks in blocks(n, pipe, "edits", seed=APART):
        edit = edited(pipe, tasks, k)
        rows.setdefault("no tuning", []).append(seen_outside(edit.tensor, tasks))
        for label, how in DECODER.items():
            tuned = reconstruct(pipe, edit, tasks.image, tasks.mask, **how)
            kept = kept_inside(tuned.tensor, edit.tensor, tasks)
            rows.setdefault(label, []).append(seen_outside(tuned.tensor, tasks) | kept)
    return {label: joined(parts) for label, parts in rows.items()}
