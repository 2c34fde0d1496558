"""From scenes to pictures: sky, ground, light, shadows, objects, and the truth about each pixel.

Everything is drawn for a whole batch at once, at any size, on the device that the scenes are on.
Sizes and places are fractions of the picture, so a scene looks the same at 64 and at 512 pixels.
Next: captions.py.
"""

from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import Refused
from ..options import number
from .noise import cells, noise
from .scenes import COLOURS, KINDS, SLOTS, Scenes
from .shapes import DRAWINGS, GLOWS, Brush

PALETTE = {
    "red": (0.90, 0.13, 0.14),
    "orange": (0.99, 0.52, 0.06),
    "yellow": (0.99, 0.86, 0.14),
    "green": (0.13, 0.66, 0.27),
    "blue": (0.14, 0.38, 0.93),
    "purple": (0.52, 0.17, 0.78),
    "pink": (0.99, 0.52, 0.75),
    "white": (0.97, 0.97, 0.98),
}
# By time of day: what light does to colours, and the sky from the zenith to the horizon.
TINT = ((1.0, 1.0, 1.0), (1.0, 0.82, 0.70), (0.60, 0.62, 0.84))
_ZENITH = ((0.25, 0.55, 0.93), (0.31, 0.24, 0.52), (0.035, 0.045, 0.15))
_MIDDLE = ((0.52, 0.77, 0.98), (0.86, 0.45, 0.47), (0.07, 0.09, 0.25))
_HORIZON = ((0.86, 0.94, 0.99), (1.0, 0.72, 0.38), (0.17, 0.20, 0.42))
_CLOUD = ((1.0, 1.0, 1.0), (1.0, 0.68, 0.55), (0.17, 0.19, 0.36))
# Shadows: length along the ground, slant, strength. Light comes from the left, from the setting
# sun, from the right.
_SHADOW = ((0.34, 0.55, 0.42), (0.75, -0.30, 0.42), (0.34, -0.60, 0.45))
_LIGHT = ((-0.6, 0.8), (0.5, 0.25), (0.6, 0.8))
_WATER = 3


@dataclass(frozen=True)
class View:
    """A rendered batch. image (B, 3, S, S) in [-1, 1]; masks (B, SLOTS, S, S) in [0, 1]: how much
    of each pixel shows the object of that slot (what another object hides is not in it)."""

    image: Tensor
    masks: Tensor
    scenes: Scenes

    def kinds(self) -> Tensor:
        """(B, S, S): 0 where there is no object, else 1 + its index in KINDS."""
        return self._label(self.scenes.kind)

    def colours(self) -> Tensor:
        """(B, S, S): 0 where there is no object, else 1 + its colour's index in COLOURS."""
        return self._label(self.scenes.colour)

    def _label(self, what: Tensor) -> Tensor:
        cover, slot = self.masks.max(1)
        label = (what + 1).gather(1, slot.flatten(1)).view_as(slot)
        return label * (cover > 0.5)

    @property
    def boxes(self) -> Tensor:
        """(B, SLOTS, 4): x0, y0, x1, y1 of what shows of each object, in fractions; else zeros."""
        S = self.masks.shape[-1]
        edge = torch.arange(S, device=self.masks.device)
        seen = self.masks > 0.5
        ends = []
        for along in (seen.any(-2), seen.any(-1)):  # columns, rows: (B, SLOTS, S)
            low = torch.where(along, edge, S).amin(-1)
            high = torch.where(along, edge + 1, 0).amax(-1)
            ends += [torch.where(high > 0, low, 0), high]
        return torch.stack([ends[0], ends[2], ends[1], ends[3]], -1) / S


def _by(table, index: Tensor, device) -> Tensor:
    return torch.tensor(table, device=device)[index]


def _smooth(x: Tensor, low: float, high: float) -> Tensor:
    t = ((x - low) / (high - low)).clamp(0, 1)
    return t * t * (3 - 2 * t)


