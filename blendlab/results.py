"""Measured tables: each made by one command, and kept in data/results/ with what it takes to make it again.

    blendlab results edits                              # measure all of it and save it
    results.table("edits")                              # the saved table, for a notebook
    live = results.measure("edits", n=8)                # its first 8 tasks, here and now
    results.reproduces(results.load("edits"), live)     # which must come out as saved

A table is a function of n and of models, decorated with `measured`, that returns {row: {column: outcomes}}.
Outcomes are a tensor with one for each task, in order, or (value, low, high) ready made. A column that ends
with a unit in brackets, as in "background (dB)", holds numbers; others hold shares. Next: metrics.py.
"""

import hashlib
import html
import json
import math
import os
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from itertools import count

import torch
import torch.nn.functional as F

from . import files, masks, metrics, models, prompts, world
from .blended_latent import FALLBACK, blended_latent
from .clip import look, read
from .guidance import cfg, denoiser
from .judge import SIZE, per_object
from .latents import decode, encode
from .noise import Noise
from .sampler import last, sample
from .schedule import Schedule

KEPT = metrics.BLOCK  # the outcomes of so many tasks are saved one by one, for `reproduces`
PACKAGES = ("blendlab", "torch", "diffusers", "transformers")


@dataclass(frozen=True)
class Recipe:
    """How a table is made: function(n, *models), with the models of these names, for n tasks unless told."""

    function: Callable
    n: int
    needs: tuple[str, ...]

    @property
    def what(self) -> str:
        """What the table says: the first paragraph of the function's docstring."""
        return " ".join(self.function.__doc__.split("\n\n")[0].split())


TABLES: dict[str, Recipe] = {}


def measured(n: int, *needs: str):
    """Make the decorated function the table of its name."""

    def register(function):
        TABLES[function.__name__] = Recipe(function, n, needs)
        return function

    return register


# The tables


@measured(200, "tinyworld", "tinyworld-judge")
def edits(n, pipe, judge):
    """Latent edits with the recommended settings: does the judge see the prompted thing in the mask, and what
    changed outside it? Ceiling and floor are the truth and the source behind the same autoencoder.

    "class" is the batch precision of 2206.02779, table 1. Time: autoencoder, text encoder and all steps.
    """
    ours, ceiling, floor = [], [], []
    for k, tasks in _blocks(n, pipe, "edits"):
        edit = _edit(pipe, tasks, k)
        exact = {"latent outside exact": _left(pipe, edit, tasks) == 0}
        ours.append(_inside(judge, edit.tensor, tasks) | _outside(edit, tasks) | exact)
        ceiling.append(_inside(judge, _reconstruct(pipe, tasks.truth), tasks))
        floor.append(_inside(judge, _reconstruct(pipe, tasks.image), tasks))
    time = {f"an edit, {batch} at once (s)": _seconds(pipe, batch, repeats=min(n, 5)) for batch in (1, 4)}
    rows = {"blended_latent": _joined(ours) | time}
    return rows | {"ceiling: the truth": _joined(ceiling), "floor: the source": _joined(floor)}


BLENDINGS = {
    "default": {},
    "level='t', final='noised'": dict(level="t", final="noised"),
    "preset='official-ldm'": dict(preset="official-ldm"),
    "preset='official-sd2'": dict(preset="official-sd2"),
    "preset='diffusers'": dict(preset="diffusers"),
    "start='noise'": dict(start="noise"),
}


@measured(200, "tinyworld", "tinyworld-judge")
def blending(n, pipe, judge):
    """What implementations of blending disagree on: how far the final latent ends from the source's outside
    the mask, and what that does to the picture. Same tasks, noise, w and steps in every row, DDIM; the source's
    latent is the posterior's mode.
    """
    numbers = FALLBACK | models.settings(pipe, "blended_latent")
    same = dict(w=numbers["w"], steps=numbers["steps"], eta=0.0, posterior="mode")
    rows = {}
    for label, how in BLENDINGS.items():
        parts = []
        for k, tasks in _blocks(n, pipe, label):
            edit = _edit(pipe, tasks, k, **same, **how)
            left = {"left in the latent (rms)": _left(pipe, edit, tasks)}
            parts.append(left | _outside(edit, tasks) | _inside(judge, edit.tensor, tasks))
        rows[label] = _joined(parts)
    return rows


