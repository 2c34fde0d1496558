"""Precision and diversity of editing methods: the protocol of Blended Latent Diffusion (2206.02779,
section 5) on tinyworld, whose judge guides nothing and whose scenes have a truth.

    blendlab results precision --methods "blended:5,blended_latent*" --scenes 10 --batch 4

Random boxes with sides of a fifth to a half of the picture's, a random class as prompt, a batch of
results for each. Each scene of each method is a file, so a run that was killed goes on, and another
CLIP only ranks what is there. Processes share the scenes: `accelerate launch --multi_gpu
--num_processes 2 -m blendlab results precision ...`, on CPUs, too; on several machines `-o` is a
folder that all of them see. Next: methods.py, what is compared; photographs.py, the same on
photographs; leaderboard.py.
"""

import json
import math
import os
import shlex
import time
from dataclasses import dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from .. import cards, files, viz, world
from .. import images as inputs
from ..blend import blend
from ..errors import Refused
from ..networks.judge import to_size
from ..networks.load import load
from ..networks.perceptual import encoder_distance, encoder_features
from ..options import number
from ..rank import rank
from ..warps import warp
from ..world.noise import uniform
from . import metrics, pages, results
from .exemplars import frame
from .methods import Ask, Method, added, chosen
from .pixel_blending import complete
from .tables import part, progress, seen_inside, seen_outside, side

SEED = world.HELD_OUT + 25  # of these scenes, boxes and prompts
SCENES, BATCH = 50, 24  # the paper's pictures, and the batch of its timings (table 2)
KEPT = 0.15  # of the range: an autoencoder's error outside the mask is a third of it
RANKING = "tinyworld-clip"
MEASURING = ("tinyworld", RANKING, "tinyworld-judge")  # their weights are part of a row
COLUMNS = 10  # of the sheet of a scene
TASKS = ("add", "remove")
DISTANCE = "tinyworld's autoencoder"  # whose features stand for LPIPS, as weights travel offline
SPREAD = f"diversity ({DISTANCE})"
LOOKS = f"background ({DISTANCE})"

WHAT = {
    "add": "An object that words name, in a random box of a held-out scene. Batch precision: of "
    "all results the share whose box shows the class; best result: of those that CLIP puts first. "
    f"Diversity: mean distance, by the features of {DISTANCE}, of all pairs of right results of a "
    "scene. Complete: pixels of the class beside those of the truth, at most 1; where the judge "
    "sees none in the truth, any pixel counts as all. Truth: one of the right answers, the object "
    "in the middle of the box.",
    "remove": "An object taken out of a held-out scene, with words for what is behind it. Gone: "
    "the judge sees no more of the box full of objects than in the truth, up to 5%. Shadow left: "
    "of what the object did to the picture beside itself, its shadow or reflection, the share that "
    "is still there.",
}


# Scenes


@dataclass(frozen=True)
class Drawn:
    """Scene number i of a task at a size: what is measured, and what may be asked with."""

    tasks: metrics.Tasks  # of one
    thing: Tensor  # (1,1,S,S) the object itself, in the truth or (to remove) in the picture
    reference: Tensor  # (1,3,2S,2S)
    caption: str
    whole: str

    def ask(self, n: int, seed: int) -> Ask:
        tasks = self.tasks
        same = (tasks.image.clone(), tasks.mask.clone(), tasks.prompts[0], self.reference.clone())
        return Ask(*same, self.caption, self.whole, n, seed)

    @property
    def shown(self) -> list:
        """What stands before the results on a sheet."""
        size = self.tasks.image.shape[-1]
        return [viz.overlay(self.tasks.image, self.tasks.mask, size), self.tasks.truth]


def draw(task: str, i: int, size: int) -> Drawn:
    """Scene i depends on (task, i) alone; the size only says how finely it is drawn."""
    if task == "remove":
        return _to_remove(i, size)
    u, v, x0, y0, w, h = lot(i)
    kinds = world.SIMPLE if _simple() else world.KINDS
    kind, colour = kinds[int(u * len(kinds))], world.COLOURS[int(v * len(world.COLOURS))]

    before = world.sample(1, SEED, start=i)
    before = world.without(before, 0) if before.count == world.SLOTS else before
    before = world.simple(before) if _simple() else before
    place = dict(x=x0 + w / 2, y=y0 + h / 2, size=0.46 * min(w, h))
    thing = dict(kind=kind, colour=colour, **place)
    return posed(before, thing, torch.tensor([[x0, y0, x0 + w, y0 + h]]), size)


