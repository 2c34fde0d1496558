"""Make data/ again: scenes of tinyworld to edit, a mask, a prompt and the truth of each, and the
README's pictures.

- `python data/make.py`: scenes, masks, truth and edits.json, at the size of the shipped model.
- `... pictures`: pictures/, with the shipped model.
- `... covers`: the picture that each notebook opens with, out of its own outputs.
- `... thirty`: thirty edits by exemplar, to look at, in pictures/exemplars.png.
- `... card`: the figures of MODEL_CARD.md, from the tables in results/.
- `... ship tinyworld-pixel runs/pixel/export`: a trained network becomes a shipped one.
- `... precision runs/precision`: the table of a run, and its pictures, become the saved one.

Each truth is the same scene with the object really in it. The masks are the objects' boxes, a
little wider.
"""

import base64
import json
import shutil
import sys
from pathlib import Path

import nbformat
import torch
from safetensors.torch import load_file, save_file

import blendlab as bl
from blendlab import cards, world
from blendlab.course import page
from blendlab.measuring import exemplars, index, precision, results, tables

HERE = Path(__file__).parent

# name: ground, time, what is there, what is to come, and a seed for clouds, hills and textures
SCENES = {
    "meadow": ("grass", "day", dict(kind="tree", colour="green", accent="red", x=0.24, y=0.52, size=0.22),
               dict(kind="mushroom", colour="red", accent="white", x=0.68, y=0.64, size=0.21), 21),
    "harbour": ("water", "sunset", dict(kind="boat", colour="white", accent="red", x=0.27, y=0.55, size=0.21),
                dict(kind="balloon", colour="blue", accent="yellow", x=0.73, y=0.27, size=0.20), 4),
    "street": ("stone", "night", dict(kind="house", colour="orange", accent="purple", x=0.30, y=0.56, size=0.25),
               dict(kind="car", colour="red", accent="white", x=0.70, y=0.74, size=0.22), 9),
    "winter": ("snow", "day", dict(kind="house", colour="blue", accent="white", x=0.68, y=0.50, size=0.23),
               dict(kind="tree", colour="green", accent="yellow", x=0.26, y=0.58, size=0.24), 6),
    "beach": ("sand", "day", dict(kind="boat", colour="yellow", accent="blue", x=0.72, y=0.52, size=0.2),
              dict(kind="ball", colour="pink", accent="blue", x=0.30, y=0.72, size=0.19), 12),
    "portrait": ("grass", "sunset", dict(kind="face", colour="pink", accent="orange", x=0.33, y=0.56, size=0.28),
                 dict(kind="flower", colour="yellow", accent="orange", x=0.78, y=0.66, size=0.24), 15),
    "signpost": ("sand", "sunset",
                 dict(kind="sign", colour="blue", accent="red", word="sea", x=0.32, y=0.58, size=0.28),
                 dict(kind="cat", colour="white", accent="red", x=0.76, y=0.68, size=0.20), 17),
    "starlight": ("snow", "night", dict(kind="lamp", colour="blue", accent="white", x=0.24, y=0.56, size=0.28),
                  dict(kind="heart", colour="red", accent="white", x=0.66, y=0.40, size=0.22), 3),
}  # fmt: skip


def scenes():
    """scenes/, masks/, truth/ and edits.json."""
    size = json.loads((cards.WEIGHTS / "tinyworld/blendlab.json").read_text())["size"]
    edits = {}
    for name, (ground, time, there, new, seed) in SCENES.items():
        before = world.scene(ground, time, [there], seed=seed, horizon=0.52)
        after = world.added(before, **new)
        truth = world.render(after, size)
        x0, y0, x1, y1 = truth.boxes[0, 1].tolist()
        box = (max(x0 - 0.03, 0), max(y0 - 0.03, 0), min(x1 + 0.03, 1), min(y1 + 0.03, 1))
        mask = bl.masks.from_box(box, (size, size))
        for folder, tensor in (
            ("scenes", world.render(before, size).image),
            ("masks", mask),
            ("truth", truth.image),
        ):
            (HERE / folder).mkdir(exist_ok=True)
            bl.images.to_pil(tensor)[0].save(HERE / folder / f"{name}.png")
        edits[name] = {
            "prompt": world.describe(after, 1)[0],
            "caption": world.captions(before, setting=1.0)[0],
        }
    (HERE / "edits.json").write_text(json.dumps(edits, indent=2) + "\n")