@measured(2000, "tinyworld", "tinyworld-judge")
def judge(n, pipe, judge):
    """How often the judge is right about an object: in renders, and in what the autoencoder makes of them,
    which is the ceiling of every precision that it measures. At least n objects of held-out scenes, each of
    0.6% of its picture or more.
    """
    tallies = {"renders": Counter(), "reconstructions": Counter()}
    with _bar(n, "judge", "object") as bar:
        for view in _views(pipe):
            seen = F.interpolate(view.masks, (SIZE, SIZE), mode="area"), view.scenes.kind, view.scenes.colour
            tallies["renders"].update(per_object(judge, view.image, *seen))
            tallies["reconstructions"].update(per_object(judge, _reconstruct(pipe, view.image), *seen))
            bar.update(tallies["renders"]["objects"] - bar.n)
            if bar.n >= n:
                break
    share = lambda tally, what: metrics.proportion(tally[what], tally["objects"])  # noqa: E731
    return {label: {"class": share(t, "kind"), "colour": share(t, "colour")} for label, t in tallies.items()}


@measured(500, "tinyworld")
def autoencoder(n, pipe):
    """What the autoencoder alone loses: the PSNR of held-out scenes that it encoded and decoded, of each
    picture, then the mean; and the same of the pixels that show objects, where there are any.
    """
    whole, objects = [], []
    with _bar(n, "autoencoder", "picture") as bar:
        for view in _views(pipe):
            image, there = view.image[: n - bar.n], view.masks[: n - bar.n].sum(1, keepdim=True)
            result = _reconstruct(pipe, image)
            whole.append(metrics.psnr(result, image).cpu())
            objects.append(metrics.decibels(metrics.background_error(result, image, 1 - there)).cpu())
            bar.update(len(image))
            if bar.n >= n:
                break
    objects = torch.cat(objects)
    return {"tinyworld": {"PSNR (dB)": torch.cat(whole), "objects (dB)": objects[~objects.isnan()]}}


@measured(500, "tinyworld", "tinyworld-judge")
def text_to_image(n, pipe, judge):
    """Pictures from words alone, with the recommended settings: does the judge find every object that the
    caption of a held-out scene names, wherever it stands?
    """
    rows = {}
    for label, objects in {"one object": 1, "two objects": 2}.items():
        right = []
        with _bar(n, label, "picture") as bar:
            for k, scenes in enumerate(_scenes(n, objects)):
                things = judge.found(_from_words(pipe, world.captions(scenes, setting=0.0), seed=k))
                right += [_shows(seen, scenes, i) for i, seen in enumerate(things)]
                bar.update(len(scenes))
        rows[label] = dict(zip(("class", "class and colour"), torch.tensor(right).unbind(1), strict=True))
    return rows


def _shows(seen, scenes, i):
    """Are all objects of scene i among the things that were found: their classes, and in their colours too?"""
    kinds = [world.KINDS[k] for k in scenes.kind[i].tolist() if k >= 0]
    wanted = Counter((kind, world.COLOURS[c]) for kind, c in zip(kinds, scenes.colour[i].tolist(), strict=False))
    pairs = Counter((thing.kind, thing.colour) for thing in seen)
    return not Counter(kinds) - Counter(thing.kind for thing in seen), not wanted - pairs


@measured(1000, "tinyworld-clip")
def clip(n, model):
    """How often CLIP puts the right one of 100 different captions first: of whole held-out scenes, and of one
    object in its box, on grey as guidance sees it and on black as ranking does.
    """
    device, right = next(model.model.parameters()).device, {"scenes": [], "objects on grey": [], "objects on black": []}
    with _bar(n, "clip", "picture") as bar:
        for start in range(0, n, 100):
            scenes = world.sample(400, world.HELD_OUT, start=4 * start, device=device)
            scenes = scenes[scenes.count > 0]
            first = torch.zeros(len(scenes), dtype=torch.long)
            for names, texts in {"scenes": world.captions(scenes), "objects": world.describe(scenes, first)}.items():
                rows = _distinct(texts)[: min(100, n - start)]
                view = world.render(scenes[rows], model.size)
                box = metrics.box_mask(view.boxes[:, 0], model.size)
                words, each = read(model, [texts[i] for i in rows]), torch.arange(len(rows), device=device)
                shown = {"scenes": view.image, "objects on grey": view.image * box}
                shown["objects on black"] = (view.image + 1) * box - 1
                for label in (label for label in shown if label.startswith(names)):
                    seen = look(model, (shown[label] + 1) / 2)
                    right[label].append(((seen @ words.T).argmax(1) == each).cpu())
            bar.update(len(rows))
    return {label: {"right of 100": torch.cat(parts)} for label, parts in right.items()}


