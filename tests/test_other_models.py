"""Lessons 03, 04, 05 and 07 on the layouts of Stable Diffusion 1.x, 2.x and SDXL: the same cells,
only `BLENDLAB_MODEL` differs.

The checkpoints are small and random (checkpoints.py), and few steps are taken. The CLIP that the
lessons would download is a small one from a folder. All cells run, in this process.
"""

import json
from pathlib import Path

import checkpoints
import matplotlib
import nbformat
import pytest
from IPython.core.inputtransformer2 import TransformerManager

from blendlab.course import page, runner
from blendlab.networks import clip

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"
LAYOUTS = ("sd1", "sd2", "sdxl")
CARD = {
    "settings": {
        "blended_latent": {"steps": 6},
        "reconstruct": {"weights": {"steps": 20}, "latents": {"steps": 4}},
    }
}
LESSONS = [path for number in ("03", "04", "05", "07") for path in NOTEBOOKS.glob(f"{number}_*")]
CASES = [(path, layout) for layout in LAYOUTS for path in LESSONS]
# Solutions repeat much of their lessons: one layout each.
CASES += [
    (NOTEBOOKS / "solutions" / path.name, layout)
    for path, layout in zip(LESSONS, (*LAYOUTS, LAYOUTS[-1]), strict=True)
]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """{layout: the folder of its checkpoint}, and the folder of a small CLIP."""
    made = {name: tmp_path_factory.mktemp(name) for name in (*LAYOUTS, "clip")}
    for layout in LAYOUTS:
        getattr(checkpoints, layout)(made[layout])
        (made[layout] / "blendlab.json").write_text(json.dumps(CARD))
    checkpoints.open_clip_folder(made["clip"])
    return made


@pytest.mark.parametrize(
    "path, layout", CASES, ids=[f"{page.place(path)}-{layout}" for path, layout in CASES]
)
def test_a_lesson_runs_on_a_checkpoint_of_this_layout(path, layout, folders, monkeypatch, capsys):
    load = clip.load_clip
    monkeypatch.setattr(clip, "load_clip", lambda device=None: load(folders["clip"], device=device))
    monkeypatch.setenv("BLENDLAB_MODEL", str(folders[layout]))
    matplotlib.use("agg")
    names: dict = {"__name__": "__main__"}
    for cell in runner.code(nbformat.read(path, as_version=4)):
        python = TransformerManager().transform_cell(cell.source.replace("steps=50", "steps=4"))
        exec(compile(python, f"{path.name}, cell {cell.id}", "exec"), names)

    assert str(names["pipe"].name_or_path) == str(folders[layout])
    if path in LESSONS:  # the cells that measure tinyworld say so and step aside
        assert "skipped: it measures tinyworld" in capsys.readouterr().out
