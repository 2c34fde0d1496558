"""What a tinyworld scene is: a handful of numbers, and the ways to draw, change and describe them.

Because a picture is a function of these numbers, every edit has a truth: the same numbers with one
of them changed, drawn again. Next: render.py turns scenes into pictures, captions.py into words.
"""

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from ..errors import Refused
from ..options import number
from .noise import uniform

FAMILIES = {
    "animals": ("cat", "dog", "fish", "bird"),
    "vehicles": ("car", "bus", "boat"),
    "plants": ("tree", "flower", "mushroom"),
    "sky": ("moon", "star", "balloon"),
    "toys": ("ball", "heart"),
    "people": ("face",),
    "buildings": ("house", "sign"),
    "thin": ("lamp", "fence", "lightning"),
}
KINDS = tuple(kind for family in FAMILIES.values() for kind in family)
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "white")
GROUNDS = ("grass", "sand", "snow", "water", "stone")
TIMES = ("day", "sunset", "night")
PATTERNS = ("plain", "striped", "spotted")
SIGN_WORDS = (
    "cat", "dog", "fish", "bird", "car", "bus", "boat", "tree", "moon", "star", "ball", "face",
    "lamp", "go", "hi", "stop", "art", "sea",
)  # fmt: skip
# The first half flies.
SIMPLE = ("star", "moon", "balloon", "heart", "ball", "mushroom", "tree", "house")
SLOTS = 4  # objects in a scene, at most
HELD_OUT = 1_000_000  # no network is ever trained on scenes of this seed or a higher one

_FLYING = tuple(KINDS.index(kind) for kind in (*FAMILIES["sky"], "bird", "lightning", "heart"))
_STANDING = tuple(k for k in range(len(KINDS)) if k not in _FLYING)
_SIMPLER = tuple(  # for each kind one of SIMPLE, in turn
    KINDS.index(
        SIMPLE[_FLYING.index(k) % 4] if k in _FLYING else SIMPLE[4 + _STANDING.index(k) % 4]
    )
    for k in range(len(KINDS))
)
_SCALE = dict(sign=1.25, face=1.1, lamp=1.25, fence=1.15, lightning=1.2, tree=1.15, house=1.1)
_COUNTS = (0.06, 0.56, 0.88, 0.96)  # share of scenes with at most 0, 1, 2, 3 objects
# Half-width of an object by how many share the picture.
_BIGGEST = (0.32, 0.32, 0.235, 0.165, 0.135)
_SMALLEST = (0.16, 0.16, 0.14, 0.11, 0.10)


@dataclass(frozen=True)
class Scenes:
    """A batch of scenes as tensors; positions and sizes are fractions of the picture, y grows down.

    Objects stand in SLOTS slots, drawn in that order (later ones in front); kind -1 is an empty
    slot.
    """

    ground: Tensor  # (B,) index into GROUNDS
    time: Tensor  # (B,) index into TIMES
    horizon: Tensor  # (B,) height of the horizon
    look: Tensor  # (B, 8) in [0, 1): clouds, hills, textures
    kind: Tensor  # (B, SLOTS) index into KINDS, or -1
    colour: Tensor  # (B, SLOTS) index into COLOURS
    # (B, SLOTS) index into COLOURS, never the colour itself: not named by plain captions
    accent: Tensor
    pattern: Tensor  # (B, SLOTS) index into PATTERNS: not named by plain captions
    word: Tensor  # (B, SLOTS) index into SIGN_WORDS, seen on signs only
    x: Tensor  # (B, SLOTS) centre
    y: Tensor  # (B, SLOTS)
    size: Tensor  # (B, SLOTS) half the width of the object's square
    tilt: Tensor  # (B, SLOTS) radians
    flip: Tensor  # (B, SLOTS) +1 or -1: faces right or left

    def __len__(self) -> int:
        return len(self.kind)

    def __getitem__(self, index) -> "Scenes":
        """The scenes of a slice, a list or a tensor of numbers; always a batch."""
        index = slice(index, index + 1 or None) if isinstance(index, int) else index
        return Scenes(*(getattr(self, f.name)[index] for f in fields(self)))

    @property
    def count(self) -> Tensor:
        """(B,) how many objects each scene holds."""
        return (self.kind >= 0).sum(1)


def cat(parts: list[Scenes]) -> Scenes:
    """One batch of several."""
    return Scenes(*(torch.cat([getattr(p, f.name) for p in parts]) for f in fields(Scenes)))


def pick(u: Tensor, n: int) -> Tensor:
    """Numbers in [0, 1) as integers 0 .. n-1."""
    return (u * n).long()