def _distinct(texts):
    """The places of texts that did not come before."""
    return [i for i, text in enumerate(texts) if text not in texts[:i]]


# What the tables share


def _bar(n, label, unit):
    from tqdm import tqdm

    return tqdm(total=n, desc=label, unit=unit)


def _size(pipe):
    return pipe.unet.config.sample_size * pipe.vae_scale_factor


def _blocks(n, pipe, label):
    """Yield (k, tasks) block by block. With k as the seed, task i draws the same noise whatever n is."""
    with _bar(n, label, "task") as bar:
        for k, start in enumerate(range(0, n, metrics.BLOCK)):
            tasks = metrics.tasks(min(metrics.BLOCK, n - start), start, size=_size(pipe))
            yield k, tasks
            bar.update(len(tasks))


def _views(pipe, at_once=32):
    """Yield views of held-out scenes without end, on the pipeline's device."""
    for start in count(0, at_once):
        yield world.render(world.sample(at_once, world.HELD_OUT, start, pipe.device), _size(pipe))


def _scenes(n, objects):
    """Yield n held-out scenes with so many objects, a block at a time."""
    made = 0
    for start in count(0, 8 * metrics.BLOCK):
        scenes = world.sample(8 * metrics.BLOCK, world.HELD_OUT, start)
        scenes = scenes[scenes.count == objects][: min(metrics.BLOCK, n - made)]
        yield scenes
        made += len(scenes)
        if made >= n:
            return


@torch.no_grad()
def _from_words(pipe, captions, seed):
    """Pictures (n,3,H,W) of captions, with the settings that the model recommends for edits."""
    numbers = FALLBACK | models.settings(pipe, "blended_latent")
    schedule, device = Schedule.from_scheduler(pipe.scheduler), pipe.device
    size = pipe.unet.config.sample_size
    shape = (pipe.vae.config.latent_channels, size, size)
    net = denoiser(pipe.unet, schedule, pipe.scheduler.config.prediction_type)
    denoise = cfg(net, *prompts.encode(pipe, captions), numbers["w"])
    fresh = Noise(seed, len(captions), "step", device)
    z = Noise(seed, len(captions), "initial", device)(shape)
    timesteps = schedule.timesteps(numbers["steps"])
    return decode(pipe.vae, last(sample(denoise, z, schedule, timesteps, numbers["eta"], lambda: fresh(shape))))


def _edit(pipe, tasks, seed, **options):
    return blended_latent(pipe, tasks.image, tasks.mask, tasks.prompts, n=len(tasks), seed=seed, **options)


def _reconstruct(pipe, images):
    return decode(pipe.vae, encode(pipe.vae, images.to(pipe.device)))


def _inside(judge, images, tasks):
    return dict(zip(("class", "class and colour"), metrics.precision(judge, images, tasks), strict=True))


def _outside(edit, tasks):
    error = metrics.background_error(edit.tensor.cpu(), tasks.image, tasks.mask)
    return {"background (dB)": metrics.decibels(error)}


def _left(pipe, edit, tasks):
    """(n,) root mean square distance of the final latents from the source's, outside the masks."""
    source = encode(pipe.vae, tasks.image.to(pipe.device))  # (n,C,h,w), all at once as blended_latent does
    mask_small = masks.to_latent(tasks.mask, source.shape[-2:], edit.settings["mask_rule"])
    return metrics.rms((edit.latents - source).cpu(), 1 - mask_small)


def _seconds(pipe, batch, repeats):
    """What one edit of a batch takes, measured `repeats` times after a first batch to warm up."""
    tasks, times = metrics.tasks(batch, size=_size(pipe)), []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        _edit(pipe, tasks, 0).tensor.cpu()  # waits for a GPU
        times.append((time.perf_counter() - start) / batch)
    return metrics.mean(times[1:])


def _joined(parts):
    return {column: torch.cat([part[column] for part in parts]) for column in parts[0]}


# Making, saving, checking


