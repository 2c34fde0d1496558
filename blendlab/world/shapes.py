"""The inhabitants of tinyworld, drawn with signed distance functions.

A signed distance is negative inside a shape and grows by one for each unit away from it, so that an
antialiased edge is one clamp. Every object is drawn in its own square: x to the right, y up, both
from -1 to 1, for N objects at once. Next: render.py, which places, lights and shades them.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .scenes import KINDS, SIGN_WORDS

# --- signed distances; x, y are (N, H, W) ---


def circle(x, y, cx, cy, r):
    return torch.hypot(x - cx, y - cy) - r


def ellipse(x, y, cx, cy, rx, ry):
    return (torch.hypot((x - cx) / rx, (y - cy) / ry) - 1) * min(rx, ry)


def box(x, y, cx, cy, hw, hh, r=0.0):
    dx, dy = (x - cx).abs() - (hw - r), (y - cy).abs() - (hh - r)
    return torch.hypot(dx.clamp(min=0), dy.clamp(min=0)) + torch.maximum(dx, dy).clamp(max=0) - r


def segment(x, y, ax, ay, bx, by, r):
    """A line from a to b with round ends."""
    ux, uy = bx - ax, by - ay
    h = (((x - ax) * ux + (y - ay) * uy) / (ux * ux + uy * uy)).clamp(0, 1)
    return torch.hypot(x - ax - h * ux, y - ay - h * uy) - r


def polygon(x, y, *points):
    """Convex, corners given anticlockwise: the furthest of its half planes."""
    d = None
    for (ax, ay), (bx, by) in zip(points, points[1:] + points[:1], strict=True):
        n = math.hypot(bx - ax, by - ay)
        side = ((by - ay) * (x - ax) - (bx - ax) * (y - ay)) / n
        d = side if d is None else torch.maximum(d, side)
    return d


def union(*shapes):
    d = shapes[0]
    for shape in shapes[1:]:
        d = torch.minimum(d, shape)
    return d


def cut(shape, hole):
    return torch.maximum(shape, -hole)


# --- the brush: what a drawing is made with ---

DARK, CREAM, WOOD, STEM = (
    (0.13, 0.12, 0.15),
    (0.97, 0.93, 0.82),
    (0.47, 0.30, 0.17),
    (0.22, 0.52, 0.20),
)
WHITE, GLASS, STEEL, BEAK = (
    (0.98, 0.98, 0.98),
    (0.72, 0.88, 0.97),
    (0.55, 0.57, 0.62),
    (0.98, 0.65, 0.12),
)


class Brush:
    """Paints N objects at once; `shape` grows the silhouette, `mark` paints inside it only.

    With rgb=None it traces the silhouette only (for shadows and reflections). Colours are "skin"
    (main colour with its pattern), "main", "deep" (a darker main), "accent", or an (r, g, b)
    triple.
    """

    def __init__(self, x, y, px, main, accent, pattern, word, tint, outline_only=False):
        self.x, self.y, self.px, self.word = (
            x,
            y,
            px,
            word,
        )  # px: (N, 1, 1), a pixel's width in the object's units
        self.edge = torch.full_like(x, 9.0)  # (N, H, W) signed distance of the silhouette
        self.rgb = None
        if not outline_only:
            self.tint = tint  # (N, 3): what the light multiplies colours by
            self.inks = {"main": main, "deep": main * 0.68, "accent": accent}
            skin = main[:, :, None, None].expand(-1, -1, *x.shape[1:])
            self.inks["skin"] = skin.lerp(accent[:, :, None, None], self._pattern(pattern)[:, None])
            self.rgb = torch.zeros_like(skin)

    def _pattern(self, pattern: Tensor) -> Tensor:
        """(N, H, W) share of the accent colour: slanted stripes or a lattice of spots."""
        stripes = ((0.62 * self.x + 0.78 * self.y) * 2.6).remainder(1) - 0.5
        row = (self.y * 2.4).floor()
        u, v = (
            (self.x * 2.4 + 0.5 * row.remainder(2)).remainder(1) - 0.5,
            (self.y * 2.4).remainder(1) - 0.5,
        )
        spots = torch.hypot(u, v) / 2.4 - 0.14
        which = pattern[:, None, None]
        d = torch.where(which == 1, (stripes.abs() - 0.165) / 2.6, spots)
        return (0.5 - d / self.px).clamp(0, 1) * (which > 0)

    def shape(self, d: Tensor, ink="skin") -> None:
        self.edge = torch.minimum(self.edge, d)
        self.mark(d, ink)

    def mark(self, d: Tensor, ink) -> None:
        if self.rgb is None:
            return
        if isinstance(ink, str):
            colour = self.inks[ink]
            colour = colour if colour.dim() == 4 else colour[:, :, None, None]
        else:
            colour = self.rgb.new_tensor(ink).view(1, 3, 1, 1)
        self.rgb.lerp_(colour.expand_as(self.rgb), (0.5 - d / self.px).clamp(0, 1)[:, None])

    def lamp(self, d: Tensor, rgb=(1.0, 0.88, 0.45)) -> None:
        """A mark that shines: what the light would take away is put on beforehand."""
        if self.rgb is not None:
            colour = (self.rgb.new_tensor(rgb) / self.tint.clamp(min=0.3))[:, :, None, None]
            self.rgb.lerp_(colour.expand_as(self.rgb), (0.5 - d / self.px).clamp(0, 1)[:, None])

    def eye(self, cx, cy, r) -> None:
        if self.rgb is not None:
            self.mark(circle(self.x, self.y, cx, cy, r), WHITE)
            self.mark(circle(self.x, self.y, cx + 0.15 * r, cy - 0.1 * r, 0.62 * r), DARK)


# --- the drawings: b is a Brush; x, y its coordinates ---


def cat(b, x, y):
    b.shape(segment(x, y, 0.45, -0.82, 0.80, -0.45, 0.11))
    b.shape(segment(x, y, 0.80, -0.45, 0.66, -0.02, 0.11))
    b.shape(ellipse(x, y, 0.0, -0.52, 0.52, 0.47))
    for s in (-1, 1):
        corners = [(s * 0.50, 0.36), (s * 0.10, 0.58), (s * 0.46, 1.0)]
        b.shape(polygon(x, y, *(corners if s < 0 else corners[::-1])))
    b.shape(ellipse(x, y, 0.0, 0.28, 0.54, 0.44))
    b.mark(segment(x, y, -0.26, -0.13, 0.26, -0.13, 0.075), "accent")
    b.eye(-0.21, 0.34, 0.125)
    b.eye(0.21, 0.34, 0.125)
    b.mark(circle(x, y, 0.0, 0.15, 0.06), (0.95, 0.55, 0.6))
    for s in (-1, 1):
        b.mark(segment(x, y, s * 0.18, 0.10, s * 0.46, 0.06, 0.018), DARK)
        b.mark(segment(x, y, s * 0.17, -0.93, s * 0.17, -0.72, 0.03), "deep")


def dog(b, x, y):
    b.shape(segment(x, y, -0.62, 0.0, -0.86, 0.40, 0.10))
    for leg in (-0.55, -0.30, 0.14, 0.38):
        b.shape(box(x, y, leg, -0.68, 0.11, 0.32, 0.08), "skin" if leg in (-0.55, 0.38) else "deep")
    b.shape(box(x, y, -0.10, -0.20, 0.60, 0.30, 0.26))
    b.shape(segment(x, y, 0.32, -0.05, 0.46, 0.30, 0.20))
    b.shape(circle(x, y, 0.46, 0.42, 0.34))
    b.shape(box(x, y, 0.76, 0.32, 0.24, 0.16, 0.14))
    b.mark(circle(x, y, 0.95, 0.40, 0.085), DARK)
    b.shape(ellipse(x, y, 0.22, 0.34, 0.15, 0.33), "accent")
    b.mark(segment(x, y, 0.24, 0.06, 0.56, -0.02, 0.06), "accent")
    b.eye(0.55, 0.52, 0.10)
    b.mark(segment(x, y, 0.74, 0.22, 0.94, 0.24, 0.02), DARK)


def fish(b, x, y):
    b.shape(polygon(x, y, (-0.40, 0.0), (-0.98, 0.48), (-0.82, 0.0)), "accent")
    b.shape(polygon(x, y, (-0.40, 0.0), (-0.82, 0.0), (-0.98, -0.48)), "accent")
    b.shape(polygon(x, y, (0.38, 0.30), (-0.28, 0.62), (-0.30, 0.28)), "deep")
    b.shape(ellipse(x, y, 0.18, 0.0, 0.80, 0.46))
    b.mark(cut(circle(x, y, 0.36, 0.0, 0.40), circle(x, y, 0.45, 0.0, 0.43)), "deep")
    b.mark(polygon(x, y, (0.22, -0.08), (-0.12, 0.10), (-0.12, -0.26)), "accent")
    b.eye(0.66, 0.10, 0.12)
    b.mark(segment(x, y, 0.84, -0.14, 0.94, -0.08, 0.03), DARK)


def bird(b, x, y):
    b.shape(polygon(x, y, (-0.30, -0.20), (-0.36, 0.12), (-0.98, 0.34), (-0.98, 0.10)), "deep")
    for foot in (-0.08, 0.14):
        b.shape(segment(x, y, foot, -0.55, foot + 0.04, -0.93, 0.045), BEAK)
    b.shape(polygon(x, y, (0.70, 0.52), (0.70, 0.28), (1.0, 0.38)), BEAK)
    b.shape(ellipse(x, y, 0.0, -0.14, 0.56, 0.46))
    b.shape(circle(x, y, 0.42, 0.40, 0.34))
    b.mark(
        cut(ellipse(x, y, -0.14, -0.10, 0.38, 0.26), ellipse(x, y, -0.20, 0.18, 0.42, 0.22)),
        "accent",
    )
    b.eye(0.52, 0.46, 0.11)


def _wheels(b, x, y, places, r, ground):
    for wheel in places:
        b.shape(circle(x, y, wheel, ground + r, r), DARK)
        b.mark(circle(x, y, wheel, ground + r, 0.45 * r), STEEL)


def car(b, x, y):
    b.shape(polygon(x, y, (-0.62, -0.10), (0.56, -0.10), (0.30, 0.46), (-0.40, 0.46)))
    b.shape(box(x, y, 0.0, -0.28, 0.98, 0.27, 0.14))
    b.mark(polygon(x, y, (-0.46, -0.02), (-0.10, -0.02), (-0.10, 0.36), (-0.32, 0.36)), GLASS)
    b.mark(polygon(x, y, (0.0, -0.02), (0.40, -0.02), (0.23, 0.36), (0.0, 0.36)), GLASS)
    b.mark(box(x, y, 0.0, -0.34, 0.99, 0.055), "accent")
    b.lamp(circle(x, y, 0.92, -0.22, 0.08))
    _wheels(b, x, y, (-0.54, 0.54), 0.235, -0.78)


def bus(b, x, y):
    b.shape(box(x, y, 0.0, 0.05, 0.98, 0.66, 0.14))
    for window in (-0.70, -0.31, 0.08, 0.47):
        b.mark(box(x, y, window, 0.32, 0.155, 0.19, 0.04), GLASS)
    b.mark(box(x, y, 0.82, 0.12, 0.12, 0.46, 0.04), GLASS)
    b.mark(box(x, y, -0.20, -0.10, 0.86, 0.07), "accent")
    b.lamp(circle(x, y, 0.90, -0.44, 0.07))
    _wheels(b, x, y, (-0.55, 0.52), 0.24, -0.86)


def boat(b, x, y):
    b.shape(segment(x, y, 0.02, -0.5, 0.02, 0.92, 0.05), WOOD)
    b.shape(polygon(x, y, (0.10, -0.26), (0.84, -0.26), (0.10, 0.78)))
    b.shape(polygon(x, y, (-0.06, -0.26), (-0.06, 0.56), (-0.62, -0.26)), "accent")
    b.shape(polygon(x, y, (-0.62, -0.82), (0.66, -0.82), (0.98, -0.34), (-0.94, -0.34)))
    b.mark(segment(x, y, -0.9, -0.40, 0.94, -0.40, 0.05), CREAM)


def tree(b, x, y):
    b.shape(box(x, y, 0.0, -0.78, 0.12, 0.22), WOOD)
    for low, high, half in ((-0.62, 0.05, 0.74), (-0.22, 0.48, 0.58), (0.20, 1.0, 0.42)):
        b.shape(polygon(x, y, (-half, low), (half, low), (0.0, high)))
        b.mark(segment(x, y, -half * 0.8, low + 0.03, half * 0.8, low + 0.03, 0.035), "deep")
    for cx, cy in ((-0.22, -0.42), (0.28, -0.30), (0.04, -0.02), (-0.12, 0.36), (0.12, 0.52)):
        b.mark(circle(x, y, cx, cy, 0.075), "accent")


def flower(b, x, y):
    b.shape(segment(x, y, 0.02, 0.2, 0.0, -0.97, 0.055), STEM)
    b.shape(ellipse(0.8 * x + 0.6 * y, 0.8 * y - 0.6 * x, -0.18, -0.66, 0.30, 0.11), STEM)
    b.shape(ellipse(0.8 * x - 0.6 * y, 0.8 * y + 0.6 * x, 0.20, -0.50, 0.28, 0.10), STEM)
    for k in range(6):
        a = math.pi / 6 + k * math.pi / 3
        b.shape(circle(x, y, 0.38 * math.cos(a), 0.40 + 0.38 * math.sin(a), 0.235))
        b.mark(
            segment(
                x,
                y,
                0.2 * math.cos(a),
                0.40 + 0.2 * math.sin(a),
                0.42 * math.cos(a),
                0.40 + 0.42 * math.sin(a),
                0.025,
            ),
            "deep",
        )
    b.shape(circle(x, y, 0.0, 0.40, 0.25), "accent")


def mushroom(b, x, y):
    b.shape(polygon(x, y, (-0.26, -0.95), (0.26, -0.95), (0.18, 0.1), (-0.18, 0.1)), CREAM)
    b.shape(ellipse(x, y, 0.0, -0.92, 0.30, 0.10), CREAM)
    cap = torch.maximum(ellipse(x, y, 0.0, 0.0, 0.94, 0.86), -0.06 - y)
    b.shape(cap)
    b.mark(torch.maximum(ellipse(x, y, 0.0, -0.06, 0.9, 0.10), cap), "deep")
    for cx, cy, r in (
        (-0.48, 0.26, 0.15),
        (0.05, 0.54, 0.17),
        (0.52, 0.24, 0.14),
        (0.02, 0.14, 0.11),
    ):
        b.mark(circle(x, y, cx, cy, r), "accent")


def moon(b, x, y):
    crescent = cut(circle(x, y, -0.10, 0.0, 0.88), circle(x, y, 0.34, 0.16, 0.70))
    b.shape(crescent)
    for cx, cy, r in ((-0.66, 0.14, 0.12), (-0.52, -0.36, 0.15), (-0.12, -0.68, 0.09)):
        b.mark(circle(x, y, cx, cy, r), "deep")


def star(b, x, y):
    a = torch.atan2(x, y).remainder(2 * math.pi / 5) - math.pi / 5
    r = torch.hypot(x, y)
    # Fold into one tenth of the star; its edge runs from the tip (radius 1) to the notch.
    u, v = r * (math.pi / 5 - a.abs()).cos(), r * (math.pi / 5 - a.abs()).sin()
    notch = 0.46
    ex, ey = notch * math.cos(math.pi / 5) - 0.97, notch * math.sin(math.pi / 5)
    n = math.hypot(ex, ey)
    b.shape((ey * (u - 0.97) - ex * v) / n - 0.03)
    b.mark((ey * (u - 0.52) - ex * v) / n, "accent")


def balloon(b, x, y):
    b.shape(segment(x, y, 0.0, -0.5, 0.06, -0.98, 0.035), STEEL)
    b.shape(polygon(x, y, (-0.14, -0.56), (0.14, -0.56), (0.0, -0.36)), "deep")
    body = ellipse(x, y, 0.0, 0.26, 0.62, 0.72)
    b.shape(body)
    b.mark(torch.maximum(body, (y + 0.10 + 0.15 * x * x).abs() - 0.08), "accent")
    b.mark(ellipse(0.9 * x + 0.4 * y, 0.9 * y - 0.4 * x, -0.05, 0.62, 0.08, 0.17), WHITE)


def ball(b, x, y):
    body = circle(x, y, 0.0, 0.0, 0.90)
    b.shape(body)
    b.mark(torch.maximum(body, (circle(x, y, -1.25, 0.35, 1.30)).abs() - 0.13), "accent")
    b.mark(torch.maximum(body, (circle(x, y, 1.15, -0.75, 1.05)).abs() - 0.11), CREAM)


def heart(b, x, y):
    ax, yy = x.abs(), y + 0.82
    lobe = torch.hypot(ax - 0.44, yy - 1.14) - 0.50
    wedge = torch.maximum((ax * 0.80 - yy * 0.60 + 0.02), yy - 1.16)
    b.shape(union(lobe, torch.maximum(wedge, ax - 0.92)))
    b.mark(ellipse(0.7 * x + 0.7 * y, 0.7 * y - 0.7 * x, 0.02, 0.68, 0.17, 0.07), WHITE)


def face(b, x, y):
    for s in (-1, 1):
        b.shape(circle(x, y, s * 0.74, -0.06, 0.15), "main")
    b.shape(ellipse(x, y, 0.0, -0.08, 0.74, 0.86), "main")
    hair = torch.maximum(ellipse(x, y, 0.0, 0.02, 0.82, 0.92), -(y - 0.34 + 0.35 * x))
    b.shape(torch.maximum(hair, -ellipse(x, y, 0.10, -0.35, 0.66, 0.78)), "accent")
    for s in (-1, 1):
        b.mark(ellipse(x, y, s * 0.30, 0.05, 0.15, 0.12), WHITE)
        b.mark(circle(x, y, s * 0.30 + 0.02, 0.04, 0.085), DARK)
        b.mark(circle(x, y, s * 0.30 + 0.05, 0.08, 0.03), WHITE)
        b.mark(segment(x, y, s * 0.16, 0.24, s * 0.44, 0.26, 0.04), DARK)
        b.mark(circle(x, y, s * 0.46, -0.30, 0.12), (0.95, 0.45, 0.45))
    b.mark(segment(x, y, 0.03, 0.02, 0.07, -0.22, 0.03), "deep")
    b.mark(segment(x, y, 0.07, -0.22, -0.04, -0.23, 0.03), "deep")
    mouth = torch.maximum(circle(x, y, 0.0, -0.38, 0.28), y + 0.42)
    b.mark(mouth, (0.55, 0.08, 0.12))
    b.mark(torch.maximum(mouth, -(y + 0.51)), WHITE)


def house(b, x, y):
    b.shape(box(x, y, 0.48, 0.58, 0.11, 0.28), "deep")
    b.shape(box(x, y, 0.0, -0.42, 0.74, 0.54))
    b.shape(polygon(x, y, (-0.95, 0.08), (0.95, 0.08), (0.0, 0.88)), "accent")
    b.mark(segment(x, y, -0.93, 0.10, 0.93, 0.10, 0.045), CREAM)
    b.mark(box(x, y, 0.02, -0.62, 0.17, 0.36), WOOD)
    for s in (-1, 1):
        b.mark(box(x, y, s * 0.46 + 0.01, -0.28, 0.18, 0.18), CREAM)
        b.lamp(box(x, y, s * 0.46 + 0.01, -0.28, 0.13, 0.13))
        b.mark(box(x, y, s * 0.46 + 0.01, -0.28, 0.022, 0.13), CREAM)


def sign(b, x, y):
    b.shape(box(x, y, 0.0, -0.60, 0.08, 0.40), WOOD)
    b.shape(box(x, y, 0.0, 0.22, 0.98, 0.56, 0.10))
    b.mark(box(x, y, 0.0, 0.22, 0.86, 0.43, 0.05), CREAM)
    if b.rgb is not None:
        b.mark(_lettering(b.word, x / 0.80, (y - 0.22) / 0.34), DARK)


def lamp(b, x, y):
    b.shape(segment(x, y, 0.0, -0.94, 0.0, 0.62, 0.055), "main")
    b.shape(box(x, y, 0.0, -0.93, 0.20, 0.055, 0.03), "main")
    b.shape(segment(x, y, 0.0, 0.60, 0.34, 0.74, 0.05), "main")
    b.shape(polygon(x, y, (0.16, 0.62), (0.54, 0.62), (0.44, 0.86), (0.26, 0.86)), "main")
    b.shape(ellipse(x, y, 0.35, 0.56, 0.16, 0.11), CREAM)
    b.lamp(ellipse(x, y, 0.35, 0.56, 0.14, 0.10))


def fence(b, x, y):
    for rail in (-0.16, -0.62):
        b.shape(segment(x, y, -0.96, rail, 0.96, rail, 0.06), "deep")
    for post in (-0.80, -0.40, 0.0, 0.40, 0.80):
        picket = union(
            box(x, y, post, -0.46, 0.085, 0.50),
            polygon(x, y, (post - 0.085, 0.04), (post + 0.085, 0.04), (post, 0.20)),
        )
        b.shape(picket, "skin")


def lightning(b, x, y):
    points = (
        (0.22, 0.97),
        (-0.30, 0.28),
        (0.12, 0.22),
        (-0.24, -0.36),
        (0.12, -0.40),
        (-0.22, -0.97),
    )
    for k, (p, q) in enumerate(zip(points, points[1:], strict=False)):
        b.shape(segment(x, y, *p, *q, 0.085 - 0.008 * k), "main")


DRAWINGS = (
    cat,
    dog,
    fish,
    bird,
    car,
    bus,
    boat,
    tree,
    flower,
    mushroom,
    moon,
    star,
    balloon,
    ball,
    heart,
    face,
    house,
    sign,
    lamp,
    fence,
    lightning,
)
assert tuple(d.__name__ for d in DRAWINGS) == KINDS

# What shines at night: centre and reach in the object's square, and how strongly.
GLOWS = {
    "lamp": (0.35, 0.5, 1.3, 1.0),
    "house": (0.0, -0.28, 1.3, 0.35),
    "moon": (-0.3, 0.0, 1.7, 0.5),
    "star": (0.0, 0.0, 1.5, 0.4),
    "lightning": (0.0, 0.0, 1.5, 0.7),
    "car": (1.1, -0.3, 0.8, 0.4),
}

_FONT = {  # five rows of three
    "A": "010101111101101", "B": "110101110101110", "C": "011100100100011", "D": "110101101101110",
    "E": "111100110100111", "F": "111100110100100", "G": "011100101101011", "H": "101101111101101",
    "I": "111010010010111", "K": "101101110101101", "L": "100100100100111", "M": "101111111101101",
    "N": "110101101101101", "O": "010101101101010", "P": "110101110100100", "R": "110101110101101",
    "S": "011100010001110", "T": "111010010010010", "U": "101101101101111",
}  # fmt: skip


def _sheet(word: str) -> Tensor:
    """(7, 17) of 0 and 1: the word in 3x5 letters, centred, one empty cell around."""
    sheet = torch.zeros(7, 17)
    left = (17 - (4 * len(word) - 1)) // 2
    for k, letter in enumerate(word.upper()):
        sheet[1:6, left + 4 * k : left + 4 * k + 3] = torch.tensor(
            [int(bit) for bit in _FONT[letter]]
        ).view(5, 3)
    return sheet


_LETTERING = torch.stack([_sheet(word) for word in SIGN_WORDS])  # (words, 7, 17)


def _lettering(word: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """Roughly a signed distance to the letters of word (N,), for u, v in [-1, 1] on the board."""
    sheets = _LETTERING.to(u.device)[word][:, None]  # (N, 1, 7, 17)
    ink = F.grid_sample(sheets, torch.stack([u, -v], -1), align_corners=False)[:, 0]
    return (0.5 - ink) * 0.12