def render(
    scenes: Scenes, size: int = 64, window: Tensor | None = None, chunk: int | None = None
) -> View:
    """Draw scenes at size x size pixels.

    window (B, 4): x0, y0, x1, y1 in fractions, the part of each scene to draw (the whole by
    default; square, please).
    chunk: scenes drawn at a time; it changes memory and speed, not the result.
    """
    if not isinstance(scenes, Scenes):
        raise Refused(f"scenes is a {type(scenes).__name__}: pass what world.sample gives")
    number("size", size, span=(1, 8192, "the side of the pictures in pixels, 64 is usual"))
    on_cpu = scenes.kind.device.type == "cpu"
    chunk = chunk or (64 if on_cpu else 1024)
    parts = []
    with torch.no_grad(), _one_thread(on_cpu):
        for k in range(0, len(scenes), chunk):
            parts.append(
                _render(
                    scenes[k : k + chunk], size, None if window is None else window[k : k + chunk]
                )
            )
    images, masks = zip(*parts, strict=True)
    return View(torch.cat(images), torch.cat(masks), scenes)


@contextmanager
def _one_thread(wanted: bool):
    """Thousands of small operations: threads would wait for each other longer than they work."""
    before = torch.get_num_threads()
    if wanted:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _render(s: Scenes, size: int, window: Tensor | None) -> tuple[Tensor, Tensor]:
    B, device = len(s), s.kind.device
    if window is None:
        window = torch.tensor([0.0, 0.0, 1.0, 1.0], device=device).expand(B, 4)
    x0, y0, x1, y1 = window.unbind(1)
    middle = (torch.arange(size, device=device) + 0.5) / size
    X = (x0[:, None] + middle * (x1 - x0)[:, None])[:, None, :].expand(B, size, size)
    Y = (y0[:, None] + middle * (y1 - y0)[:, None])[:, :, None].expand(B, size, size)
    px = (x1 - x0) / size  # (B,)

    image = _background(s, X, Y, px)
    tint = _by(TINT, s.time, device)  # (B, 3)
    palette = torch.tensor([PALETTE[c] for c in COLOURS], device=device)

    # Draw every object, all of one kind at a time.
    b, k = (s.kind >= 0).nonzero(as_tuple=True)
    order = s.kind[b, k].argsort(stable=True)
    b, k = b[order], k[order]
    kinds = s.kind[b, k]
    rgb = X.new_empty(len(b), 3, size, size)
    cover, shade = X.new_empty(len(b), size, size), X.new_empty(len(b), size, size)
    start = 0
    for kind, n in enumerate(torch.bincount(kinds, minlength=len(KINDS)).tolist()):
        if n:
            part = slice(start, start + n)
            rgb[part], cover[part], shade[part] = _draw(
                kind, s, b[part], k[part], X, Y, px, tint, palette
            )
            start += n

    # Put them in, back to front: first the shadow on the ground, then the object over it.
    masks = X.new_zeros(B, SLOTS, size, size)
    for slot in range(SLOTS):
        which = (k == slot).nonzero()[:, 0]
        if len(which):
            rows = b[which]
            under = image[rows]
            water = (s.ground[rows] == _WATER)[:, None, None, None]
            main = (palette[s.colour[rows, slot]] * tint[rows])[:, :, None, None]
            dim = shade[which][:, None]
            under = torch.where(
                water, under.lerp(main * 0.75 + under * 0.1, dim), under * (1 - dim)
            )
            a = cover[which][:, None]
            image[rows] = under.lerp(rgb[which], a)
            masks[rows] = masks[rows] * (1 - a)
            masks[rows, slot] = a[:, 0]
    image = _glow(image, s, X, Y)
    return (image.clamp(0, 1) * 2 - 1), masks