def pictures():
    """pictures/edits.png, with which the README opens: the first result of seed 0 in each scene."""
    pipe = bl.load("tinyworld")
    (HERE / "pictures").mkdir(exist_ok=True)
    prompts = {
        name: edit["prompt"] for name, edit in json.loads((HERE / "edits.json").read_text()).items()
    }
    shown, titles = [], []
    for four in (list(SCENES)[:4], list(SCENES)[4:]):
        above, below = [], []
        for name in four:
            image, mask = bl.data(f"scenes/{name}.png"), bl.data(f"masks/{name}.png")
            above.append(bl.viz.overlay(image, mask))
            below.append(bl.blended_latent(pipe, image, mask, prompts[name], seed=0).images[0])
        shown += [*above, *below]
        titles += [""] * 4 + [prompts[name] for name in four]
    sheet = bl.viz.show(shown, titles, columns=4, panel=192)
    sheet.save(HERE / "pictures/edits.png", optimize=True)


def thirty():
    """pictures/exemplars.png: the first thirty tasks of the table exemplars, not chosen; each above
    its reference.
    """
    pipe = bl.load("tinyworld-exemplar")
    tasks, _, reference, *_ = exemplars.references(30, tables.side(pipe))
    made = exemplars.painted(pipe, tasks, reference, "thirty")
    pictures, masks, titles, none = [], [], [], torch.zeros_like(tasks.mask[:6])
    for some in (slice(i, i + 6) for i in range(0, 30, 6)):
        pictures += [*made[some], *reference[some]]
        masks += [*tasks.mask[some], *none]
        titles += [*tasks.prompts[some], *[""] * 6]
    bl.viz.show(pictures, titles, 6, masks).quantize(256).save(
        HERE / "pictures/exemplars.png", optimize=True
    )


def covers():
    """pictures/ that notebooks open with: the first one that each makes, as it was saved."""
    for path in sorted((HERE.parent / "notebooks").glob("*.ipynb")):
        _, (first, *_) = page.pictures(nbformat.read(path, as_version=4))[0]
        (HERE / f"pictures/{path.stem}.png").write_bytes(base64.b64decode(first.split(",", 1)[1]))


