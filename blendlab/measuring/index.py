"""data/results/index.md: all saved tables on one page, by paper; an appendix to the notebooks.

`blendlab results index` writes it, and so does each table that is saved from the command line.
Nothing is measured here. Next: results.py.
"""

from .. import files
from . import exemplars, latent_blending, noise_editing, pixel_blending, results, sweeps, tables

METHODS = "All methods side by side, by the protocol of 2206.02779 (notebook 08)"
SECTIONS = {
    "Blended Diffusion, 2111.14818 (notebooks 01 and 02)": pixel_blending,
    "Blended Latent Diffusion, 2206.02779 (notebooks 03 to 05)": latent_blending,
    "Paint by Example, 2211.13227 (notebook 06)": exemplars,
    "Initial Image Editing, 2305.03382 (notebook 07)": noise_editing,
    "The networks, and edits in general (notebook 00)": tables,
    "How settings were chosen": sweeps,
}


def write() -> str:
    """Write the page of the tables that are saved; returns its text."""
    text = page()
    files.write_text(files.data() / "results" / "index.md", text)
    return text


def page() -> str:
    """The page as Markdown: of each table what it measures, n, intervals, command and date."""
    lines = [
        "# All measured tables",
        "",
        "The notebooks show the tables that a lesson needs. Here are all of them, by paper. "
        "Brackets hold 95% intervals; n says how many tasks, scenes, prompts or objects were "
        "measured.",
        "Class: the judge, a network that only measures, sees the kind of object that was asked "
        "for; class and colour: its colour as well.",
        "Background (dB): how near the picture outside the mask is to the source; 80 or more is "
        "the source itself.",
        "Written by `blendlab results index`; change a table with its command, not here.",
    ]
    sections = {title: _made_by(module) for title, module in SECTIONS.items()}
    for title, names in ({METHODS: results.ELSEWHERE} | sections).items():
        names = [name for name in names if results.saved(name)]
        lines += ["", f"## {title}"] if names else []
        for name in names:
            table = results.load(name)
            lines += ["", f"### {name}", "", repr(results.table(table)), "", _when(table)]
            lines += ["", f"![Figure of the table {name}]({name}.png)"] if "figure" in table else []
    return "\n".join(lines) + "\n"


def _made_by(module):
    """The names of the tables that a module measures, in its order."""
    return [name for name, recipe in results.TABLES.items()
            if recipe.function.__module__ == module.__name__]  # fmt: skip


def _when(table):
    versions = ", ".join(f"{package} {number}" for package, number in table["versions"].items())
    day = f"On {table['date']}" if "date" in table else "The date was not kept"
    return f"{day}, with {versions}. Networks: {', '.join(table['weights'])}."