def _draw(kind, s, b, k, X, Y, px, tint, palette):
    """N objects of one kind: lit colours (N, 3, S, S), cover and shadow (N, S, S)."""
    column = lambda name: getattr(s, name)[b, k][:, None, None]  # (N, 1, 1)  # noqa: E731
    X, Y, size, time, device = X[b], Y[b], column("size"), s.time[b], X.device
    cos, sin, flip = column("tilt").cos(), column("tilt").sin(), column("flip")
    if KINDS[kind] == "sign":
        flip = torch.ones_like(flip)  # words are never mirrored
    main, accent = palette[s.colour[b, k]], palette[s.accent[b, k]]

    def place(dx, dy):
        """Offsets from the centre, y down, to the object's own upright square."""
        dx, dy = dx / size, -dy / size
        return (dx * cos + dy * sin) * flip, dy * cos - dx * sin

    x, y = place(X - column("x"), Y - column("y"))
    width = px[b][:, None, None] / size
    brush = Brush(x, y, width, main, accent, s.pattern[b, k], s.word[b, k], tint[b])
    DRAWINGS[kind](brush, x, y)
    cover = (0.5 - brush.edge / width).clamp(0, 1)

    # Light: brighter towards it, darker at the rim, as on something round.
    lx, ly = _by(_LIGHT, time, device).unbind(1)
    toward = x * flip * lx[:, None, None] + y * ly[:, None, None]
    light = (0.80 + 0.24 * _smooth(-brush.edge, 0.0, 0.30)) * (1 + 0.26 * toward.clamp(-1.2, 1.2))
    rgb = brush.rgb * light[:, None] * tint[b][:, :, None, None]

    # Shadow: the silhouette laid on the ground away from the light; on water it is mirrored and
    # ripples.
    length, slant, strength = (v[:, None, None] for v in _by(_SHADOW, time, device).unbind(1))
    water = (s.ground[b] == _WATER)[:, None, None]
    foot = column("y") + 0.93 * size
    below = Y - foot
    ripple = (
        0.10
        * size
        * torch.sin(below / size * 19 + 6.3 * s.look[b, 0][:, None, None])
        * (below / size).clamp(0, 1)
    )
    along = torch.where(water, ripple, -slant * below / length)
    up = torch.where(water, below, below / length)  # height on the object that this point shows
    sx, sy = place(X + along - column("x"), foot - up - column("y"))
    outline = Brush(sx, sy, width, main, accent, None, None, None, outline_only=True)
    DRAWINGS[kind](outline, sx, sy)
    soft = 0.06 + 0.35 * (up / size).clamp(0, 2)
    lies = (
        (below > -0.02 * size)
        & (Y > s.horizon[b][:, None, None])
        & (foot > s.horizon[b][:, None, None] - 0.02)
    )
    fade = 1 - 0.45 * (up / size / 2).clamp(0, 1)
    shade = (0.5 - outline.edge / soft).clamp(0, 1) * strength * fade * lies
    return rgb, cover, shade


def _glow(image: Tensor, s: Scenes, X: Tensor, Y: Tensor) -> Tensor:
    """What shines lights up its surroundings: strongly at night, a little at sunset."""
    strength = _by((0.0, 0.25, 1.0), s.time, X.device)
    for slot in range(SLOTS):
        for name, (cx, cy, reach, power) in GLOWS.items():
            rows = ((s.kind[:, slot] == KINDS.index(name)) & (s.time > 0)).nonzero()[:, 0]
            if len(rows):
                at = lambda f: getattr(s, f)[rows, slot][:, None, None]  # noqa: B023, E731
                d = torch.hypot(
                    X[rows] - at("x") - cx * at("flip") * at("size"),
                    Y[rows] - at("y") + cy * at("size"),
                )
                light = (
                    (1 - d / (reach * at("size"))).clamp(min=0) ** 2
                    * power
                    * strength[rows][:, None, None]
                )
                warm = image.new_tensor((1.0, 0.82, 0.45)).view(3, 1, 1)
                image[rows] = image[rows] + 0.55 * light[:, None] * warm * (1 - 0.5 * image[rows])
    return image


# --- sky and ground ---


