"""The Play cells of the notebooks, headless: each with the lines before it that it needs, and few
steps.
"""

import builtins
import runpy
import threading
from dataclasses import replace
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
from PIL import Image

import blendlab as bl
from blendlab import reader
from blendlab.course import widgets
from blendlab.course.widgets import needs
from blendlab.schedule import Schedule

ROOT = Path(__file__).parent.parent
STEPS = 6  # levels of every walk: enough for four stages of a mask
FEWER = {
    "n=8": "n=2",
    "n=4": "n=2",
    "range(8)": "range(2)",
    "expand(8,": "expand(2,",
    '"usual", 32': '"usual", 2',
    "IntSlider(25": "IntSlider(5",
}


@pytest.fixture(scope="module")
def shell():
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Config

    shell = InteractiveShell.instance(config=Config(HistoryManager={"enabled": False}))
    yield shell
    InteractiveShell.clear_instance()
    builtins.__dict__.pop("get_ipython", None)


def fewer(source):
    for many, few in FEWER.items():
        source = source.replace(many, few)
    return source


@pytest.fixture
def few_steps(monkeypatch):
    monkeypatch.setattr(reader, "NOISES", 2)
    whole = Schedule.timesteps

    def timesteps(self, steps, *args, **kwargs):
        return whole(self, min(steps, STEPS), *args, **kwargs)

    monkeypatch.setattr(Schedule, "timesteps", timesteps)


def played(shell, name):
    """The panels of a notebook's section Play."""
    (path,) = (ROOT / "notebooks").glob(f"{name}_*.ipynb")
    cells = nbformat.read(path, as_version=4).cells
    (at,) = [i for i, cell in enumerate(cells) if "## Play" in cell.source]
    before, play = [
        [shell.transform_cell(fewer(cell.source)) for cell in part if cell.cell_type == "code"]
        for part in (cells[:at], cells[at:])
    ]
    shell.reset()
    panels = []
    for cell in [needs.lines("\n".join(play), before), *play]:
        done = shell.run_cell(cell, store_history=True)
        done.raise_error()
        panels += [done.result] if isinstance(done.result, widgets.Panel) else []
    return panels


def saved(panel, folder):
    """The picture that the saved lines of Python make in a namespace of their own."""
    return runpy.run_path(str(panel.save(folder) / "remake.py"), run_name="__main__")["picture"]


@pytest.mark.parametrize("name", ["01", "02", "03", "04", "05", "06", "07"])
def test_what_a_play_cell_saves_makes_its_picture_again(name, shell, few_steps, tmp_path):
    (panel,) = played(shell, name)
    assert panel._viewer.before and (panel.frames or name == "04")
    assert saved(panel, tmp_path / "edit").tobytes() == panel.result.tobytes()
    if name == "06":
        mine = Image.effect_noise((panel.controls["own"].size), 90).convert("RGB")
        panel.controls["own"].value = mine  # as an upload of this size does
        panel.controls["kind"].value = "own picture"
        panel.wait()
        assert panel.values["own"] == mine and not panel.error
        assert saved(panel, tmp_path / "own").tobytes() == panel.result.tobytes()
    if name == "07":
        placed, picker = panel.result, panel.controls["cells"]
        picker.cells = np.indices(picker.shape)[0] < 2
        panel.wait()
        assert panel.result != placed and panel.frames and not panel.error


def test_a_number_of_the_last_notebook_opens_its_pictures(shell, few_steps):
    look, _ = played(shell, "08")
    first, picker = look.result, look.controls["cell"]
    picker.value = ("the truth", "light off")
    look.wait()
    assert not look.error and look.result.tobytes() != first.tobytes()
    assert look.result.alt.startswith("light off: 0.00; light off: 0.00")


# The lines that a function needs