def lot(i: int) -> tuple[float, ...]:
    """Two numbers in [0,1) of scene i, and its box: left, top, width, height, a fifth to a half."""
    u = uniform(SEED, torch.tensor([i]), 40, 8)[0].tolist()
    w, h = 0.2 + 0.3 * u[2], 0.2 + 0.3 * u[3]
    return u[0], u[1], u[4] * (1 - w), u[5] * (1 - h), w, h


def posed(before, thing: dict, box, size: int) -> Drawn:
    """A task of your own: `thing`, as in world.scene, is to appear in the box (x0, y0, x1, y1)."""
    after, slot = world.added(before, **thing), before.count
    view = world.render(after, size)
    tasks = metrics.Tasks(
        image=world.render(before, size).image,
        mask=metrics.box_mask(torch.as_tensor(box).view(1, 4), size),
        truth=view.image,
        scenes=after,
        slot=slot,
        prompts=world.describe(after, slot),
        kind=[thing["kind"]],
        colour=[thing["colour"]],
    )
    mine = view.masks[torch.arange(1), slot][:, None]
    said = [world.captions(scenes, setting=0.0)[0] for scenes in (before, after)]
    return Drawn(tasks, mine, _reference(after, thing["kind"], thing["colour"], size), *said)


def _to_remove(i, size):
    tasks = metrics.tasks(1, start=i, seed=SEED, size=size, simple=_simple())
    view = world.render(tasks.scenes, size)
    bare = replace(tasks.scenes, kind=torch.full_like(tasks.scenes.kind, -1))
    without = world.without(tasks.scenes, tasks.slot)
    said = [world.captions(scenes, setting=0.0)[0] for scenes in (tasks.scenes, without)]
    prompt = world.captions(bare, setting=1.0)
    other = replace(tasks, image=tasks.truth, truth=tasks.image, prompts=prompt)
    thing = view.masks[torch.arange(1), tasks.slot][:, None]
    return Drawn(other, thing, world.render(bare, 2 * size).image, *said)


def _reference(scenes, kind, colour, size):
    """Such an object alone, on another ground, by day if its scene is dark, else at night."""
    dark = scenes.time.item() != world.TIMES.index("day")
    ground = "snow" if scenes.ground.item() == world.GROUNDS.index("sand") else "sand"
    thing = dict(kind=kind, colour=colour, x=0.5, y=0.55, size=0.38, tilt=0.2)
    view = world.render(world.scene(ground, "day" if dark else "night", [thing]), 2 * size)
    return warp(view.image, frame(view.boxes[:, 0]))


def _simple():
    """Whether the pixel model that ships knows the simple world only: then all draw from it."""
    return cards.read(cards.WEIGHTS / "tinyworld-pixel").get("world") == "simple"


# One scene of one method


def outcomes(task: str, drawn: Drawn, images: Tensor, judge, clip, distance, spread) -> dict:
    """{column: one value for each of the results}, and what belongs to the scene as a whole."""
    n, tasks = len(images), part(drawn.tasks, [0] * len(images))
    image, mask, truth = tasks.image, tasks.mask, tasks.truth
    beside = blend(mask, edit=image, keep=images)  # so that only the background differs
    each = seen_outside(images, tasks) | {
        LOOKS: distance(beside, image),
        "seam (1 is none)": metrics.seam(images, mask),
        "light off (of range)": metrics.light_error(images, truth, mask),
        "truth error (of range)": metrics.truth_error(images, truth, mask),
    }
    if task == "remove":
        inside = to_size(mask)
        things = [(judge(x).kinds().cpu() > 0) & inside for x in (images, truth)]
        share = [x.sum((1, 2)) / inside.sum((1, 2)) for x in things]
        left = metrics.stayed_behind(images, image, truth, drawn.thing)
        return {"gone": share[0] <= share[1] + 0.05, "shadow left (1 is all)": left} | each
    favourite, liked = preferred(images, tasks.prompts[0], clip, mask[:1])
    seen = seen_inside(judge, images, tasks)
    right = blend(mask, edit=images, keep=image)[seen["class"]]  # outside, all are the source
    return {
        "batch precision": seen["class"],
        "best result": seen["class"][favourite],
        "class and colour": seen["class and colour"],
        "complete": complete(judge, images, tasks),
        SPREAD: torch.tensor([spread(right)] if n > 1 else []),
        "CLIP distance (1 - cos)": liked,
    } | each


