"""The pages of precision.py: a table with the pictures behind each number, and the leaderboard of a
class.

    blendlab results precision --add my_method.py -o anna   # a row and its pictures, in anna/
    blendlab leaderboard class/            # merges class/anna/..., class/ben/...

Rows that were made with other tasks or networks are refused with the reason. Next: precision.py.
"""

import csv
import html
import io
import json
import random
from collections import Counter
from pathlib import Path
from urllib.parse import quote

from .. import files
from ..course import viz
from . import precision, results

SHOWN = 4  # scenes on the sheet of a row
LOWER = ("truth error", "light off", "seam", "(s)", "background (tinyworld", "shadow", "CLIP")


def write(out: Path, made: dict, records: dict) -> None:
    """The table as JSON, CSV, Markdown and a page with the best, the worst and a random scene for
    each number.
    """
    write_table(out / "precision", made)
    parts = [_details(label, each) for label, each in records.items()]
    _write(
        out / "precision.html", PAGE.format(title="Precision", body=_table(made) + "".join(parts))
    )


def write_table(path: Path, made: dict) -> None:
    """A table as path.json, path.csv (value, low and high of each column) and path.md."""
    table, lines = results.Table(made), io.StringIO()
    write = csv.writer(lines, lineterminator="\n").writerow
    write(["method"] + [f"{c}{end}" for c in table.columns for end in ("", " low", " high")])
    for row in made["rows"]:
        write([row["label"]] + [x for c in table.columns for x in row.get(c) or [None] * 3])
    results.save(made, path.with_suffix(".json"))
    _write(path.with_suffix(".csv"), lines.getvalue())
    _write(path.with_suffix(".md"), repr(table) + "\n")


def write_row(folder: Path, one: dict) -> None:
    """What is handed in of a method: row.json, and the pictures of its first scenes."""
    first = sorted(folder.glob("scene-*.png"))[:SHOWN]
    with files.replacing(folder / "sheet.png") as file:
        viz.sheet(first, columns=1).save(file, "PNG")
    results.save(one, folder / "row.json")


def merge(folder) -> tuple[dict, list[str]]:
    """Make one table and page of all rows below a folder; returns it, and why rows were refused."""
    folder = Path(folder)
    found, refused = {}, []
    for path in sorted(folder.rglob("row.json")):
        try:
            found[path] = _read(path)
        except (ValueError, KeyError, TypeError, OSError) as error:
            refused.append(f"{path.parent.relative_to(folder)}: no row ({error})")
    if not found:
        raise ValueError(
            f"there are no rows below {folder}; make one with `blendlab results precision --add "
            f"my_method.py -o {folder}/NAME`"
        )
    usual = Counter(_asked(one) for one in found.values()).most_common(1)[0][0]
    now = precision.tasks_of(usual[0])
    rows, pictures = [], []
    for path, one in found.items():
        name = str(path.parent.relative_to(folder))
        reason = _reason(one, usual, now)
        if reason:
            refused.append(f"{name}: {reason}")
            continue
        rows.append(one["rows"][0] | {"label": name})
        pictures.append(_figure(name, [(path.parent / "sheet.png").relative_to(folder)], ["first"]))
    if not rows:
        raise ValueError("every row was refused: " + "; ".join(refused))
    some = next(one for one in found.values() if not _reason(one, usual, now))
    rows.sort(key=lambda row: -_value(row))
    made = some | {"rows": rows, "command": f"blendlab leaderboard {folder.name}"}
    made.pop("identity")
    write_table(folder / "leaderboard", made)
    said = "".join(f"<li>{html.escape(line)}</li>" for line in refused)
    body = _table(made) + "".join(pictures) + f"<h2>Refused</h2><ul>{said}</ul>" * bool(refused)
    _write(folder / "leaderboard.html", PAGE.format(title="Leaderboard", body=body))
    return made, refused


def _read(path):
    one = json.loads(path.read_text(encoding="utf-8"))
    (row,) = one["rows"]
    for column, value in row.items():
        numbers = isinstance(value, list) and len(value) == 3
        good = numbers and all(type(x) in (int, float, type(None)) for x in value)
        if column not in ("label", "first") and not good:
            raise ValueError(f"{column!r} is {value!r}, not value, low and high")
    _asked(one), dict(one["identity"]["weights"])
    return one


def _asked(one):
    """Task, scenes and batch of a row."""
    return one["identity"]["task"], int(one["n"]), int(one["identity"]["batch"])


def _reason(one, usual, now) -> str:
    """Why a row does not belong here; empty if it does."""
    for name, mine, others in zip(("task", "scenes", "batch"), _asked(one), usual, strict=True):
        if mine != others:
            return f"made with {name} {mine}, the others with {others}"
    if {key: one["identity"].get(key) for key in now} != now:
        return "made with other tasks: another version of blendlab"
    for name, digits in one["identity"]["weights"].items():
        try:
            here = precision.weights_of(name)
        except (FileNotFoundError, ValueError) as error:
            return f"cannot be checked: {error}"
        if here != digits:
            return f"made with another {name} ({digits}; here {here})"
    return ""


def _value(row):
    first = row.get("batch precision") or row.get("gone") or [0]
    return first[0] or 0


# HTML


def _table(made):
    return results.Table(made)._repr_html_()


def _details(label, records):
    """For each number of a method: the best scene, the worst and a random one."""
    parts = []
    for column, values in precision.scene_means(records).items():
        order = [i for i, v in enumerate(values) if v is not None]
        if len({values[i] for i in order}) < 2:
            continue
        order.sort(key=lambda i: values[i], reverse=not any(part in column for part in LOWER))
        some = random.Random(f"{label}/{column}").choice(order)
        shown = {"best": order[0], "worst": order[-1], "random": some}
        files_ = [Path(label) / f"scene-{records[i]['scene']:04d}.png" for i in shown.values()]
        said = [f"{word}: {values[i]:.3g}, {records[i]['prompt']}" for word, i in shown.items()]
        parts.append(_figure(column, files_, said))
    return f"<h2>{html.escape(label)}</h2>" + "".join(parts)


def _figure(title, paths, said):
    pictures = "".join(
        f'<figure><figcaption>{html.escape(word)}</figcaption><img loading="lazy" '
        f'alt="{html.escape(word)}" src="{quote(path.as_posix())}"></figure>'
        for path, word in zip(paths, said, strict=True)
    )
    return f"<details><summary>{html.escape(title)}</summary>{pictures}</details>"


def _write(path, text):
    with files.replacing(path) as part:
        part.write_text(text, encoding="utf-8")


PAGE = """<!doctype html><html lang="en"><meta charset="utf-8">
<meta name="viewport" content="width=device-width"><title>blendlab: {title}</title><style>
:root {{ color-scheme: light dark }}
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 1400px; margin: auto; padding: 1.5rem }}
figure {{ margin: .5rem 0 }} img {{ max-width: 100%; image-rendering: pixelated }}
</style><h1>{title}</h1><p>In each strip: the picture with its mask, a truth, the results.</p>
{body}</html>
"""
