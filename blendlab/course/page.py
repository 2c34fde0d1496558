"""The page of pictures that `make run` leaves: all pictures of the notebooks, under their headings.

Pictures only: nbconvert writes whole notebooks. No paper. Next: runner.py, which executes them.
"""

import base64
import html
import re
import time
from pathlib import Path


def page(runs: list) -> str:
    """One self-contained HTML page: every picture of every notebook under its heading."""
    parts, links = [], []
    for run in runs:
        texts = [cell.source for cell in run.notebook.cells if cell.cell_type == "markdown"]
        title = html.escape(next((h for text in texts for h in headings(text)), run.path.stem))
        trouble = f"<pre>{html.escape(plain(run.problems[0]))}</pre>" if run.problems else ""
        figures = "".join(
            f"<figure><figcaption>{html.escape(heading)}</figcaption>"
            + "".join(f'<img alt="{html.escape(heading)}" src="{image}">' for image in images)
            + "</figure>"
            for heading, images in pictures(run.notebook)
        )
        links.append(f'<a href="#{place(run.path)}">{title}</a>')
        parts.append(
            f'<section id="{place(run.path)}"><h2>{title}</h2>{trouble}'
            f"<p>{place(run.path)}, executed in {run.seconds:.0f} s</p><div>{figures}</div></section>"
        )
    return PAGE.format(
        links="".join(links), sections="".join(parts), date=time.strftime("%d %B %Y")
    )


def pictures(nb) -> list[tuple[str, list[str]]]:
    """(heading, data addresses of the pictures below it), without headings that have no picture."""
    sections: list[tuple[str, list[str]]] = [("", [])]
    for cell in nb.cells:
        if cell.cell_type == "markdown":
            sections += [(heading, []) for heading in headings(cell.source)]
        for output in cell.get("outputs", []):
            images = {k: v for k, v in output.get("data", {}).items() if k.startswith("image/")}
            sections[-1][1].extend(address(kind, data) for kind, data in images.items())
    return [(heading, images) for heading, images in sections if images]


def headings(text: str) -> list[str]:
    return [
        re.sub("[*`]", "", line.lstrip("# ")) for line in text.splitlines() if line.startswith("#")
    ]


def address(kind: str, data: str) -> str:
    data = (
        base64.b64encode(data.encode()).decode()
        if kind == "image/svg+xml"
        else data.replace("\n", "")
    )
    return f"data:{kind};base64,{data}"


def place(path: Path) -> str:
    """Where the notebook at path lies in the repository."""
    folder = "solutions/" if path.resolve().parent.name == "solutions" else ""
    return f"notebooks/{folder}{path.name}"


def plain(text: str) -> str:
    """Text without a terminal's colour codes."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


PAGE = """<!doctype html><html lang="en"><meta charset="utf-8">
<meta name="viewport" content="width=device-width"><title>blendlab: the pictures of the course</title><style>
:root {{ color-scheme: light dark; --line: #8884; --soft: #8881 }}
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 0 auto; padding: 1.5rem }}
h1 {{ margin-bottom: 0 }} h2 {{ margin: 0 }}
section {{ border-top: 1px solid var(--line); padding: 1.5rem 0 }}
p {{ margin: .2rem 0 1rem; opacity: .7 }} pre {{ overflow-x: auto; color: #c22 }}
nav {{ display: flex; flex-wrap: wrap; gap: .3rem 1.2rem; margin: 1rem 0 }} nav a {{ color: inherit }}
div {{ display: flex; flex-wrap: wrap; gap: 1rem; align-items: flex-start }}
figure {{ margin: 0; padding: .8rem; background: var(--soft); border-radius: .6rem; max-width: 100% }}
figcaption {{ font-size: .9rem; font-weight: 600; margin-bottom: .4rem }}
img {{ display: block; max-width: 100%; margin-top: .4rem; border-radius: .3rem; background: #fff }}
</style><h1>blendlab</h1><p>The pictures of the course, made on {date}</p><nav>{links}</nav>{sections}</html>
"""
