"""data/phenomena.md: what the notebooks rest on, each with a figure, a comparison, a sentence.

`blendlab results phenomena` makes the tables that are missing or were made with other weights, then
the page. A phenomenon is confirmed when the intervals of its comparison do not overlap. Read next:
pixel_blending.py, which measures some.
"""

from dataclasses import dataclass

from .. import files
from ..errors import Refused
from . import results


@dataclass(frozen=True)
class Section:
    """One phenomenon: `more`, `less` are (row, column) or a share; `says` names both.

    unless: what we know of it where it is not confirmed.
    """

    title: str
    table: str
    more: tuple[str, str]
    less: tuple[str, str] | float
    says: str
    unless: str = ""


SECTIONS = (
    Section(
        "CLIP's gradient makes the object that was asked for",
        "pixel_edits", ("guided", "class"), ("unguided", "class"),
        "Of pixel edits guided by CLIP, the judge sees the prompted class in {more}; of the same "
        "noise unguided in {less}. The best of four is in the table."),
    Section(
        "Pixels that CLIP alone painted please CLIP, and seldom the judge",
        "augmentations", ("pixels alone", "CLIP as pleased as by the truth"), ("pixels alone", "class"),
        "Of bare pixels moved along CLIP's gradient, CLIP likes {more} at least as much as the truth; the judge sees "
        "the class in {less}: adversarial examples. The same with augmentations is in the table."),
    Section(
        "With augmentations the judge agrees more often",
        "augmentations", ("augmented", "class"), ("no augmentation", "class"),
        "From the same seeds, the judge sees the class in {more} of edits whose gradient was averaged over warped "
        "copies, and in {less} of those without, though CLIP finds the latter at least as close to the words."),
    Section(
        "In a stroke one latent cell wide, dilation draws something more often than plain blending",
        "strokes", ("1 cells wide, 3 dilations", "something appeared"),
        ("1 cells wide, plain", "something appeared"),
        "Something appears in {more} of strokes whose latent mask begins with three dilations, and "
        "in {less} of those with the plain one. The table says how often the judge names it."),
    Section(
        "The initial noise already decides where objects will be",
        "tendency", ("cat and bus: two families", "as the noise says"), 0.5,
        "A cat and a bus from one noise are nearer to each other than from two in {more} of comparisons (by chance: "
        "{less})."),
    Section(
        "So does the attention of the first steps",
        "tendency", ("attention, step 1", "as the noise says"), 0.5,
        "At the object's final position, the noun's attention at the first step exceeds that of another noise in {more} "
        "of comparisons (by chance: {less})."),
    Section(
        "All tokens copy the reference, the class token paints it anew",
        "ladder", ("all tokens", "nearer to the pasted object"),
        ("+ class token, null vector", "nearer to the pasted object"),
        "With all tokens {more} of results are nearer to the object cut out and pasted than to the truth, with the "
        "class token {less}.",
        "The order is the paper's. But each rung had only 1,000 steps of training, after which none "
        "copies much."),
    Section(
        "A second colour, which words leave out, comes along with a reference",
        "exemplar_attributes",
        ("by reference", "accent right, of 8"), ("by words", "accent right, of 8"),
        "Of eight truths that differ in the second colour, the right one is the nearest to {more} of results by "
        "reference, and to {less} of edits by words that name kind and first colour. Objects whose "
        "second colour does not show are left out."),
    Section(
        "Stripes and spots come along, too",
        "exemplars", ("by exemplar", "stripes and spots right"), 1 / 3,
        "Of three truths, plain, striped and spotted, the right one is nearest in {more} of striped and spotted "
        "objects (by chance: {less}).",
        "The class token tells 91% of patterns, so the UNet loses them. Its loss still falls: more "
        "training is what is left to try."),
    Section(
        "CLIP's ranking reads the words on signs",
        "signs", ("a sign that says something else", 'the sign is first for "cat"'), 0.5,
        "For \"cat\" CLIP ranks a sign that says cat before a sign that says something else in {more} of scenes (by "
        "chance: {less}): it reads. How often it prefers the sign to the object itself is in the table."),
    Section(
        "The autoencoder loses faces",
        "losses", ("balls", "detail kept"), ("faces", "detail kept"),
        "Of the fine detail of faces the autoencoder brings back {less}, of plain balls {more}; stars and words are "
        "in the table."),
    Section(
        "Pasted objects keep their old light, blended ones do not",
        "light", ("pasted", "off the truth's colour"), ("blended", "off the truth's colour"),
        "An object from a sunny day pasted into a darker scene is off the truth's mean colour by {more} of the range, "
        "one that was blended in by {less}."),
)  # fmt: skip


def write(n: int | None = None, save: bool = True, out=None) -> str:
    """Make the tables that the page needs and lacks, then the page; returns its text.

    n: look at the first n tasks of each table; such tables are never saved, and the page only in
       the file `out`. save=False: nothing is saved.
    """
    names = dict.fromkeys(section.table for section in SECTIONS)
    text = page({table: _made(table, n, save) for table in names})
    path = files.data() / "phenomena.md" if out is None and n is None else out
    if save and path:
        files.write_text(path, text)
    return text


def _made(table, n, save):
    if n is not None:
        return results.measure(table, n)
    if results.current(table):
        return results.load(table)
    return (results.run if save else results.measure)(table)


def page(tables: dict | None = None) -> str:
    """The page, from these tables or from the saved ones."""
    tables = tables or {section.table: results.load(section.table) for section in SECTIONS}
    confirmed = [_confirmed(section, tables[section.table]["rows"]) for section in SECTIONS]
    lines = [
        "# What the notebooks rest on",
        "",
        "Each phenomenon of the papers that a notebook teaches, measured on tinyworld before anything is built on it.",
        f"Confirmed: {sum(confirmed)} of {len(confirmed)}. A phenomenon is confirmed when its two "
        "intervals (95%) are apart, or its one interval lies above chance.",
        "Written by `blendlab results phenomena`; each figure shows the first tasks of its table, not chosen ones.",
    ]
    drawn = set()
    for i, (section, yes) in enumerate(zip(SECTIONS, confirmed, strict=True), 1):
        table = tables[section.table]
        more, less = (_words(at, table["rows"]) for at in (section.more, section.less))
        lines += ["", f"## {i}. {section.title}: {'confirmed' if yes else 'not confirmed'}", ""]
        lines += [section.says.format(more=f"**{more}**", less=f"**{less}**")]
        lines[-1] += f" {section.unless}" * bool(section.unless and not yes)
        lines += [f"n = {table['n']}, `{table['command']}`."]
        if section.table not in drawn:
            drawing = files.data() / "results" / f"{section.table}.png"
            if isinstance(table.get("figure", ""), str) and drawing.is_file():
                lines += ["", f"![{section.title}](results/{section.table}.png)"]
            lines += ["", repr(results.table(table))]
        drawn.add(section.table)
    return "\n".join(lines) + "\n"


def _confirmed(section, rows):
    low, high = _interval(section.more, rows)[1], _interval(section.less, rows)[2]
    return None not in (low, high) and low > high  # None: too few tasks for an interval


def _interval(at, rows):
    if isinstance(at, float):
        return at, at, at
    found = [row for row in rows if row["label"] == at[0]]
    if not found:
        raise Refused(
            f"a table lacks the row {at[0]!r}: train what it needs, see its module, and make it again"
        )
    return found[0][at[1]]


def _words(at, rows):
    return f"{at:.0%}" if isinstance(at, float) else results.text(_interval(at, rows), at[1])
