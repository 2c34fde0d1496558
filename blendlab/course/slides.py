"""Slides of a notebook: reveal.js in one file, and a PDF of it, with a lecturer's notes.

The text of a notebook is cut into slides; of its code only what is to be written is shown, of the
rest the pictures. A cell with the tag `skip` is left out, one with `code` shows its code. Equations
are MathML, and reveal.js travels inside, so a lecture needs no network. No paper. Next: pack.py.
"""

import os
import re
import shutil
from copy import deepcopy
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

WORDS, BESIDE = 110, 45  # of a slide, and of one that also has a picture
ANSWER = re.compile(r"<details><summary>Answer</summary>\n*(.*?)\n*</details>\n?", re.S)
SOLUTIONS = r"(?:Solutions: `solutions/|\[Solutions\]\()[^\n]*\n+"  # the line that leads to them
HINTS = re.compile(rf"<details>.*?</details>\n?|{SOLUTIONS}", re.S)
MATH = re.compile(r"\$\$(.+?)\$\$|\$([^$\n]+?)\$", re.S)
LEAD = re.compile(r"(?m)^\*\*(?!Predict)([A-Z][^*]+?)[.:]?\*\*")  # what a paragraph is about
# The sign of t' is a raised one: as a power it would be a dot.
PRIME = re.compile(r"<msup>(<mi>[^<]*</mi>)(<mi>&#x02032;</mi>)</msup>")
SKIPPED = ("Play",)  # sections that are for the keyboard

TEMPLATE = """{%- extends 'index.html.j2' -%}
{%- block html_head_js -%}{%- endblock -%}
{%- block html_head_js_mathjax -%}{%- endblock -%}
{%- block html_head_css -%}<style>
.reveal .slides { text-align: left }
.reveal h1, .reveal h2, .reveal h3 { text-transform: none !important; margin: 0 0 .5em !important }
.reveal h1, .reveal h2, .reveal h3 { font-size: 1.3em !important }
.reveal .slides img { width: 100% !important; height: auto !important; max-height: 500px !important;
  object-fit: contain; object-position: left }
.reveal .jp-InputPrompt, .reveal .jp-OutputPrompt { display: none }
.reveal table { font-size: .8em }
.reveal math { font-size: 1.15em }
</style>{%- endblock -%}
{%- block footer_js -%}<script>
Reveal.initialize({ controls: true, progress: true, hash: true, slideNumber: "c/t", width: 1100,
  height: 760, transition: "none", plugins: [RevealNotes], pdfMaxPagesPerSlide: 1 });
</script>{%- endblock -%}"""


def write(nb, notes: dict[str, str], file: Path) -> list[str]:
    """Write the slides and their PDF; what is missing for them, in sentences."""
    needed = ("nbconvert", "latex2mathml", "sphinx-revealjs")
    absent = [name for name in needed if find_spec(name.replace("-", "_")) is None]
    if absent:
        return [f"No slides: {', '.join(absent)} is missing; pip install 'blendlab[lectures]'."]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(html(shown(nb, notes)), encoding="utf-8")
    return printed(file)


def html(nb) -> str:
    """One page with everything inside."""
    from nbconvert import SlidesExporter
    from traitlets.config import Config

    nb = deepcopy(nb)
    formulas: list[str] = []
    for cell in nb.cells:
        if cell.cell_type == "markdown":
            cell.source = MATH.sub(lambda found: held(found, formulas), cell.source)
    hide = Config(TagRemovePreprocessor={"enabled": True, "remove_input_tags": {"shown"}})
    look = dict(raw_template=TEMPLATE, embed_images=True, reveal_theme="white")
    exporter = SlidesExporter(config=hide, **look)
    body, _ = exporter.from_notebook_node(nb)
    body = re.sub("\ue000(\\d+)\ue001", lambda found: formulas[int(found[1])], body)
    for name in ("dist/reveal.css", "dist/theme/white.css"):
        style = re.sub(r"@import url\([^)]*\);?", "", revealjs(name))
        (link,) = re.findall(rf'<link [^>]*href="[^"]*{name}"[^>]*>', body)
        body = body.replace(link, f"<style>{style}</style>")
    inline = ""
    for name in ("dist/reveal.js", "plugin/notes/notes.js"):
        script = revealjs(name).replace("</script", "<\\/script")
        inline += f"<script>{script}</script>"
    return body.replace("<script>\nReveal.init", f"{inline}<script>\nReveal.init")


def revealjs(name: str) -> str:
    """A file of reveal.js, as it comes with sphinx-revealjs."""
    return (files("sphinx_revealjs") / "_static" / "revealjs" / name).read_text("utf-8")


def held(found, formulas: list[str]) -> str:
    """A sign that stands for an equation, which Markdown must not read."""
    from latex2mathml.converter import convert

    kind = "block" if found[1] else "inline"
    formula = convert(" ".join((found[1] or found[2]).split()), display=kind)
    formulas.append(PRIME.sub(r"<mrow>\1\2</mrow>", formula))
    return f"\ue000{len(formulas) - 1}\ue001"