def _background(s: Scenes, X: Tensor, Y: Tensor, px: Tensor) -> Tensor:
    """(B, 3, S, S) in [0, 1]: the empty landscape."""
    device = X.device
    h = s.horizon[:, None, None]
    look = [u[:, None, None] for u in s.look.unbind(1)]
    colour = lambda table: _by(table, s.time, device)[:, :, None, None]  # noqa: E731

    # Sky: two gradients, the sun's glow, clouds or stars.
    up = (1 - Y / h).clamp(0, 1)[:, None]  # 1 at the zenith
    image = (
        colour(_HORIZON)
        .lerp(colour(_MIDDLE), _smooth(up, 0.0, 0.45))
        .lerp(colour(_ZENITH), _smooth(up, 0.35, 1.0))
    )
    image = image.expand(-1, -1, *X.shape[1:]).clone()
    sunset = (s.time == 1)[:, None, None]
    sun = torch.hypot(X - 0.15 - 0.7 * look[1], (Y - h) * 1.15)
    glow = (1 - sun / 0.42).clamp(0, 1) ** 2 * 0.75 * sunset
    image = image.lerp(
        image.new_tensor((1.0, 0.86, 0.50)).view(3, 1, 1).expand_as(image), glow[:, None]
    )
    disc = _smooth(-sun, -0.083, -0.072) * sunset
    image = image.lerp(
        image.new_tensor((1.0, 0.93, 0.72)).view(3, 1, 1).expand_as(image), disc[:, None]
    )

    puff = noise(X * 5 + 64 * look[0], Y * 11 + 64 * look[2])
    fine = noise(X * 13 + 64 * look[2], Y * 27 + 64 * look[0])
    cloud = _smooth(
        0.68 * puff[:, 0] + 0.32 * fine[:, 0] + 0.35 * (look[3] - 0.6), 0.50, 0.72
    ) * _smooth(up[:, 0], 0.02, 0.3)
    image = image.lerp(colour(_CLOUD).expand_as(image), (0.75 * cloud)[:, None])
    image = (
        image
        + _stars(s, X, Y, px, look)
        * ((s.time == 2)[:, None, None] * _smooth(up[:, 0], 0.0, 0.15))[:, None]
    )

    # Hills: two lines of them, bluer and paler the further away.
    far = colour(_HORIZON) * 0.62 + colour(_ZENITH) * 0.30
    for height, u, mix in ((0.085, look[4], 0.55), (0.05, look[5], 0.9)):
        wave = (
            torch.sin(X * 7 + 40 * u) * 0.45
            + torch.sin(X * 15 + 70 * u) * 0.25
            + torch.sin(X * 3 + 20 * u)
        )
        line = h - height * (0.5 + 0.5 * u) * (0.55 + 0.35 * wave)
        inside = ((Y - line) / px[:, None, None] + 0.5).clamp(0, 1) * (u > 0.25)
        land = (
            far * (1.12 - 0.42 * mix)
            + colour(TINT) * image.new_tensor((0.02, 0.07, 0.03)).view(3, 1, 1) * mix
        )
        image = image.lerp(land.expand_as(image), inside[:, None])

    # Ground: each kind has its own texture, seen in perspective.
    ground = torch.empty_like(image)
    deep = ((Y - h) / (1 - h)).clamp(0, 1)  # 0 at the horizon, 1 at the bottom
    z = 1 / (deep + 0.16)
    u, v = (X - 0.5) * z + 64 * look[6], 3.2 * z + 64 * look[7]
    for kind, paint in enumerate((_grass, _sand, _snow, _water, _stone)):
        rows = (s.ground == kind).nonzero()[:, 0]
        if len(rows):
            ground[rows] = paint(X[rows], Y[rows], u[rows], v[rows], deep[rows], s.time[rows])
    ground = ground * colour(TINT)
    reflected = (s.ground == _WATER)[:, None, None, None]
    ground = torch.where(reflected, ground * 0.72 + 0.28 * colour(_HORIZON), ground)
    ground = ground + (glow * (s.ground == _WATER)[:, None, None] * 0.25)[
        :, None
    ] * image.new_tensor((1.0, 0.7, 0.3)).view(3, 1, 1)
    return image.lerp(ground, ((Y - h) / px[:, None, None] + 0.5).clamp(0, 1)[:, None])


def _stars(s: Scenes, X, Y, px, look) -> Tensor:
    """One star in each cell of a lattice, most too faint to see."""
    n = 13
    u, v, r = cells(X * n + (64 * look[0]).floor(), Y * n + (64 * look[1]).floor())
    d = torch.hypot(u - 0.2 - 0.6 * r[:, 0], v - 0.2 - 0.6 * r[:, 1]) / n
    radius = 0.0035 + 0.006 * r[:, 2] ** 4
    shine = _smooth(r[:, 3], 0.45, 1.0)
    disc = ((radius - d) / px[:, None, None] + 0.6).clamp(0, 1) * shine
    return disc[:, None] * X.new_tensor((1.0, 0.97, 0.88)).view(3, 1, 1)


