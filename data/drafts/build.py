"""Notebooks that wait for their tables, as text: `python data/drafts/build.py` writes them into notebooks/.

A line `%% md`, `%% code` or `%% setup` begins a cell. Each TODO-FIGURE becomes a sentence once the table above it is
made; then the notebook moves out of here.
"""

from pathlib import Path

import nbformat

HERE, THERE = Path(__file__).parent, Path(__file__).parents[2] / "notebooks"
NAMES = {"01": "01_clip_guidance", "02": "02_per_step_blending", "06": "06_exemplar_inpainting"}

like = nbformat.read(THERE / "05_mask_shrinking.ipynb", as_version=4)
for text in sorted(HERE.glob("*.txt")):
    nb = nbformat.v4.new_notebook(metadata={key: like.metadata[key] for key in ("kernelspec", "language_info")})
    for i, part in enumerate(("\n" + text.read_text()).split("\n%% ")[1:]):
        kind, _, source = part.partition("\n")
        new = nbformat.v4.new_markdown_cell if kind == "md" else nbformat.v4.new_code_cell
        nb.cells.append(new(like.cells[1].source if kind == "setup" else source.strip("\n"), id=f"c{i:02}"))
    folder = THERE / "solutions" if text.stem.endswith("s") else THERE
    nbformat.write(nb, folder / f"{NAMES[text.stem[:2]]}.ipynb")