def sample(n: int, seed: int = 0, start: int = 0, device="cpu") -> Scenes:
    """n scenes, numbers start .. start+n-1 of a seed.

    A scene depends on its seed and its number alone, so any part of a seed can be drawn again in
    batches of any size.
    """
    number("n", n, span=(1, 10**7, "it counts the scenes, so take 1 or more"))
    number("start", start, span=(0, 2**62, "the number of the first scene, 0 is usual"))
    number("seed", seed)
    index = torch.arange(start, start + n, device=device)
    u = uniform(seed, index, 0, 16)
    horizon = 0.45 + 0.2 * u[:, 2]
    count = (u[:, 3, None] >= torch.tensor(_COUNTS, device=device)).sum(1)  # (B,)

    # Each object has a lane of its own, left to right in an order drawn by sorting random numbers.
    order = uniform(seed, index, 1, SLOTS)
    slot = torch.arange(SLOTS, device=device)
    there = slot < count[:, None]  # (B, SLOTS)
    lane = order.masked_fill(~there, 2).argsort(1).argsort(1)
    objects = _objects(
        uniform(seed, index, 2, 12 * SLOTS).view(n, 12, SLOTS),
        count[:, None],
        lane,
        horizon[:, None],
    )
    objects["kind"] = objects["kind"].masked_fill(~there, -1)

    # What stands lower in the picture is nearer, so it is drawn later.
    depth = (objects["y"] + objects["size"]).masked_fill(~there, 9).argsort(1)
    objects = {name: value.gather(1, depth) for name, value in objects.items()}
    return Scenes(
        pick(u[:, 0], len(GROUNDS)), pick(u[:, 1], len(TIMES)), horizon, u[:, 8:16], **objects
    )


def _objects(u: Tensor, count: Tensor, lane: Tensor, horizon: Tensor) -> dict[str, Tensor]:
    """Objects from uniform numbers u (B, 12, SLOTS): what they are, then where they stand."""
    table = lambda values: torch.tensor(values, device=u.device)  # noqa: E731
    kind, colour = pick(u[:, 0], len(KINDS)), pick(u[:, 1], len(COLOURS))
    accent = (colour + 1 + pick(u[:, 2], len(COLOURS) - 1)) % len(COLOURS)
    pattern = (u[:, 3, :, None] >= table([0.64, 0.82])).sum(-1)  # about two thirds are plain

    # Size: by how many share the picture, and by kind.
    small, big = table(_SMALLEST)[count], table(_BIGGEST)[count]
    size = (small + (big - small) * u[:, 4]) * table([_SCALE.get(k, 1.0) for k in KINDS])[kind]

    # Place: sideways in its lane; some fly, most stand on the ground, nearer ones lower, a few hang
    # anywhere.
    lanes = count.clamp(min=1)
    x = (lane + 0.5 + (u[:, 5] - 0.5) * (1 - size * lanes * 1.6).clamp(min=0.15)) / lanes
    x = x.clamp(0.02, 0.98).maximum(0.7 * size).minimum(1 - 0.7 * size)
    flies = (kind[..., None] == table(_FLYING)).any(-1) & (u[:, 6] < 0.75)
    sky = 0.8 * size + (horizon - 0.9 * size - 0.8 * size).clamp(min=0.02) * u[:, 7]
    stand = (horizon + 0.05 + (0.94 - horizon) * u[:, 7]).minimum(table(0.99)) - 0.95 * size
    anywhere = size + (1 - 2 * size) * u[:, 7]
    y = torch.where(u[:, 8] < 0.15, anywhere, torch.where(flies, sky, stand))
    y = y.maximum(0.85 * size).minimum(1 - 0.85 * size)

    tilt = (u[:, 9] - 0.5) * 0.5 * (u[:, 10] < 0.35)
    flip = torch.where(u[:, 10].remainder(0.02) < 0.01, 1.0, -1.0)
    word = pick(u[:, 11], len(SIGN_WORDS))
    return dict(
        kind=kind,
        colour=colour,
        accent=accent,
        pattern=pattern,
        word=word,
        x=x,
        y=y,
        size=size,
        tilt=tilt,
        flip=flip,
    )


def scene(ground="grass", time="day", objects=(), *, seed=0, horizon=0.55, device="cpu") -> Scenes:
    """One scene written by hand; objects are dicts of kind, colour and any other field of Scenes.

    scene("snow", "night", [dict(kind="house", colour="red", x=0.3, y=0.6, size=0.2,
    pattern="striped")])
    """
    number("horizon", horizon, whole=False)
    several = isinstance(objects, list | tuple)
    if not several or not all(isinstance(values, dict) for values in objects):
        raise Refused(f"objects is {objects!r}: pass a list of dicts, as [dict(kind='house')]")
    if len(objects) > SLOTS:
        raise Refused(f"a scene holds at most {SLOTS} objects; {len(objects)} were given")
    base = sample(1, seed=seed, device=device)
    empty = replace(
        base,
        ground=torch.full_like(base.ground, _index(ground, GROUNDS, "ground")),
        time=torch.full_like(base.time, _index(time, TIMES, "time")),
        horizon=torch.full_like(base.horizon, horizon),
        kind=torch.full_like(base.kind, -1),
    )
    for values in objects:
        empty = added(empty, **values)
    return empty


def _index(value, names: tuple[str, ...], what: str) -> int:
    if value not in names:
        raise Refused(f"tinyworld has no {what} {value!r}; it has {', '.join(names)}")
    return names.index(value)