def preferred(images: Tensor, prompt: str, clip, mask: Tensor) -> tuple[list[int], Tensor]:
    """The one picture that CLIP puts first, and CLIP's distance of each, (n,)."""
    order, scores = rank(images, prompt, clip, mask)
    return order[:1], torch.tensor(scores)[torch.tensor(order).argsort()]


def on(device, distance):
    """A distance of two batches that is measured on a device, for pictures on the CPU."""
    return lambda a, b: distance(a.to(device), b.to(device)).cpu()


def spread(vae, images: Tensor) -> float:
    """metrics.diversity by perceptual.encoder_distance, with one look at each picture.

    Of n vectors, the squared distances of all pairs sum to n times the sum of their squares minus
    the square of their sum.
    """
    n, levels = len(images), []
    if n < 2:
        return math.nan
    for f in encoder_features(vae, images):  # (n,d,h,w)
        pairs = n * f.square().sum() - f.sum(0).square().sum()
        levels.append(pairs / f[0, 0].numel() / (n * (n - 1) / 2))
    return torch.stack(levels).mean().item()


def admitted(method: Method, made, ask: Ask) -> Tensor:
    """What a method made, on the CPU; or a sentence about what is wrong with it."""
    images, want = getattr(made, "tensor", made), (ask.n, *ask.image.shape[1:])
    shape = tuple(getattr(images, "shape", ()))
    if not isinstance(images, Tensor) or shape != want:
        got = f"shape {shape}" if isinstance(images, Tensor) else type(images).__name__
        raise Refused(
            f"{method.name} returned {got}, not {want}: return an Edit, or a tensor with ask.n "
            "pictures of the size of ask.image"
        )
    images = images.detach().float().cpu()
    if not images.isfinite().all():
        raise Refused(f"{method.name} returned NaN or infinite values: take a smaller weight")
    if images.abs().max() > 1.001:
        raise Refused(
            f"{method.name} returned values from {images.min():.2f} to {images.max():.2f}: "
            "pictures are in [-1,1], so clamp or rescale them"
        )
    error = metrics.background_error(images, ask.image, ask.mask).mean().item()
    if method.keeps and error > KEPT:
        raise Refused(
            f"{method.name} changed the background by {error:.2f} of the range (allowed: {KEPT}): "
            "put the source back with bl.blend(ask.mask, edit, ask.image), or register the method "
            "with keeps=False"
        )
    return images


def clock() -> float:
    """Seconds: of this process where a CPU works, so that what else runs there does not count."""
    return time.perf_counter() if torch.cuda.is_available() else time.process_time()


def tensors(loaded) -> list[Tensor]:
    """The weights of the networks that a method is called with."""
    parts = [getattr(one, "components", None) or vars(one) for one in loaded]
    modules = {id(m): m for each in parts for m in each.values() if isinstance(m, nn.Module)}
    return [p for module in modules.values() for p in module.parameters()]


def parameters(loaded) -> int:
    """How many weights the networks hold that a method is called with."""
    return sum(p.numel() for p in tensors(loaded))


def weights_in(loaded) -> list[float]:
    """A number for each tensor of weights, which changes when they are changed in place."""
    return [p.detach().float().sum().item() for p in tensors(loaded)]


# Runs


def tasks_of(task: str) -> dict:
    """What says which tasks a row was made with: name, seed, and digits of how they are drawn."""
    drawn = [draw(task, i, 16) for i in range(4)]
    said = [(*d.tasks.prompts, d.caption, d.whole, d.tasks.mask.sum().item()) for d in drawn]
    numbers = [
        [round(v, 3) for f in fields(scenes) for v in getattr(scenes, f.name).flatten().tolist()]
        for scenes in (d.tasks.scenes for d in drawn)
    ]
    return {
        "task": task,
        "seed": SEED,
        "tasks": results.digest(json.dumps([said, numbers]).encode()),
    }


@cache
def weights_of(name: str) -> str:
    """Digits that change with the files of a network that methods ask for."""
    if name not in cards.SHIPPED:
        known = ", ".join(cards.SHIPPED)
        raise Refused(f"methods are compared with the networks {known}, not {name!r}")
    return results.fingerprint(name)