def printed(file: Path) -> list[str]:
    """Print slides to a PDF with Chromium."""
    program = chromium()
    if not (find_spec("playwright") and program):
        return ["No PDF: it needs playwright (pip install playwright) and Chromium."]
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        page = browser.new_page()
        page.set_default_timeout(300_000)  # milliseconds; a busy machine opens a deck slowly
        page.goto(f"{file.resolve().as_uri()}?print-pdf")
        page.wait_for_selector(".pdf-page")
        page.pdf(path=file.with_suffix(".pdf"), prefer_css_page_size=True, print_background=True)
        browser.close()
    return []


def chromium() -> str | None:
    """Where Chromium is: what the variable CHROMIUM says, else what is installed."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)


# What is on a slide


def shown(nb, notes: dict[str, str]):
    """The notebook as slides: its cells cut, in order, with notes; notes: {section: text}."""
    cells: list = []
    section, lead = "", ""
    for cell in nb.cells:
        tags = cell.metadata.get("tags", [])
        if cell.cell_type == "markdown":
            for title, text in parts(cell.source):
                section, lead = (title, title) if title else (section, lead)
                made = [] if section in SKIPPED or "skip" in tags else told(title, lead, text)
                for one in made:
                    one["attachments"] = cell.get("attachments", {})
                cells += made
                if title in notes:
                    cells.append(slide("notes", notes[title]))
            lead = ([lead] + LEAD.findall(cell.source))[-1]
        elif section not in SKIPPED and "skip" not in tags:
            cells += drawn(cell, lead, "code" in tags, has_room(cells))
    made = deepcopy(nb)
    made.cells = cells
    return made


def parts(text: str) -> list[tuple[str, str]]:
    """(title, text) of each section of a cell; text before the first heading has no title."""
    pieces = re.split(r"(?m)^#+ (.*)$", text)
    found = [("", pieces[0]), *zip(pieces[1::2], pieces[2::2], strict=True)]
    return [(title, body) for title, body in found if title or body.strip()]


def told(title: str, lead: str, text: str) -> list:
    """Slides of a section's text; the answers to its questions are notes."""
    answers = ANSWER.findall(text)
    text = re.sub(r":\n\n", ":\n\v\n", HINTS.sub("", ANSWER.sub("", text)))
    blocks = text.split("\n\n")  # what ends with a colon stays with what follows
    blocks = [block.strip() for block in blocks if block.strip()]
    pages: list[list[str]] = [[]]
    room = WORDS
    for block in blocks:
        words = weight(block)
        if pages[-1] and words > room:
            pages.append([])
            room = WORDS
        pages[-1].append(block)
        room -= words
    cells = []
    for k, page in enumerate(pages):
        first = title and k == 0
        own = LEAD.match("".join(page[:1]))  # its own subject, not that of the paragraph before
        head = f"## {title}" if first else f"### {own[1] if own else title or lead}"
        text = "\n\n".join([head, *page]).replace("\v", "")
        cells.append(slide("slide" if first else "subslide", text))
    return cells + [slide("notes", f"*Answer.* {answer}") for answer in answers]


def weight(block: str) -> int:
    """How many words a block takes the room of."""
    if block.startswith("|"):
        return 13 * (len(block.splitlines()) - 2)
    return 25 if block.startswith("$$") else 20 if block.startswith("![") else len(block.split())


def has_room(cells: list) -> bool:
    """Whether the slide that ends here has little text, and no question, so that a picture fits."""
    last = next((cell for cell in reversed(cells) if kind(cell) != "notes"), None)
    if last is None or last.cell_type == "code":
        return False
    return weight(last.source) <= BESIDE and not re.search(
        r"\*\*Predict|!\[|\$\$|\n\|", last.source
    )


def drawn(cell, lead: str, code: bool, room: bool) -> list:
    """A slide of a cell's pictures, or of its code where that is to be written or asked for."""
    import nbformat

    outputs = [o for o in cell.outputs if o.output_type != "stream" and not plain(o)]
    outputs = outputs or [o for o in cell.outputs if o.get("name") == "stdout" and short(o)]
    code = code or "exercises.attempt(" in cell.source
    if "import blendlab as bl\n" in cell.source or not (code or outputs):
        return []
    made = nbformat.v4.new_code_cell(cell.source, outputs=outputs)
    made.metadata["tags"] = [] if code else ["shown"]
    title = f"### {lead}: one solution" if code else f"### {lead}"
    return [made] if room and not code else [slide("subslide", title), made]


def plain(output) -> bool:
    kinds = output.get("data", {})
    return not any(kind.startswith("image/") or kind == "text/html" for kind in kinds)


def short(output) -> bool:
    return 1 < len(output.text.splitlines()) <= 12


def slide(kind: str, text: str):
    import nbformat

    cell = nbformat.v4.new_markdown_cell(text)
    cell.metadata["slideshow"] = {"slide_type": kind}
    return cell


def kind(cell) -> str:
    return cell.metadata.get("slideshow", {}).get("slide_type", "-")


# What the page for lecturers says


def notes(page: str, name: str) -> dict[str, str]:
    """{section: what to say} of a notebook, out of the tables of for_lecturers.md."""
    number = name[:2]
    about = re.split(r"(?m)^## ", page)
    rows: list[list[str]] = []
    for part in about:
        if part.startswith(number):
            lines = [line for line in part.splitlines() if line.startswith("| ")]
            rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[1:]]
    return {row[0]: f"Minutes: {row[1]}. {row[2]}" for row in rows if len(row) == 3}