# figure: table, its row and columns, what is aimed at
FIGURES = {
    "judge, per object, renders: class / colour": ("judge", "renders", ["class", "colour"], "99% / 97%"),
    "judge, per object, reconstructions: class / colour": (
        "judge", "reconstructions", ["class", "colour"], "97% / 95%"),
    "autoencoder, PSNR: whole / objects": (
        "autoencoder", "tinyworld", ["PSNR (dB)", "objects (dB)"], "30 dB / 25 dB"),
    "from words, one object: class / class and colour": (
        "text_to_image", "one object", ["class", "class and colour"], "97% / 94%"),
    "from words, two objects: both there / and in their colours": (
        "text_to_image", "two objects", ["class", "class and colour"], "80% / 65%"),
    "latent edits: class / class and colour": (
        "edits", "blended_latent", ["class", "class and colour"], "85% / 80%"),
    "latent edits, best of 4 by CLIP: class / class and colour": (
        "latent_ranking", "best of 4", ["class", "class and colour"], "93% / 90%"),
    "the truth behind the same autoencoder": ("edits", "ceiling: the truth", ["class", "class and colour"], ""),
    "outlines, in latents: the class with plain masks": ("thin_masks", "plain", ["class"], "below the next"),
    "the same: cells that are touched count / dilated, too": (
        "thin_masks", ["every cell", "every cell, dilated"], ["class"], ""),
    "guided edits in pixels, best of 4 by CLIP: class / class and colour": (
        "pixel_edits", "guided, best of 4", ["class", "class and colour"], "75% of the class"),
    "the same, first of 4": ("pixel_edits", "guided", ["class", "class and colour"], "50% of the class"),
    "pixel model, samples with a recognisable object": ("pixel", "samples", ["recognisable"], "80%"),
    "edits by exemplar: class / class and colour": (
        "exemplars", "by exemplar", ["class", "class and colour"], "85% / 75%"),
    "the same: second colour, of 8, where it shows / pattern, of 3, also plain": (
        "exemplar_attributes", "by reference",
        ["accent right, of 8", "pattern right, of 3"], "60% / 70%"),
    "CLIP, the right one of 100 captions: whole scenes": ("clip", "scenes", ["right of 100"], "93%"),
    "CLIP, the right one of 100 captions: objects on grey": ("clip", "objects on grey", ["right of 100"], ""),
    "random boxes, all results / CLIP's choice of each batch: class": (
        "precision", "blended_latent", ["batch precision", "best result"], ""),
    "the same, by the inpainting network": ("precision", "inpaint", ["batch precision", "best result"], ""),
    "the truth in these boxes": ("precision", "truth", ["batch precision"], ""),
    "an edit, seconds each: alone / four at once": (
        "edits", "blended_latent", ["an edit, 1 at once (s)", "an edit, 4 at once (s)"], "1.5 s on two cores"),
}  # fmt: skip
BEGIN, END = "<!-- made by `python data/make.py card` -->", "<!-- end -->"


def card():
    """The measured part of MODEL_CARD.md."""
    file = HERE / "MODEL_CARD.md"
    before, rest = file.read_text().split(BEGIN)
    file.write_text(before + BEGIN + "\n" + figures() + END + rest.split(END)[1])


def figures() -> str:
    """A row for each figure: now, with its 95% interval; aim; table."""
    lines = ["| figure | now | aim | made by |", "|---|---|---|---|"]
    for figure, (name, label, columns, aim) in FIGURES.items():
        if not results.saved(name):
            lines.append(f"| {figure} | not measured yet | {aim} | `blendlab results {name}` |")
            continue
        result = results.load(name)
        rows = {row["label"]: row for row in result["rows"]}
        labels = [label] if isinstance(label, str) else label
        now = " / ".join(
            results.text(rows[of][column], column) for of in labels for column in columns
        )
        by = result["command"]
        by = f"results/{name}.md" if "--methods" in by else by  # a long one stands there
        lines.append(f"| {figure} | {now}, n = {result['n']} | {aim} | `{by}` |")
    return "\n".join(lines) + "\n"


def keep_precision(folder="runs/precision"):
    """results/precision.* or removals.*, from the folder of a run of `blendlab results precision`;
    the page.
    """
    precision.save(folder)
    index.write()


LIMIT = 64e6  # bytes, all shipped networks together


def ship(name, export):
    """Put a trained network into the package, without what others lend it, and note who lends
    what.
    """
    target = cards.WEIGHTS / name
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(export, target, copy_function=shutil.copyfile)
    if name == "tinyworld-exemplar":
        shutil.rmtree(target / "vae")
        file = target / "image_encoder/model.safetensors"
        save_file(
            {key: value for key, value in load_file(file).items() if not key.startswith("model.")},
            file,
        )
        card = json.loads((target / "blendlab.json").read_text()) | {"lent": cards.lent()}
        (target / "blendlab.json").write_text(json.dumps(card, indent=2) + "\n")
    total = sum(file.stat().st_size for file in cards.WEIGHTS.rglob("*.*"))
    print(f"{name} ships; all networks together have {total / 1e6:.1f} MB of {LIMIT / 1e6:.0f}")


if __name__ == "__main__":
    command, *arguments = sys.argv[1:] or ["scenes"]
    parts = (scenes, pictures, thirty, covers, card, ship)
    named = {part.__name__: part for part in parts} | {"precision": keep_precision}
    named[command](*arguments)