@dataclass
class Run:
    """Methods, and where their scenes are kept: out/METHOD/scene-0003.json and .png."""

    task: str
    scenes: int
    batch: int
    out: Path
    loaded: dict

    @property
    def what(self) -> str:
        return WHAT[self.task]

    @property
    def asked(self) -> dict:
        """The options of the command, beside those of all tasks."""
        return {"--task": None if self.task == "add" else self.task}

    def network(self, name):
        if name not in self.loaded:
            rank = os.environ.get("LOCAL_RANK")
            many = rank is not None and torch.cuda.is_available()
            place = {"device": f"cuda:{rank}"} if many else {}
            place |= {"device": "cpu"} if name == "tinyworld-judge" else {}  # as the results are
            self.loaded[name] = load(name, **place)
        return self.loaded[name]

    def tasks(self) -> dict:
        return tasks_of(self.task)

    def weights(self, method: Method) -> dict:
        return {name: weights_of(name) for name in (*MEASURING, *method.needs)}

    def draw(self, i: int, size: int) -> Any:
        """Scene i as a Drawn, or what has its `ask` and `shown`."""
        return draw(self.task, i, size)

    def outcomes(self, drawn, images: Tensor) -> dict:
        judging = self.network("tinyworld-judge"), self.network(RANKING)
        return outcomes(self.task, drawn, images, *judging, *self.distances())

    def identity(self, method: Method) -> dict:
        """What must be the same in all scenes of a row; JSON."""
        code = results.digest(method.code.encode())
        return self.tasks() | {"batch": self.batch, "weights": self.weights(method), "code": code}

    def scene(self, method: Method, i: int, identity: dict) -> None:
        """Make and measure one scene of a method, and keep it."""
        loaded = [self.network(name) for name in method.needs]
        makers = [one for one in loaded if hasattr(one, "unet")] or [self.network("tinyworld")]
        drawn, before = self.draw(i, side(makers[0])), weights_in(loaded)
        ask, start = drawn.ask(self.batch, seed=i), clock()
        with torch.no_grad():
            if method.name == "truth":
                made = drawn.tasks.truth.expand(self.batch, -1, -1, -1)
            else:
                made = method(drawn.ask(self.batch, seed=i), *loaded)  # it may work in place
            images = admitted(method, made, ask)
            seconds = clock() - start
            if weights_in(loaded) != before:  # all that follows would be made by others
                raise Refused(
                    f"{method.name} changed the weights of its networks, which all methods share: "
                    "work on a copy, as in copy.deepcopy(pipe.vae)"
                )
            found = self.outcomes(drawn, images)
        found |= {"a picture (s)": [seconds / self.batch], "a batch (s)": [seconds]}
        found |= {"parameters (M)": [parameters(loaded) / 1e6], "side (pixels)": [images.shape[-1]]}
        self.keep(method, i, drawn, images, {
            "scene": i,
            "prompt": ask.prompt,
            "identity": identity,
            "device": results.machine()["device"],
            "seconds": clock() - start,
            "outcomes": {column: [_plain(v) for v in values] for column, values in found.items()},
        })  # fmt: skip

    def distances(self):
        """Of two batches of pictures on the CPU, and the mean of all pairs of one batch."""
        pipe = self.network("tinyworld")
        return (
            on(pipe.device, encoder_distance(pipe.vae)),
            lambda x: spread(pipe.vae, x.to(pipe.device)),
        )

    def keep(self, method, i, drawn, images, record):
        """The picture first: a record without its picture does not count."""
        with files.replacing(self.path(method, i).with_suffix(".png")) as file:
            columns = min(COLUMNS, len(drawn.shown) + len(images))
            viz.sheet([*drawn.shown, images], columns=columns).save(file, "PNG")
        files.write_text(self.path(method, i), json.dumps(record) + "\n")

    def path(self, method, i) -> Path:
        return place(self.out, method.name, i)

    def kept(self, method, i, identity) -> dict | None:
        """A scene that is there; one of another making is refused. One that only another CLIP has
        ranked is ranked again, from its sheet.
        """
        file = self.path(method, i)
        if not file.is_file() or not file.with_suffix(".png").is_file():
            return None
        record = json.loads(file.read_text())
        was = record["identity"]
        changed = [key for key, now in identity.items() if was.get(key) != now]
        if changed == ["weights"] and RANKING not in method.needs:
            ranking = identity["weights"].get(RANKING)
            if was["weights"] | {RANKING: ranking} == identity["weights"]:
                return self.ranked(method, i, record | {"identity": identity})
        if changed:
            raise Refused(
                f"{file.parent} was made with another {changed[0]}: delete it, or "
                "name another folder with -o"
            )
        return record

    def ranked(self, method, i, record) -> dict:
        """The record of a scene with what CLIP says of its results, which are read from its sheet:
        in 8 bits, so a distance may differ by a thousandth.
        """
        outcomes = record["outcomes"]
        if "best result" in outcomes:
            side = int(outcomes["side (pixels)"][0])
            drawn, right = self.draw(i, side), outcomes["batch precision"]
            with Image.open(self.path(method, i).with_suffix(".png")) as strip:
                before = len(drawn.shown)
                tiles = [tile(strip, before + k, side) for k in range(len(right))]
            images, ask = torch.cat([inputs.image(one) for one in tiles]), drawn.ask(1, seed=i)
            first, liked = preferred(images, ask.prompt, self.network(RANKING), ask.mask)
            outcomes["best result"] = [right[k] for k in first]
            outcomes["CLIP distance (1 - cos)"] = [_plain(v) for v in liked]
        files.write_text(self.path(method, i), json.dumps(record) + "\n")
        return record


