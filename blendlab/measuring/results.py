"""Measured tables: each made by one command, and kept in data/results/ with how it was made.

    blendlab results edits                              # measure all of it and save it
    results.table("edits")                              # the saved table, for a notebook
    live = results.measure("edits", n=8)                # its first 8 tasks, here and now
    results.reproduces(results.load("edits"), live)     # which must come out as saved

Next: tables.py, sweeps.py and the module of each paper, what they measure.
"""

import hashlib
import html
import json
import math
import re
import time
from importlib import import_module
from pathlib import Path

import torch

from .. import cards, files
from ..errors import Refused
from ..networks import load as networks
from . import exemplars, latent_blending, metrics, noise_editing, pixel_blending, sweeps, tables

_MODULES = (tables, pixel_blending, latent_blending, exemplars, noise_editing, sweeps)
_FUNCTIONS = [f for module in _MODULES for f in vars(module).values() if hasattr(f, "recipe")]
TABLES = {function.__name__: function.recipe for function in _FUNCTIONS}
BESIDE = ("label", "first", "first result")  # what a row has that is no column
ELSEWHERE = ("precision", "removals")  # kept here too, but made by precision.py
MOST = 100_000  # tasks of one table
KEPT = metrics.BLOCK  # the outcomes of so many tasks are saved one by one, for `reproduces`
PACKAGES = ("blendlab", "torch", "diffusers", "transformers")


# Making, saving, checking


def measure(name: str, n: int | None = None) -> dict:
    """Make a table here, of its first n tasks or of all, and its figure; nothing is saved."""
    recipe, start = _recipe(name), time.perf_counter()
    n_used = recipe.n if n is None else n
    if type(n_used) is not int or not 1 <= n_used <= MOST:
        raise Refused(f"n is {n!r}; take a whole number from 1 to {MOST}")
    made = recipe.function(n_used, *map(networks.load, recipe.needs))
    rows, figure = made if isinstance(made, tuple) else (made, None)
    head = {
        "name": name,
        "what": recipe.what,
        "command": f"blendlab results {name}" + ("" if is_whole(name, n) else f" -n {n}"),
        "seconds": round(time.perf_counter() - start, 1),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "n": n_used,
    }
    tail = {
        "weights": fingerprints(recipe.needs),
        "rows": [_row(label, columns) for label, columns in rows.items()],
    }
    return head | machine() | tail | ({"figure": figure} if figure else {})


def run(name: str, n: int | None = None, out=None) -> dict:
    """Make a table and save it as data/results/NAME.json, its figure beside it; returns the table.

    n: its first n tasks only; then `out` must say in which file. The figure is written first, and
    the table holds its fingerprint, so a figure without its table does not count.
    """
    if out is None and not is_whole(name, n):
        raise Refused(
            f"n is {n}, but the table {name} has {_recipe(name).n} tasks; name a file with out=, "
            "or call measure"
        )
    result, path = measure(name, n), _path(name) if out is None else Path(out)
    figure = result.pop("figure", None)
    if figure:
        with files.replacing(path.with_suffix(".png")) as part:
            figure.save(part, "PNG", optimize=True)
            result["figure"] = digest(part.read_bytes())
    save(result, path)
    return result


def machine() -> dict:
    """What a table was made on and with."""
    gpu = torch.cuda.is_available()
    return {
        "device": torch.cuda.get_device_name()
        if gpu
        else f"the CPU, threads: {torch.get_num_threads()}",
        "versions": {package: import_module(package).__version__ for package in PACKAGES},
    }


def is_whole(name: str, n: int | None) -> bool:
    """Whether n tasks are all tasks of a table."""
    return n is None or n == _recipe(name).n


def save(result: dict, path):
    """Write a table as JSON, in one move."""
    files.write_text(path, _json(result))


def saved(name: str) -> bool:
    """Whether a table is saved, made with whatever weights."""
    if name not in ELSEWHERE:
        _recipe(name)
    return _path(name).is_file()