def _mix(low, high, amount: Tensor) -> Tensor:
    """(B, 3, S, S) between two colours by amount (B, S, S)."""
    low, high = amount.new_tensor(low).view(3, 1, 1), amount.new_tensor(high).view(3, 1, 1)
    return low + (high - low) * amount[:, None]


def _grass(X, Y, u, v, deep, time):
    blades, patch = noise(u * 34, v * 13)[:, 0], noise(u * 4, v * 3)[:, 1]
    near = 0.35 + 0.65 * deep
    image = _mix(
        (0.20, 0.47, 0.16),
        (0.48, 0.73, 0.27),
        (0.5 + (blades - 0.5) * 1.15 * near + (patch - 0.5) * 0.7).clamp(0, 1),
    )
    cu, cv, r = cells(u * 7, v * 6)
    d = torch.hypot(cu - 0.25 - 0.5 * r[:, 0], cv - 0.25 - 0.5 * r[:, 1])
    bloom = _smooth(-d, -0.20, -0.12) * (r[:, 2] > 0.80) * deep.clamp(0.2, 1)
    petals = torch.where(
        (r[:, 3] > 0.5)[:, None],
        u.new_tensor((1.0, 0.98, 0.9)).view(3, 1, 1),
        u.new_tensor((1.0, 0.86, 0.3)).view(3, 1, 1),
    )
    return image.lerp(petals, (0.85 * bloom)[:, None])


def _sand(X, Y, u, v, deep, time):
    drift, grain = noise(u * 3, v * 5)[:, 2], noise(u * 60, v * 40)[:, 3]
    ripple = torch.sin(v * 17 + 5 * drift) * 0.5
    amount = (
        0.5
        + 0.30 * ripple * (0.25 + 0.75 * deep)
        + (grain - 0.5) * 0.30 * deep
        + (drift - 0.5) * 0.5
    )
    return _mix((0.80, 0.64, 0.38), (0.99, 0.89, 0.64), amount.clamp(0, 1))


def _snow(X, Y, u, v, deep, time):
    drift, spark = noise(u * 2.2, v * 2.0), noise(u * 45, v * 35)[:, 1]
    image = _mix(
        (0.74, 0.82, 0.93),
        (0.98, 0.99, 1.0),
        (0.2 + 1.1 * drift[:, 3] * (0.5 + 0.5 * drift[:, 0]) + 0.35 * deep).clamp(0, 1),
    )
    return (image + (0.25 * _smooth(spark, 0.80, 0.92) * deep)[:, None]).clamp(max=1.0)


def _water(X, Y, u, v, deep, time):
    swell, crest = noise(u * 3.5, v * 9), noise(u * 8, v * 26)[:, 2]
    wave = torch.sin(v * 26 + 5 * swell[:, 0]) * 0.5 + 0.5
    image = _mix(
        (0.07, 0.30, 0.52),
        (0.22, 0.56, 0.76),
        (0.55 * wave + 0.45 * swell[:, 1] - 0.25 * deep + 0.1).clamp(0, 1),
    )
    foam = _smooth(crest * wave, 0.52, 0.72) * (0.3 + 0.7 * deep)
    return image.lerp(
        u.new_tensor((0.85, 0.94, 0.98)).view(3, 1, 1).expand_as(image), (0.55 * foam)[:, None]
    )


def _stone(X, Y, u, v, deep, time):
    row = (v * 3.6).floor()
    cu, cv, r = cells(u * 2.6 + 0.5 * row.remainder(2), v * 3.6)
    joint = torch.minimum(torch.minimum(cu, 1 - cu) / 2.6, torch.minimum(cv, 1 - cv) / 3.6)
    grain = noise(u * 30, v * 30)[:, 0]
    tone = 0.25 + 0.55 * r[:, 0] + (grain - 0.5) * 0.25
    image = _mix((0.46, 0.43, 0.44), (0.70, 0.64, 0.60), tone.clamp(0, 1))
    seam = _smooth(-joint, -0.045, -0.012) * (0.35 + 0.65 * deep)
    return image * (1 - 0.48 * seam[:, None])