def measure(name: str, n: int | None = None) -> dict:
    """Make a table here and now, of its first n tasks or of all; nothing is saved."""
    recipe, start = _recipe(name), time.perf_counter()
    n_used = n or recipe.n
    rows = recipe.function(n_used, *map(models.load, recipe.needs))
    gpu = torch.cuda.is_available()
    return {
        "name": name,
        "what": recipe.what,
        "command": f"blendlab results {name}" + (f" -n {n}" if n else ""),
        "seconds": round(time.perf_counter() - start, 1),
        "n": n_used,
        "device": torch.cuda.get_device_name() if gpu else f"the CPU, threads: {torch.get_num_threads()}",
        "versions": {package: import_module(package).__version__ for package in PACKAGES},
        "weights": {model: fingerprint(model) for model in recipe.needs},
        "rows": [_row(label, columns) for label, columns in rows.items()],
    }


def run(name: str, n: int | None = None) -> dict:
    """Make a table and save it as data/results/NAME.json, in one move; returns it."""
    result, path = measure(name, n), _path(name)
    path.parent.mkdir(exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(_json(result), encoding="utf-8")
    os.replace(part, path)
    return result


def load(name: str) -> dict:
    """Return the saved table; FileNotFoundError says how to make it."""
    _recipe(name)
    if not _path(name).is_file():
        raise FileNotFoundError(f"table {name!r} is not there yet; make it with `blendlab results {name}`")
    return json.loads(_path(name).read_text(encoding="utf-8"))


def listing() -> str:
    """Name every table, what it says, and whether it is there and made with the weights that are."""
    return "\n".join(f"{name} ({_state(name, recipe)})\n  {recipe.what}" for name, recipe in TABLES.items())


def fingerprint(model: str) -> str:
    """Twelve hexadecimal digits that change with the files of a shipped model."""
    digest = hashlib.sha256()
    for file in sorted((models.WEIGHTS / model).rglob("*.*")):
        digest.update(file.name.encode() + file.read_bytes())
    return digest.hexdigest()[:12]


def reproduces(saved: dict, live: dict, differ: int = 0) -> str:
    """Check that a table made here has the outcomes that were saved, task by task; return a sentence.

    differ: how many may not, on a machine that rounds differently. AssertionError names the first few.
    """
    rows, compared, wrong = {row["label"]: row for row in saved["rows"]}, 0, []
    for row in live["rows"]:
        for column, outcomes in row.get("first", {}).items():
            pairs = list(zip(rows[row["label"]]["first"][column], outcomes, strict=False))
            compared += len(pairs)
            wrong += [f"{row['label']}, {column}, task {i}: {was} was saved, {now} came out"
                      for i, (was, now) in enumerate(pairs) if not _same(was, now)]  # fmt: skip
    if not compared or len(wrong) > differ:
        raise AssertionError(
            f"{len(wrong)} of {compared} outcomes are not as saved ({'; '.join(wrong[:3])}); if the weights "
            f"or the method changed on purpose, make the table again with `{saved['command']}`"
        )
    return f"{compared - len(wrong)} of {compared} outcomes of the first {live['n']} tasks are as saved"


def _same(was, now):
    return was == now or not isinstance(was, str) and math.isclose(was, now, rel_tol=0.01, abs_tol=1e-4)


def _state(name, recipe):
    if not _path(name).is_file():
        return "not there yet"
    saved = load(name)
    stale = saved["weights"] != {model: fingerprint(model) for model in recipe.needs}
    return f"n = {saved['n']}" + ", but made with other weights" * stale


def _recipe(name):
    if name not in TABLES:
        raise ValueError(f"there is no table {name!r}; there are {', '.join(TABLES)}")
    return TABLES[name]


def _path(name):
    return files.data() / "results" / f"{name}.json"


def _row(label, columns):
    """One row as it is saved: an interval for each column, and the outcomes of the first tasks."""
    row, first = {"label": label}, {}
    for column, outcomes in columns.items():
        interval = outcomes
        if isinstance(outcomes, torch.Tensor):
            shares = outcomes.dtype == torch.bool
            interval = metrics.mean(outcomes)
            if shares:
                interval = metrics.proportion(int(outcomes.sum()), len(outcomes))
            kept = outcomes[:KEPT].tolist()
            first[column] = "".join(map("01".__getitem__, kept)) if shares else list(map(_short, kept))
        row[column] = [_short(value) for value in interval]
    return row | ({"first": first} if first else {})


def _short(value):
    return float(f"{value:.5g}") if math.isfinite(value) else None


def _json(result):
    """JSON with a line for each row, so that one can read what changed in a table."""
    lines = [f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in result.items() if key != "rows"]
    rows = ",\n    ".join(json.dumps(row) for row in result["rows"])
    return "{\n" + ",\n".join([*lines, f'  "rows": [\n    {rows}\n  ]']) + "\n}\n"


# Showing

BLUE, GREY = "#2f6db5", "#8883"


def table(of) -> "Table":
    """A table to look at: the name of a saved one, or what `measure`, `run` or `load` returned."""
    return Table(load(of) if isinstance(of, str) else of)


class Table:
    """Shows itself in a notebook, in Markdown and in a terminal, each value as in 83% [77, 88]."""

    def __init__(self, result: dict):
        self.result, self.rows = result, result["rows"]
        self.columns = list(dict.fromkeys(key for row in self.rows for key in row))
        self.columns = [column for column in self.columns if column not in ("label", "first")]

    def cells(self) -> list[list[str]]:
        """The rows as text, label first; empty where a row has no such value."""
        return [[row["label"], *(text(row.get(c), c) for c in self.columns)] for row in self.rows]

    def foot(self) -> str:
        """How it was measured, in one line."""
        made = "{command}, {seconds:.0f} s on {device}".format(**self.result)
        return f"n = {self.result['n']}, brackets: 95% intervals. Made by {made}."

    def __repr__(self):
        lines = [["", *self.columns], *self.cells()]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        lines.insert(1, ["-" * width for width in widths])
        lines = ["| " + " | ".join(map(str.ljust, line, widths)) + " |" for line in lines]
        return "\n".join([self.result["what"], "", *lines, "", self.foot()])

    _repr_markdown_ = __repr__

    def _repr_html_(self):
        line = f"padding:.45em .7em;border-bottom:1px solid {GREY};text-align:"
        left, right = f"{line}left;white-space:nowrap", f"{line}right;white-space:nowrap"
        head = f"{right};white-space:normal;font-weight:400"
        heads = "".join(f'<th style="{head}">{html.escape(column)}</th>' for column in self.columns)
        lines = [f'<th style="{left}"></th>{heads}']
        for row, (label, *cells) in zip(self.rows, self.cells(), strict=True):
            values = "".join(
                f'<td style="{right}">{_bold(cell)}{self._drawn(row.get(column), column)}</td>'
                for column, cell in zip(self.columns, cells, strict=True)
            )
            lines.append(f'<th style="{left}">{html.escape(label)}</th>{values}')
        body = "".join(f'<tr style="background:none">{line}</tr>' for line in lines)
        style = "border-collapse:collapse;font-variant-numeric:tabular-nums;font-size:inherit;color:inherit"
        return (
            f'<div style="overflow-x:auto"><p style="max-width:46em">{html.escape(self.result["what"])}</p>'
            f'<table style="{style}">{body}</table>'
            f'<p style="opacity:.7;font-size:.85em">{html.escape(self.foot())}</p></div>'
        )

    def _drawn(self, interval, column):
        """A bar below the numbers: where the interval lies in [0, 1], or among the column's numbers."""
        all_ends = [end for row in self.rows for end in row.get(column, [])[1:] if end is not None]
        least, most = (min(all_ends, default=0), max(all_ends, default=0)) if _is_number(column) else (0, 1)
        lonely = _is_number(column) and sum(column in row for row in self.rows) == 1
        if interval is None or interval[1] is None or lonely or most == least:
            return ""
        start, end = (97 * (x - least) / (most - least) for x in interval[1:])
        blue = f"{GREY} {start:.1f}%,{BLUE} {start:.1f}%,{BLUE} {end + 3:.1f}%,{GREY} {end + 3:.1f}%"
        style = "height:5px;min-width:7em;margin-top:4px;border-radius:3px"
        return f'<div style="{style};background:linear-gradient(90deg,{blue})"></div>'


def text(interval, column: str) -> str:
    """A value and its interval, with the digits that the interval allows: 83% [77, 88], 27.4 [26.8, 28.0]."""
    if interval is None or interval[0] is None:
        return ""
    scale, unit = (1, "") if _is_number(column) else (100, "%")
    value, low, high = (None if x is None else scale * x for x in interval)
    if low is None:
        return f"{value:.3g}{unit}"
    # The interval is 3 to 30 units of the last digit wide.
    style = ".3g"
    if high > low:
        style = f".{min(4, max(0, -math.floor(math.log10((high - low) / 3))))}f"
    return f"{value:{style}}{unit} [{low:{style}}, {high:{style}}]"


def _is_number(column):
    return column.endswith(")")


def _bold(cell):
    value, _, interval = html.escape(cell).partition(" ")
    return f'<b>{value}</b> <span style="opacity:.6;font-size:.9em">{interval}</span>'