def load(name: str) -> dict:
    """Return the saved table; FileNotFoundError says how to make it."""
    if not saved(name):
        how = f"`blendlab results {name}`"
        if name in ELSEWHERE:
            task = " --task remove" * (name == "removals")
            how = f"`blendlab results precision{task}`, then `python data/make.py precision FOLDER`"
        raise FileNotFoundError(f"table {name!r} is not saved yet; make it with {how}")
    return json.loads(_path(name).read_text(encoding="utf-8"))


def listing() -> str:
    """Name every table, what it says, and whether it is saved and matches the current weights."""
    return "\n".join(f"{name} ({_state(name)})\n  {recipe.what}" for name, recipe in TABLES.items())


def fingerprint(model: str, place=None) -> str:
    """Twelve hexadecimal digits that change with a model's files (in a folder, else shipped)."""
    found = sorted((place or cards.WEIGHTS / model).rglob("*.*"))
    return digest(b"".join(file.name.encode() + file.read_bytes() for file in found))


def fingerprints(models) -> dict[str, str]:
    return {model: fingerprint(model) for model in models}


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:12]


def reproduces(saved: dict, live: dict, differ: int = 0, near: float = 0.01) -> str:
    """Check that a table made here has the saved outcomes, task by task; return a sentence.

    differ: how many may not, on a machine that rounds differently. near: by what share numbers may
            be off; a tenth where guidance makes rounding errors grow. AssertionError names the
            first few.
    """
    rows, compared, wrong = {row["label"]: row for row in saved["rows"]}, 0, []
    if unknown := [row["label"] for row in live["rows"] if row["label"] not in rows]:
        raise Refused(f"{unknown[0]!r} is no row of the saved table, which has: {', '.join(rows)}")
    for row in live["rows"]:
        for column, outcomes in row.get("first", {}).items():
            pairs = list(zip(rows[row["label"]]["first"][column], outcomes, strict=False))
            compared += len(pairs)
            wrong += [f"{row['label']}, {column}, task {i}: {was} was saved, {now} came out"
                      for i, (was, now) in enumerate(pairs)
                      if not _same(was, now, near)]  # fmt: skip
    if not compared or len(wrong) > differ:
        raise AssertionError(
            f"{len(wrong)} of {compared} outcomes are not as saved ({'; '.join(wrong[:3])}); "
            "if the weights "
            f"or the method changed on purpose, make the table again with `{saved['command']}`"
        )
    tasks = "task" if live["n"] == 1 else f"{live['n']} tasks"
    return f"{compared - len(wrong)} of {compared} outcomes of the first {tasks} are as saved"


def _same(was, now, near):
    return (
        was == now
        or None not in (was, now)
        and not isinstance(was, str)
        and math.isclose(was, now, rel_tol=near, abs_tol=1e-4)
    )


def current(name: str) -> bool:
    """Whether a table is saved whole, with its figure, and matches the current weights."""
    return saved(name) and not _stale(name, load(name))


def outdated() -> dict[str, float]:
    """The tables that are not saved whole or do not match the current weights, and the seconds that
    each will take, from what it took last time (0 if it never ran).
    """
    names = [name for name in TABLES if not current(name)]
    return {name: _seconds(load(name)) if saved(name) else 0.0 for name in names}


def _seconds(table):
    """What a table takes with all its tasks, from what those that it has took."""
    return table["seconds"] * max(1, TABLES[table["name"]].n / table["n"])


def _stale(name, table):
    """What is wrong with a saved table, as the end of a sentence; "" if nothing is."""
    recipe = _recipe(name)
    if table["weights"] != fingerprints(recipe.needs):
        return "made with other weights"
    figure = _path(name).with_suffix(".png")
    if "figure" in table and not (
        figure.is_file() and digest(figure.read_bytes()) == table["figure"]
    ):
        return "its figure is not of this table"
    return "" if table["n"] >= recipe.n else f"of {recipe.n} tasks"