CELLS = [
    "import torch, os\nfrom math import pi as number",
    "image, other = [1, 2], [3]\nhow = {}\nprint(image)",
    "how |= {'w': number}\nimage.append(3)\nimage[0] = 5\nother.append(4)\ntorch.sum(image)",
    "this is no Python",
    "def helped(x, *, other=1):\n    return [x + factor for x in image]\nfactor = 1",
    "factor = 2\nif number > 3:\n    late = how\nunused = helped(1)",
    "@staticmethod\ndef play(x):\n    step = late\n    return helped(x), step",
]


def test_only_the_lines_that_a_function_needs_are_saved():
    found = needs.lines(CELLS[-1], CELLS[:-1])
    assert found == "\n".join(
        [
            "from math import pi as number",
            "image, other = [1, 2], [3]",
            "how = {}",
            "how |= {'w': number}",
            "image.append(3)",
            "image[0] = 5",
            "def helped(x, *, other=1):\n    return [x + factor for x in image]",
            "factor = 1",
            "factor = 2",
            "if number > 3:\n    late = how",
        ]
    )
    names = {}
    exec(found, names)
    assert names["helped"](0) == [7, 4, 5] and names["late"] == {"w": names["number"]}


# The film


def walk(n=1):
    schedule = Schedule.scaled_linear()
    x, halved = torch.ones(n, 3, 8, 8), lambda x, t: bl.Prediction(x0_hat=x / 2)
    for step in bl.sample(halved, x, schedule, schedule.timesteps(4)):
        step.x = step.x * 0 + step.i
    return bl.Edit(step.x, settings={"n": n, "order": [0]})


def test_statements_on_one_line_are_saved_once_each():
    assert needs.lines("items", ["items = [1]", "items.append(2); size = len(items)"]) == (
        "items = [1]\nitems.append(2)"
    )


def test_a_film_holds_the_steps_as_the_loop_left_them_and_only_its_own():
    walk()
    with widgets.filmed() as film:
        edit = walk()
        with widgets.filmed() as inner:
            walk()
        other = threading.Thread(target=walk)
        other.start()
        other.join()
    walk()
    assert [step.i for step in film] == [step.i for step in inner] == [0, 1, 2, 3]
    assert all(torch.equal(step.x, torch.full((1, 3, 8, 8), float(step.i))) for step in film)
    frames = list(widgets.scrub(film, edit))
    assert [done for done, _ in frames] == [0, 0.25, 0.5, 0.75]
    assert torch.equal(frames[1][1], film[1].x0_hat)
    assert widgets.result(widgets.scrub(film, edit)) == edit.images[0]


def test_a_film_of_an_edit_in_a_window_shows_the_whole_picture():
    pipe = bl.load("tinyworld")
    image = bl.world.render(bl.world.sample(1, seed=4), 128).image
    mask = bl.masks.from_box((0.6, 0.6, 0.9, 0.9), (128, 128))
    with widgets.filmed() as film:
        edit = bl.blended_latent(pipe, image, mask, "a red ball", window=64, steps=3)
    assert film[0].x.shape[-2:] == (16, 16)
    frames = [picture for _, picture in widgets.scrub(film, edit, pipe.vae)]
    assert len(frames) == len(film)
    for picture in frames:
        assert picture.shape == image.shape
        far, near = (
            (picture - edit.tensor)[..., part, part].abs().mean()
            for part in (slice(0, 32), slice(80, 112))
        )
        assert far < 0.05
    first = (frames[0] - edit.tensor)[..., 80:112, 80:112].abs().mean()
    assert first > near  # the estimates change inside the mask, and come to the edit


def test_a_film_in_batches_is_refused_with_the_fix():
    with widgets.filmed() as film:
        edit = walk()
    edit.settings["n"] = 2
    with pytest.raises(ValueError, match="leave batch= out"):
        list(widgets.scrub(film, edit))
    twice = [replace(step, x=torch.cat([step.x, step.x])) for step in film]  # as of reword
    edit.settings["n"] = 1
    with pytest.raises(ValueError, match="after reword keep the last n rows"):
        list(widgets.scrub(twice, edit))
