"""Pictures of pictures, a call each: grids, filmstrips, masks on pictures, plots of numbers.

Grids come out as PIL pictures for a notebook's column: small pictures are enlarged by whole
factors, so that every pixel stays a crisp square. Plots come out as matplotlib figures. Put either
last in a cell to see it. No paper. Next: the notebooks, where these fill one line of a cell.
"""

import io
import textwrap
from functools import cache
from math import ceil
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from . import images as inputs
from .errors import Refused
from .masks import dilate, square_around
from .options import tensor

WIDTH = 960  # pixels, about a notebook's column
LETTERS = 14  # pixels of a title in a grid of that width
GAP = 2  # pixels between the pictures of a sheet
INK, FAINT = "#2b2b2b", "#d8d8d8"
COLOURS = ("#2f6db5", "#d9722e", "#3f9560", "#8e5aa8", "#767676")
TINT = (232, 28, 122)  # of a mask; no landscape has it


class Shown(Image.Image):
    """A figure that tells a screen reader what it shows: `alt`, its alternative text."""

    def _repr_png_(self):
        return super()._repr_png_(), {"alt": self.alt}


def show(
    images, titles=None, columns: int | None = None, mask=None, alt: str = "", panel: int = 0
) -> Image.Image:
    """A grid of pictures with titles, at notebook width.

    images: a picture or a list of them: PIL, paths, or tensors (B,3,H,W) in [-1, 1] or (B,1,H,W) in
            [0, 1].
    mask: one mask, or one for each picture, drawn as a thin outline. At most 6 columns unless you
          say so.
    alt: what a screen reader says; the titles, if left out. panel: each is so wide at least.
    """
    pictures = _pictures(images)
    titles = [titles] if isinstance(titles, str) else list(titles or [])
    if len(titles) > len(pictures):
        given = f"{len(titles)} titles for {len(pictures)} pictures"
        raise Refused(f"{given}: pass one for each")
    columns = columns or _columns(max(1, len(pictures)))
    side = min(256, (WIDTH - 8 * (columns - 1)) // columns)
    small = min((picture.width for picture in pictures), default=side)
    side = side // small * small or side  # all as wide as the smallest can be, by a whole factor
    side = max(side, ceil(panel / small) * small)
    pictures = [enlarged(picture, side) for picture in pictures]
    if mask is not None:
        masks = _pictures(mask)
        if len(masks) not in (1, len(pictures)):
            given = f"{len(masks)} masks for {len(pictures)} pictures"
            raise Refused(f"{given}: pass one, or one for each")
        pictures = [_outlined(picture, masks[i % len(masks)]) for i, picture in enumerate(pictures)]
    return _told(_grid(pictures, titles, columns, gap=8), alt, titles)


def strip(frames, titles=None, most: int = 7, alt: str = "") -> Image.Image:
    """A filmstrip, for instance of `step.x0_hat`: a column for each frame, a row for each sample.

    frames: a list of tensors (B,3,H,W) or of pictures; of more than `most`, that many are shown,
            evenly spaced from the first to the last. titles: one for each frame. alt: as in `show`.
    """
    frames, titles = [_pictures(frame) for frame in frames], list(titles or [])
    if not frames or len({len(frame) for frame in frames}) > 1:
        counts = ", ".join(str(len(frame)) for frame in frames) or "no"
        raise Refused(f"the frames hold {counts} pictures: pass frames of as many each")
    if most < 2:
        raise Refused(f"most is {most}: take 2 or more, the first frame and the last")
    if titles and len(titles) != len(frames):
        raise Refused(f"there are {len(titles)} titles for {len(frames)} frames: pass one for each")
    if len(frames) > most:
        kept = [round(i * (len(frames) - 1) / (most - 1)) for i in range(most)]
        frames, titles = [frames[i] for i in kept], [titles[i] for i in kept] if titles else []
    side = min(256, (WIDTH - 3 * (len(frames) - 1)) // len(frames))
    rows = zip(*frames, strict=True)
    grid = _grid([enlarged(p, side) for row in rows for p in row], titles, len(frames), gap=3)
    return _told(grid, alt, titles)


def crop(images: Tensor, mask: Tensor, around: float = 1.5) -> Tensor:
    """The part of pictures (B,C,H,W) that is worth a look: one square `around` the box of a mask,
    or of all (1 or B,1,H,W).
    """
    tensor("mask", mask, "B,1,H,W", bools=True)
    if mask.shape[-2:] != images.shape[-2:]:
        sizes = [f"{x.shape[-1]}x{x.shape[-2]}" for x in (mask, images)]
        raise Refused(f"the mask is {sizes[0]} and the pictures {sizes[1]}: pass their own mask")
    left, top, right, bottom = square_around(mask.amax(0, keepdim=True), around)
    return images[..., top:bottom, left:right]


def overlay(image, mask, width: int = 256) -> Image.Image:
    """The picture with the area to edit tinted and outlined; a small mask is drawn as cells."""
    pictures, given = _pictures(image), _pictures(mask)
    if len(pictures) != 1 or len(given) != 1:
        counts = f"{len(pictures)} and {len(given)}"
        fix = "pass image[i : i + 1] and mask[i : i + 1]"
        raise Refused(f"overlay takes one picture and one mask, not {counts}: {fix}")
    (picture,), (m,) = pictures, given
    picture = enlarged(picture, width)
    tinted = Image.blend(picture, Image.new("RGB", picture.size, TINT), 0.45)
    m = m.convert("L").resize(picture.size, Image.Resampling.NEAREST)
    return _outlined(Image.composite(tinted, picture, m), m)


def sheet(images, columns: int = 8, gap: int = GAP) -> Image.Image:
    """A plain grid of pictures at their own size, to save to a file."""
    return _grid(_pictures(images), [], columns, gap)


def curve(x, lines: dict, xlabel: str = "", ylabel: str = "", title: str = ""):
    """Lines over x, named at their ends: {name: values}, or {name: (values, low, high)}."""
    figure, axes = _axes(6.8, 3.6, xlabel, ylabel, title)
    ends = []
    for i, (name, values) in enumerate(lines.items()):
        values, *interval = values if isinstance(values, tuple) else (values,)
        colour = COLOURS[i % len(COLOURS)]
        axes.plot(x, values, color=colour, linewidth=1.8, marker="o", markersize=3.5)
        if interval:
            axes.fill_between(x, *interval, color=colour, alpha=0.15, linewidth=0)
        ends.append((float(values[-1]), name, colour))
    _name_lines(axes, x, ends)
    axes.grid(axis="y", color=FAINT, linewidth=0.6)
    return figure


def intervals(rows, xlabel: str = "", title: str = "", digits: int = 2):
    """Measured values with their intervals; a row is (label, value, low, high)."""
    figure, axes = _axes(7.6, 0.8 + 0.34 * len(rows), xlabel, "", title)
    for y, (_, value, low, high) in enumerate(rows):
        axes.plot(
            [low, high], [y, y], color=COLOURS[0], linewidth=5, alpha=0.3, solid_capstyle="butt"
        )
        axes.plot(value, y, "o", color=COLOURS[0], markersize=6.5)
        text = f"{value:.{digits}f}   [{low:.{digits}f}, {high:.{digits}f}]"
        axes.annotate(
            text, (1.03, y), xycoords=("axes fraction", "data"), va="center", color=INK, fontsize=9
        )
    axes.set_yticks(range(len(rows)), [row[0] for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x", color=FAINT, linewidth=0.6)
    return figure


def compare(table: dict, column: str, rows=None, title: str = "", alt: str = "") -> Image.Image:
    """One column of a saved table (results.load) with its intervals, one row below the other.

    rows: labels of the rows to show, or {label: what to call it}; None: all that have the column.
    """
    found = {row["label"]: row[column] for row in table["rows"] if _has(row, column)}
    if not found:
        every = {key: 0 for row in table["rows"] for key in row if key == "label" or _has(row, key)}
        raise Refused(f"the table has no column {column!r}; its columns are {', '.join(every)}")
    names = rows if isinstance(rows, dict) else {label: label for label in rows or found}
    if missing := [label for label in names if label not in found]:
        known = ", ".join(found)
        raise Refused(f"{column!r} has no row {missing[0]!r}; its rows are {known}")
    shown = [(name, *_percent(found[label], column)) for label, name in names.items()]
    xlabel = f"{_with_unit(column)}; n = {table['n']}, bars: 95% intervals"
    said = ", ".join(f"{name} {v:.3g} [{low:.3g}, {high:.3g}]" for name, v, low, high in shown)
    digits = 1 if max(abs(row[1]) for row in shown) >= 5 else 3
    return _drawn(intervals(shown, xlabel, title, digits), alt or f"{column}: {said}")


def against(table: dict, x: str, y: str, rows, marked=(), title: str = "", alt: str = ""):
    """Two columns of a saved table against each other, a cross of intervals for each row.

    rows: {label: what to call it}; marked: labels that get another colour.
    """
    found = {
        row["label"]: [_percent(row[c], c) for c in (x, y)]
        for row in table["rows"]
        if _has(row, x) and _has(row, y)
    }
    if missing := [label for label in rows if label not in found]:
        known = ", ".join(found)
        raise Refused(f"no row {missing[0]!r} has {x!r} and {y!r}; these have: {known}")
    names = [_with_unit(c) for c in (x, y)]
    figure, axes = _axes(7.6, 4.2, f"{names[0]}; n = {table['n']}, bars: 95%", names[1], title)
    ends = []
    for label, name in rows.items():
        (u, *us), (v, *vs) = found[label]
        colour = COLOURS[int(label in marked)]
        axes.plot(us, [v, v], color=colour, linewidth=3, alpha=0.25, solid_capstyle="butt")
        axes.plot([u, u], vs, color=colour, linewidth=3, alpha=0.25, solid_capstyle="butt")
        axes.plot(u, v, "o", color=colour, markersize=6.5)
        ends.append((u, v, name, colour))
    axes.margins(x=0.18, y=0.08)
    axes.grid(color=FAINT, linewidth=0.6)
    _name_points(figure, axes, ends)
    said = "; ".join(f"{name}: {u:.3g} and {v:.3g}" for u, v, name, _ in ends)
    return _drawn(figure, alt or f"{names[0]} and {names[1]}: {said}")


def _name_points(figure, axes, ends):
    """Write each point's name beside it, where no other name stands yet."""
    figure.draw_without_rendering()  # so that data have places
    taken = []
    for u, v, name, colour in ends:
        x, y = axes.transData.transform((u, v))
        wide = 6.6 * len(name)
        spots = [(7, 6), (7, -17), (-7 - wide, 6), (-7 - wide, -17), (7, 22), (7, -33)]
        free = [(dx, dy) for dx, dy in spots
                if all(abs(x + dx - a) > max(wide, w) or abs(y + dy - b) > 16
                       for a, b, w in taken)]  # fmt: skip
        dx, dy = (free or spots)[0]
        taken.append((x + dx, y + dy, wide))
        at = (0.72 * dx, 0.72 * dy)  # points of 1/72 inch, at 100 pixels an inch
        axes.annotate(name, (u, v), xytext=at, textcoords="offset points", color=colour, fontsize=9)


def _has(row, column) -> bool:
    """Whether a row has a value there: of a diversity without right results it has none."""
    value = row.get(column)
    return isinstance(value, list | tuple) and value[0] is not None


def _percent(interval, column):
    """An interval as it is shown: shares in percent; without ends, its value."""
    value, *ends = interval
    scale = 1 if column.endswith(")") else 100
    return [scale * (value if end is None else end) for end in (value, *ends)]


def _with_unit(column):
    return column if column.endswith(")") else f"{column}, %"


def points(clouds, titles, marks, limit: float = 2.4, alt: str = "") -> Image.Image:
    """Clouds of points (n,2), one panel each, with marks (m,2) as rings behind them."""
    from matplotlib import pyplot

    size = (2.4 * len(clouds), 2.7)
    figure, axes = pyplot.subplots(1, len(clouds), figsize=size, dpi=100, layout="constrained")
    pyplot.close(figure)
    for axis, cloud, title in zip(np.atleast_1d(axes), clouds, titles, strict=True):
        jitter = 0.025 * torch.randn(cloud.shape, generator=torch.Generator().manual_seed(0))
        axis.scatter(*marks.T, s=90, facecolors="none", edgecolors=COLOURS[1], linewidths=1.2)
        axis.scatter(*(cloud.cpu() + jitter).T, s=4, color=COLOURS[0], alpha=0.45, linewidths=0)
        axis.set(xlim=(-limit, limit), ylim=(-limit, limit), xticks=[], yticks=[])
        axis.set_title(title, fontsize=10, color=INK)
        axis.set_aspect("equal")
    return _drawn(figure, alt or "Clouds of points: " + "; ".join(titles))


def _drawn(figure, alt):
    """A figure as a picture, on white."""
    file = io.BytesIO()
    figure.savefig(file, format="png", facecolor="white")
    return _told(Image.open(file).convert("RGB"), alt, None)


def _told(picture, alt, titles):
    """The picture with its alternative text."""
    picture.__class__ = Shown
    picture.alt = alt or "; ".join(map(str, titles or [])) or "a grid of pictures"
    return picture


# Grids


def _pictures(images):
    """A flat list of PIL pictures in RGB from whatever was given."""
    if isinstance(images, (list, tuple)):
        return [picture for one in images for picture in _pictures(one)]
    if isinstance(images, Tensor):
        images = images.reshape((1,) * (4 - images.ndim) + images.shape)
        return [picture.convert("RGB") for picture in inputs.to_pil(images)]
    if isinstance(images, Image.Image):
        return [images.convert("RGB")]
    return inputs.to_pil(inputs.image(images, name="picture"))


def _columns(n):
    return ceil(n / ceil(n / 6))  # as even as rows of at most six can be


def enlarged(picture, side):
    """The picture, `side` wide at most: by a whole factor if small, so that pixels stay square."""
    width, height = picture.size
    factor = side // width
    if factor >= 2:
        return picture.resize((width * factor, height * factor), Image.Resampling.NEAREST)
    return picture.resize((side, round(height * side / width)), Image.Resampling.LANCZOS)


def _outlined(picture, mask):
    """A white line in a dark one around the mask: seen on snow and at night."""
    mask = mask.convert("L").resize(picture.size, Image.Resampling.NEAREST)
    inside = (torch.from_numpy(np.array(mask)) > 127).float()[None, None]  # (1,1,H,W)
    white, dark = dilate(inside, 2), dilate(inside, 3)
    for ring, colour in ((dark - white, (0, 0, 0)), (white - inside, (255, 255, 255))):
        (where,) = inputs.to_pil(ring)
        picture = Image.composite(Image.new("RGB", picture.size, colour), picture, where)
    return picture


def _grid(pictures, titles, columns, gap):
    """Paste pictures into rows of `columns`; a row with titles has room for them above."""
    if not pictures:
        raise Refused("there is no picture to show: pass at least one")
    columns = min(columns, len(pictures))
    width, height = max(p.width for p in pictures), max(p.height for p in pictures)
    across = columns * (width + gap) - gap
    letters = LETTERS * max(across, WIDTH) // WIDTH  # a page shows wider grids smaller
    texts = [textwrap.wrap(str(title), max(8, width * 5 // 3 // letters)) for title in titles]
    starts = range(0, len(pictures), columns)
    lines = [max(map(len, texts[i : i + columns]), default=0) for i in starts]
    heads = [(letters + 4) * n + 6 if n else 0 for n in lines]  # one for each row
    tops = [row * (height + gap) + sum(heads[: row + 1]) for row in range(len(heads))]
    canvas = Image.new("RGB", (across, tops[-1] + height), "white")
    for i, picture in enumerate(pictures):
        x, y = i % columns * (width + gap), tops[i // columns]
        canvas.paste(picture, (x, y))
        if i < len(texts):
            _write(canvas, (x + width // 2, y - 4), "\n".join(texts[i]), letters)
    return canvas


def _write(canvas, at, text, letters):
    ImageDraw.Draw(canvas).multiline_text(
        at, text, fill=INK, font=_font(letters), anchor="md", align="center", spacing=3
    )


@cache
def _font(letters):
    """The font of matplotlib's figures, which has the Greek letters too."""
    import matplotlib

    return ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans.ttf"), letters)


# Plots


def _axes(width, height, xlabel, ylabel, title):
    """A small figure in the house style, which the notebook shows once: where it is returned."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(width, height), dpi=100, layout="constrained")
    pyplot.close(figure)
    figure.set_facecolor("white")  # also where a notebook is dark
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT)
    axes.tick_params(colors=INK, labelsize=9, color=FAINT, length=3)
    axes.set_axisbelow(True)
    axes.set_xlabel(xlabel, color=INK, fontsize=9)
    axes.set_ylabel(ylabel, color=INK, fontsize=9)
    axes.set_title(title, color=INK, fontsize=10.5, loc="left")
    return figure, axes


def _name_lines(axes, x, ends):
    """Write each line's name at its end, pushed apart where lines end together."""
    low, high = axes.get_ylim()
    room, at = 0.07 * (high - low), -float("inf")
    for y, name, colour in sorted(ends):
        at = max(y, at + room)
        axes.annotate(
            name,
            (x[-1], at),
            xytext=(8, 0),
            textcoords="offset points",
            color=colour,
            fontsize=9,
            va="center",
        )


# Attention


def attention(images, heat: Tensor, most: float = 2.0, width: int = 256) -> list[Image.Image]:
    """Pictures with a map (B,h,w) drawn over them: tinted where it is above 1, fully at `most`."""
    pictures = [enlarged(picture, width) for picture in _pictures(images)]
    if len(pictures) != len(heat) or most <= 1:
        given = f"{len(pictures)} pictures, {len(heat)} maps and most={most:g}"
        raise Refused(f"there are {given}: pass a map for each picture, and most above 1")
    alphas = ((heat.float().cpu() - 1) / (most - 1)).clamp(0, 1)[:, None] * 0.85
    shown = []
    for picture, alpha in zip(pictures, inputs.to_pil(alphas), strict=True):
        alpha = alpha.convert("L").resize(picture.size, Image.Resampling.NEAREST)
        tint = Image.new("RGB", picture.size, TINT)
        shown.append(Image.composite(tint, picture, alpha))
    return shown