def _state(name):
    if not saved(name):
        return "not saved yet"
    table = load(name)
    stale = _stale(name, table)
    return f"n = {table['n']}" + f", but {stale}" * bool(stale)


def _recipe(name):
    if name not in TABLES:
        raise Refused(f"there is no table {name!r}; there are {', '.join(TABLES)}")
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
            if not len(outcomes):  # none of a few tasks may have such an outcome
                interval = (math.nan,) * 3
            elif outcomes.ndim == 2:  # several of each prompt
                interval = metrics.resampled(outcomes.float().mean(1).tolist(), share=shares)
            elif shares:
                interval = metrics.proportion(int(outcomes.sum()), len(outcomes))
            else:
                interval = metrics.mean(outcomes)
            kept = outcomes.flatten()[:KEPT].tolist()
            first[column] = (
                "".join(map("01".__getitem__, kept)) if shares else list(map(_short, kept))
            )
        row[column] = [_short(value) for value in interval]
    return row | ({"first": first} if first else {})


def _short(value):
    return float(f"{value:.5g}") if math.isfinite(value) else None


def _json(result):
    """JSON with a line for each row, so that one can read what changed in a table."""
    lines = [
        f"  {json.dumps(key)}: {json.dumps(value)}"
        for key, value in result.items()
        if key != "rows"
    ]
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
        self.columns = [column for column in self.columns if column not in BESIDE]

    def cells(self) -> list[list[str]]:
        """The rows as text, label first; empty where a row has no such value."""
        return [[row["label"], *(text(row.get(c), c) for c in self.columns)] for row in self.rows]

    def foot(self) -> str:
        """How it was measured, in one line of Markdown; the command is code, to be copied."""
        made = "`{command}`, {seconds:.0f} s on {device}".format(**self.result)
        fewer = " (fewer where the column scenes says so)" * ("scenes (n)" in self.columns)
        return f"n = {self.result['n']}{fewer}, brackets: 95% intervals. Made by {made}."

    def __repr__(self):
        lines = [["", *self.columns], *self.cells()]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        lines.insert(1, ["-" * width for width in widths])
        lines = ["| " + " | ".join(map(str.ljust, line, widths)) + " |" for line in lines]
        return "\n".join([self.result["what"], "", *lines, "", self.foot()])

    _repr_markdown_ = __repr__

    def _repr_html_(self):
        foot = re.sub("`(.+?)`", r"<code>\1</code>", html.escape(self.foot()))
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
        style = "border-collapse:collapse;font-variant-numeric:tabular-nums;font-size:inherit;color:inherit"  # noqa: E501
        return (
            '<div style="overflow-x:auto"><p '
            f'style="max-width:46em">{html.escape(self.result["what"])}</p>'
            f'<table style="{style}">{body}</table>'
            f'<p style="opacity:.7;font-size:.85em">{foot}</p></div>'
        )

    def _drawn(self, interval, column):
        """A bar below the numbers: where the interval lies in [0, 1], or in the column."""
        all_ends = [end for row in self.rows for end in row.get(column, [])[1:] if end is not None]
        least, most = (
            (min(all_ends, default=0), max(all_ends, default=0)) if _is_number(column) else (0, 1)
        )
        lonely = _is_number(column) and sum(column in row for row in self.rows) == 1
        if interval is None or interval[1] is None or lonely or most == least:
            return ""
        start, end = (97 * (x - least) / (most - least) for x in interval[1:])
        blue = (
            f"{GREY} {start:.1f}%,{BLUE} {start:.1f}%,{BLUE} {end + 3:.1f}%,{GREY} {end + 3:.1f}%"
        )
        style = "height:5px;min-width:7em;margin-top:4px;border-radius:3px"
        return f'<div style="{style};background:linear-gradient(90deg,{blue})"></div>'


def text(interval, column: str) -> str:
    """A value and its interval, with the digits that it allows: 83% [77, 88], 27.4 [26.8, 28.0]."""
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