_NAMED = {
    "kind": KINDS,
    "colour": COLOURS,
    "accent": COLOURS,
    "pattern": PATTERNS,
    "word": SIGN_WORDS,
}


def _put(scenes: Scenes, slot: Tensor, values: dict) -> Scenes:
    """Write values (words, numbers or (B,) tensors) into slot (B,) of each scene."""
    rows = torch.arange(len(scenes), device=slot.device)
    changed = {}
    for name, value in values.items():
        if (
            name not in {f.name for f in fields(Scenes)}
            or getattr(scenes, name).dim() != 2
            or name == "look"
        ):
            raise Refused(
                f"objects have no {name!r}; they have kind, colour, accent, pattern, word, x, "
                "y, size, tilt, flip"
            )
        if isinstance(value, str):
            value = _index(value, _NAMED[name], name)
        column = getattr(scenes, name).clone()
        column[rows, slot] = torch.as_tensor(value, device=slot.device).to(column.dtype)
        changed[name] = column
    return replace(scenes, **changed)


def added(scenes: Scenes, seed: int | None = None, **values) -> Scenes:
    """The same scenes with one more object in front; fields are words, numbers or (B,) tensors.

    What is left out is drawn from seed: of eight random objects the one that covers least of the
    others is taken. Scenes that are full already raise ValueError.
    """
    if (scenes.count >= SLOTS).any():
        raise Refused(
            f"a scene holds at most {SLOTS} objects; take one out with without(scenes, slot) first"
        )
    slot, B = scenes.count, len(scenes)
    drawn = (
        _drawn(scenes, seed or 0, B)
        if seed is not None or not {"x", "y", "size"} <= set(values)
        else {}
    )
    defaults = dict(
        accent=(torch.as_tensor(0, device=slot.device)), pattern=0, word=0, tilt=0.0, flip=1.0
    )
    if not drawn and "colour" in values and isinstance(values["colour"], str):
        defaults["accent"] = (_index(values["colour"], COLOURS, "colour") + 2) % len(COLOURS)
    return _put(scenes, slot, {**defaults, **drawn, **values})


def _drawn(scenes: Scenes, seed: int, B: int, tries: int = 8) -> dict[str, Tensor]:
    index = torch.arange(B, device=scenes.kind.device)
    u = uniform(seed, index, 3, 12 * tries).view(B, 12, tries)
    count = (scenes.count + 1).clamp(max=2)[:, None].expand(-1, tries)
    new = _objects(u, count, (u[:, 11] * count).long(), scenes.horizon[:, None])
    # How deep each try reaches into the objects that are there, as a share of both sizes.
    gap = lambda axis: (getattr(scenes, axis)[:, :, None] - new[axis][:, None]).abs()  # noqa: E731
    reach = 1 - torch.maximum(gap("x"), gap("y")) / (scenes.size[:, :, None] + new["size"][:, None])
    overlap = reach.clamp(min=0).masked_fill(scenes.kind[:, :, None] < 0, 0).sum(1)  # (B, tries)
    best = overlap.argmin(1, keepdim=True)
    return {name: value.gather(1, best)[:, 0] for name, value in new.items()}


def without(scenes: Scenes, slot: Tensor | int) -> Scenes:
    """The same scenes with the object in slot taken out (the others keep their order)."""
    slot = torch.as_tensor(slot, device=scenes.kind.device).expand(len(scenes))
    kind = scenes.kind.scatter(1, slot[:, None], -1)
    order = (kind < 0).long().argsort(dim=1, stable=True)
    moved = {f.name: getattr(scenes, f.name).gather(1, order) for f in fields(Scenes)[5:]}
    return replace(scenes, kind=kind.gather(1, order), **moved)


def changed(scenes: Scenes, slot: Tensor | int, **values) -> Scenes:
    """The same scenes with fields of one object changed: changed(scenes, 0, colour="blue")."""
    return _put(
        scenes, torch.as_tensor(slot, device=scenes.kind.device).expand(len(scenes)), values
    )


def simple(scenes: Scenes) -> Scenes:
    """The same scenes with objects of the kinds in SIMPLE only, none of them striped or spotted.

    What flies is replaced by what flies, what stands by what stands. A world with less to learn,
    for small networks.
    """
    kinds = torch.tensor(_SIMPLER, device=scenes.kind.device)
    kind = torch.where(scenes.kind < 0, -1, kinds[scenes.kind])
    return replace(scenes, kind=kind, pattern=torch.zeros_like(scenes.pattern))


def elsewhere(scenes: Scenes, ground: str | None = None, time: str | None = None) -> Scenes:
    """The same objects on another ground or at another time."""
    if ground:
        scenes = replace(
            scenes, ground=torch.full_like(scenes.ground, _index(ground, GROUNDS, "ground"))
        )
    if time:
        scenes = replace(scenes, time=torch.full_like(scenes.time, _index(time, TIMES, "time")))
    return scenes