def tile(strip: Image.Image, k: int, side: int) -> Image.Image:
    """Picture k of the sheet of a scene: 0 shows the mask, 1 the truth, the others are results."""
    row, column = divmod(k, (strip.width + viz.GAP) // (side + viz.GAP))
    x, y = column * (side + viz.GAP), row * (side + viz.GAP)
    return strip.crop((x, y, x + side, y + side))


def place(out: Path, label: str, i: int) -> Path:
    """Where scene i of a method is kept; its picture has the ending .png."""
    return out / label / f"scene-{i:04d}.json"


def run(methods=None, scenes=SCENES, batch=BATCH, task="add", out="runs/precision", add=None):
    """Measure methods (as methods.chosen reads them; add: a file with your own), and return the
    table; None where other processes still have scenes to make.

    Scenes that are in `out` already are not made again.
    """
    if task not in TASKS:
        raise Refused(f"task is {task!r}; choose {' or '.join(TASKS)}")
    sized(scenes, batch)
    listed = {one.name: one for one in (added(add) if add else [])}
    if methods or not add:
        listed |= {one.name: one for one in chosen(methods)}
    run = Run(task, scenes, batch, Path(out), {})
    return compared(run, list(listed.values()), methods, add)


def sized(scenes, batch) -> None:
    """Refuse numbers of scenes and of results that cannot be."""
    for name, value, most in (("scenes", scenes, results.MOST), ("batch", batch, 1000)):
        number(name, value)
        if not 1 <= value <= most:
            raise Refused(f"{name} is {value}; take 1 to {most}")


def compared(run: Run, listed: list[Method], methods=None, add=None) -> dict | None:
    """Make what is missing of the scenes of a run, and return the table, as `run` does."""
    for one in listed:
        if one.scenes and one.scenes > run.scenes:
            raise Refused(f"{one.name}:{one.scenes} asks for more than the {run.scenes} scenes")
    try:
        run.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Refused(f"{run.out} cannot be a folder ({error}): name another with -o") from None
    identities = {one.name: run.identity(one) for one in listed}
    scenes = {one.name: range(one.scenes or run.scenes) for one in listed}

    # Scene i belongs to process i modulo their number.
    mine, of = (
        int(os.environ.get(name, least)) for name, least in (("RANK", 0), ("WORLD_SIZE", 1))
    )
    todo = [(one, i) for one in listed for i in scenes[one.name][mine::of]]
    with progress(len(todo), f"precision, {run.task}", "scene") as bar:
        for one, i in todo:
            bar.set_postfix_str(one.name)
            if not run.kept(one, i, identities[one.name]):
                run.scene(one, i, identities[one.name])
            bar.update(1)

    records = {
        one.name: [run.kept(one, i, identities[one.name]) for i in scenes[one.name]]
        for one in listed
    }
    if not all(all(each) for each in records.values()):
        return None
    return table(run, records, methods, add)


def save(out="runs/precision") -> dict:
    """Keep a run's table, with a figure of its first scenes, in data/results; returns the table."""
    out, to = Path(out), files.data() / "results"
    made = json.loads((out / "precision.json").read_text())
    with files.replacing(to / f"{made['name']}.png") as part:
        side_by_side(out, made).quantize(kmeans=1).save(part, "PNG", optimize=True)
        made["figure"] = results.digest(part.read_bytes())
    pages.write_table(to / made["name"], made)
    return made


def outdated() -> dict[str, float]:
    """The saved tables of methods whose networks have changed, and the seconds that each took."""
    found = {name: results.load(name) for name in results.ELSEWHERE if results.saved(name)}
    return {
        name: made["seconds"]
        for name, made in found.items()
        if made["weights"] != results.fingerprints(made["weights"])
    }


def again(name: str) -> None:
    """Make a saved table of methods again, by the command that it names, and save it."""
    words = shlex.split(results.load(name)["command"])[3:]
    asked = dict(zip(words[::2], words[1::2], strict=True))
    how = int(asked["--scenes"]), int(asked["--batch"]), asked.get("--task", "add")
    if run(asked["--methods"], *how, out=f"runs/{name}"):
        save(f"runs/{name}")


def side_by_side(out: Path, made: dict, scenes=3):
    """The first result of each method, for the first scenes of a run: a picture in PIL."""
    shown, titles = [], []
    side, columns = int(made["rows"][0]["side (pixels)"][0]), 8
    labels = [row["label"] for row in made["rows"]]
    fewest = min(row.get("scenes (n)", [made["n"]])[0] for row in made["rows"])

    def piece(label, i, k):
        with Image.open(place(out, label, i).with_suffix(".png")) as strip:
            return tile(strip, k, side)

    for i in range(min(scenes, fewest)):
        shown += [piece(labels[0], i, 0), *(piece(label, i, 2) for label in labels)]
        titles.append(json.loads(place(out, labels[0], i).read_text())["prompt"])
        titles += [label.replace("+", " +") for label in labels]
        blank = -len(shown) % columns  # the next scene begins a row
        shown += [Image.new("RGB", (side, side), "white")] * blank
        titles += [""] * blank
    return viz.show(shown, titles, columns=columns, panel=side)


# The table


def table(run: Run, records: dict, methods=None, add=None) -> dict:
    """The table of all records, as results.Table shows it; pages.py writes it."""
    asked = run.asked | {"--methods": methods, "--add": add}
    words = [f"{k} {shlex.quote(str(v))}" for k, v in asked.items() if v is not None]
    every = [record for each in records.values() for record in each]

    def of(n):
        """What a table of n scenes says of itself."""
        less = f" Here: {n} scenes x {run.batch}, of {SCENES} x {BATCH}."
        size = f"--scenes {n} --batch {run.batch}"
        return {
            "what": run.what + less * ((n, run.batch) != (SCENES, BATCH)),
            "command": " ".join(["blendlab results precision", *words, size]),
            "n": n,
        }

    made = {"name": "removals" if run.task == "remove" else "precision"} | of(run.scenes)
    made |= {
        "seconds": spent(every),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "batch": run.batch,
        "seed": SEED,
    }
    made |= results.machine()
    made["weights"] = {k: v for r in every for k, v in r["identity"]["weights"].items()}
    made["rows"] = [
        {"label": name}
        | intervals(each)
        | {"first": first(each), "first result": first_result(each[0])}
        for name, each in records.items()
    ]
    fewer = any(len(each) < run.scenes for each in records.values())
    for row, each in zip(made["rows"], records.values(), strict=True):
        n = len(each)
        row |= {"scenes (n)": [n, n, n]} if fewer else {}
        identity = each[0]["identity"]
        own = {"seconds": spent(each), "weights": identity["weights"]}
        alone = made | of(n) | own | {"rows": [row], "identity": identity}
        pages.write_row(run.out / row["label"], alone)
    pages.write(run.out, made, records)
    return made


def spent(records: list[dict]) -> float:
    """The seconds that scenes took."""
    return round(sum(record["seconds"] for record in records), 1)


def intervals(records: list[dict]) -> dict[str, list]:
    """{column: (value, low, high)} over scenes."""
    return {
        column: [results._short(x) for x in metrics.resampled(values, not column.endswith(")"))]
        for column, values in pages.scene_means(records).items()
    }


def first(records: list[dict]) -> dict[str, list]:
    """{column: the mean of each of the first scenes}, for results.reproduces; no times."""
    means = pages.scene_means(records[: results.KEPT])
    return {
        column: [None if v is None else results._short(v) for v in values]
        for column, values in means.items()
        if not column.endswith("(s)")
    }


def first_result(record: dict) -> dict[str, list]:
    """{column: the value of the first result of a scene}, of what each result has; no times."""
    batch = record["identity"]["batch"]
    return {c: values[:1] for c, values in record["outcomes"].items() if len(values) == batch > 1}


def _plain(value):
    """A number for JSON: six digits, None for NaN."""
    value = float(value)
    return float(f"{value:.6g}") if math.isfinite(value) else None
