"""Writes the source of the site: what the repository already says, put where Sphinx finds it.

Folders keep their places (notebooks/, data/), so that links between them hold. Text that only the
site has is in pages/. Next: conf.py.
"""

import ast
import json
import re
import shutil
import textwrap
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent
BADGE = re.compile(r"\[!\[Open In Colab\]\([^)]*\)\]\(([^)]*)\)")
# What scrolls, and what makes keys reach it: tables of notebooks, and those of Markdown.
REGION = ' tabindex="0" role="region" aria-label="Table of measurements"'
SCROLLS = {'<div style="overflow-x:auto"': REGION, '<table class="table"': ' tabindex="0"'}
# The pages of the API: the title, and the modules in the order of their names below each place.
WINGS = {
    "core": ("The core: the loop and what it is made of", "*.py"),
    "papers": ("Papers", "papers/*.py"),
    "networks": ("Networks", "networks/*.py"),
    "world": ("tinyworld, the world", "world/*.py"),
    "measuring": ("Measuring", "measuring/*.py"),
    "training": ("Training", "training/*.py"),
    "course": ("The course's own tools", "course/**/*.py"),
}


def write(source: Path, modules: Path):
    """Fill the folder `source` anew; `modules` holds the npm packages."""
    shutil.rmtree(source, ignore_errors=True)
    shutil.copytree(HERE / "pages", source)
    shutil.copy(HERE / "conf.py", source)
    shutil.copytree(ROOT / "data" / "pictures", source / "data" / "pictures")
    (source / "data" / "results").mkdir()
    for pattern in ("index.md", "*.png"):
        for path in (ROOT / "data" / "results").glob(pattern):
            shutil.copy(path, source / "data" / "results")
    for name in ("MODEL_CARD.md", "phenomena.md"):
        shutil.copy(ROOT / "data" / name, source / "data")
    (source / "_static" / "mathjax").mkdir(parents=True)
    shutil.copy(modules / "mathjax" / "es5" / "tex-svg-full.js", source / "_static" / "mathjax")
    for name in ("site.css", "icon.svg"):
        shutil.copy(HERE / name, source / "_static")

    for path in sorted((ROOT / "notebooks").glob("**/*.ipynb")):
        notebook(path, source / path.relative_to(ROOT))
    for name in ("paper_and_code.md", "for_lecturers.md"):
        shutil.copy(ROOT / "notebooks" / name, source / "notebooks")
    for name, text in {"lessons": lessons(), "times": times()}.items():
        page = source / f"{name}.md"
        page.write_text(page.read_text().replace("<!-- made -->", text), encoding="utf-8")
    (source / "api").mkdir()
    for name, (title, pattern) in WINGS.items():
        (source / "api" / f"{name}.md").write_text(api(title, pattern), encoding="utf-8")


def notebook(path: Path, to: Path):
    """A notebook as it was saved; pictures that say nothing get the heading above as their text."""
    book = json.loads(path.read_text(encoding="utf-8"))
    heading = ""
    for cell in book["cells"]:
        text = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            heading = ([heading] + re.findall(r"(?m)^#+ (.*)", text))[-1]
            # The badge is a picture from elsewhere, so a link says it.
            cell["source"] = BADGE.sub(r"[Open this notebook in Colab](\1)", text)
        elif shown := [o for o in cell["outputs"] if "image/png" in o.get("data", {})]:
            told = [o["metadata"].get("image/png", {}).get("alt", "") for o in shown]
            alt = "; ".join(filter(None, told)) or f"Output of the code in the section {heading}"
            cell["metadata"] |= {"mystnb": {"image": {"alt": alt}}}
    to.parent.mkdir(parents=True, exist_ok=True)
    to.write_text(json.dumps(book), encoding="utf-8")


def reachable(html: Path):
    """Let keys reach what scrolls on the built pages."""
    for page in html.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        for start, more in SCROLLS.items():
            text = text.replace(start + ">", start + more + ">")
        page.write_text(text, encoding="utf-8")


