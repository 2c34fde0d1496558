"""What precision.py writes: a table as JSON, CSV and Markdown, and a page of its pictures.

Next: leaderboard.py, which merges rows.
"""

import csv
import html
import io
import math
import random
from pathlib import Path
from urllib.parse import quote

from .. import files, viz
from . import results

SHOWN = 4  # scenes on the sheet of a row
BEST = {  # of what: the best value; of all others the largest
    "truth error": 0,
    "light off": 0,
    "seam": 1,
    "(s)": 0,
    "background (tinyworld": 0,
    "background (LPIPS": 0,
    "shadow": 0,
    "CLIP": 0,
}


def write(out: Path, made: dict, records: dict) -> None:
    """The table as JSON, CSV, Markdown; a page with the best, worst and a random scene."""
    write_table(out / "precision", made)
    parts = [_details(label, each) for label, each in records.items()]
    files.write_text(
        out / "precision.html",
        PAGE.format(title="Precision", body=results.Table(made)._repr_html_() + "".join(parts)),
    )


def write_table(path: Path, made: dict) -> None:
    """A table as path.json, path.csv (value, low and high of each column) and path.md."""
    table, lines = results.Table(made), io.StringIO()
    write = csv.writer(lines, lineterminator="\n").writerow
    write(["method"] + [f"{c}{end}" for c in table.columns for end in ("", " low", " high")])
    for row in made["rows"]:
        write([row["label"]] + [x for c in table.columns for x in row.get(c) or [None] * 3])
    results.save(made, path.with_suffix(".json"))
    files.write_text(path.with_suffix(".csv"), lines.getvalue())
    files.write_text(path.with_suffix(".md"), repr(table) + "\n")


def write_row(folder: Path, one: dict) -> None:
    """What is handed in of a method: row.json, and the pictures of its first scenes."""
    first = sorted(folder.glob("scene-*.png"))[:SHOWN]
    with files.replacing(folder / "sheet.png") as file:
        viz.sheet(first, columns=1).save(file, "PNG")
    results.save(one, folder / "row.json")


def scene_means(records: list[dict]) -> dict[str, list]:
    """{column: the mean of each scene's results, or None where it has none}."""
    columns = dict.fromkeys(column for record in records for column in record["outcomes"])
    return {c: [_mean(record["outcomes"].get(c, [])) for record in records] for c in columns}


def _mean(values):
    values = [v for v in values if v is not None]
    return sum(values) / len(values) if values else None


# HTML


def _details(label, records):
    """For each number of a method: the best scene, the worst and a random one."""
    parts = []
    for column, values in scene_means(records).items():
        order = [i for i, v in enumerate(values) if v is not None]
        if not order or column in ("parameters (M)", "side (pixels)"):
            continue
        best = next((best for part, best in BEST.items() if part in column), math.inf)
        order.sort(key=lambda i: abs(values[i] - best) if best < math.inf else -values[i])
        some = random.Random(f"{label}/{column}").choice(order)
        shown = {"best": order[0], "worst": order[-1], "random": some}
        if values[order[0]] == values[order[-1]]:
            shown = {"all alike": some}
        files_ = [Path(label) / f"scene-{records[i]['scene']:04d}.png" for i in shown.values()]
        said = [f"{word}: {values[i]:.3g}, {records[i]['prompt']}" for word, i in shown.items()]
        parts.append(figure(column, files_, said))
    return f"<h2>{html.escape(label)}</h2>" + "".join(parts)


def figure(title, paths, said):
    pictures = "".join(
        f'<figure><figcaption>{html.escape(word)}</figcaption><img loading="lazy" '
        f'alt="{html.escape(word)}" src="{quote(path.as_posix())}"></figure>'
        for path, word in zip(paths, said, strict=True)
    )
    return f"<details><summary>{html.escape(title)}</summary>{pictures}</details>"


PAGE = """<!doctype html><html lang="en"><meta charset="utf-8">
<meta name="viewport" content="width=device-width"><title>blendlab: {title}</title><style>
:root {{ color-scheme: light dark }}
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 1400px; margin: auto; padding: 1.5rem }}
figure {{ margin: .5rem 0 }} img {{ max-width: 100%; image-rendering: pixelated }}
</style><h1>{title}</h1><p>In each strip: the picture with its mask, the truth where there is one,
the results.</p>
{body}</html>
"""