def lessons() -> str:
    """The README's table of notebooks."""
    lines = (ROOT / "README.md").read_text().splitlines()
    first = lines.index("| notebook | teaches | package | source |")
    return "\n".join(line for line in lines[first:] if line.startswith("|"))


def times() -> str:
    """What each notebook says it takes, and the measured seconds of an edit."""
    rows = []
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        first = "".join(json.loads(path.read_text())["cells"][0]["source"])
        said = re.search(r"\w+\s+minutes?\s+on\s+[^.;]*\s+memory", first)[0]
        rows.append(f"| [](notebooks/{path.name}) | {' '.join(said.split())} |")
    bench = (ROOT / "bench" / "README.md").read_text().split("\n\n")
    tables = [part for part in bench if part.startswith("| A / B | ratio")]
    table = ["| notebook | takes |", "|---|---|", *rows]
    edit = (
        "How long an edit takes, as a ratio of two times: 1.03 says that A takes 3% longer than B."
    )
    return "\n".join([*table, "", "## An edit", "", edit, "", *tables, "", downloads()])


def downloads() -> str:
    """The checkpoints that blendlab knows by name, and their sizes."""
    from blendlab.cards import KNOWN

    rows = [
        f"| `{name}` | {known.gigabytes} GB | {2 * known.gigabytes:.1f} GB | {known.size} |"
        for name, known in KNOWN.items()
    ]
    heads = "| model | to download, half precision | in single precision | picture's side |"
    return "\n".join(["## Larger models", "", heads, "|---|---|---|---|", *rows])


def api(title: str, pattern: str) -> str:
    """A page of the API, from docstrings and signatures; nothing is imported."""
    parts = [f"# {title}"]
    for path in sorted((ROOT / "blendlab").glob(pattern)):
        tree = ast.parse(path.read_text())
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        members = [found for node in tree.body for found in described(node)]
        if path.name in ("__main__.py", "cli.py") or "exercises" in path.parts or not members:
            continue
        parts += [
            f"## {name}",
            prose(ast.get_docstring(tree)),
            f"```{{py:currentmodule}} {name}\n```",
        ]
        parts += members
    return "\n\n".join(parts) + "\n"


def described(node, indent="") -> list[str]:
    """A public function, or a class with its public methods, as a directive."""
    kinds = {ast.FunctionDef: "function", ast.ClassDef: "class"}
    doc = kinds.get(type(node)) and ast.get_docstring(node)
    if not doc or node.name.startswith("_"):
        return []
    if isinstance(node, ast.FunctionDef):
        arguments = " ".join(ast.unparse(node.args).split())
        return [f"````{{py:function}} {node.name}({arguments})\n{prose(doc)}\n````"]
    methods = [one for one in node.body if isinstance(one, ast.FunctionDef)]
    for one in methods:
        one.args.args = one.args.args[1:]  # self
    inner = [text.replace("py:function", "py:method") for one in methods for text in described(one)]
    body = "\n\n".join([prose(doc), *inner])
    return [f"`````{{py:class}} {node.name}\n{body}\n`````"]


def prose(doc: str) -> str:
    """A docstring as Markdown: sentences, and as they stand its examples and lists of arguments."""
    parts = []
    for part in re.split(r"\n\s*\n", doc):
        first, *rest = part.splitlines()
        listed = re.match(r"[\w, ()]+:\s", first) and any(line.startswith("  ") for line in rest)
        if first.startswith(" ") or listed or any(line.startswith("    ") for line in rest):
            parts.append(f"```text\n{textwrap.dedent(part)}\n```")
        else:
            parts.append(re.sub(r"(`[^`]*`)|([*_\[\]<>|#$])", lambda m: m[1] or "\\" + m[2], part))
    return "\n\n".join(parts)
