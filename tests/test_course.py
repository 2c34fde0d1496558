"""The notebook runner, on small notebooks that the tests write."""

import base64
import copy
import io
import signal
import threading
import time
from pathlib import Path

import nbformat
import pytest
from PIL import Image

from blendlab.course import page, runner

PICTURE = "from PIL import Image\nImage.new('RGB', (8, 8), 'red')"
WIDGET = """import ipywidgets as w
from IPython.display import display
from PIL import Image
out = w.Output()
with out:
    display(Image.new('RGB', (8, 8), 'blue'))
w.VBox([w.IntSlider(), out])"""
PANEL = """import ipywidgets as w
from PIL import Image
from blendlab.course.widgets import MaskPainter, panel
def play(mask, share):
    return Image.blend(Image.new('RGB', (8, 8), 'red'), Image.new('RGB', (8, 8), 'blue'), share)
panel(play, {"mask": MaskPainter(Image.new("RGB", (8, 8))), "share": w.FloatSlider(1)},
      label="A blue square")"""
HIDDEN = """import ipywidgets as w
def f(a): 1 / 0
w.interact(f, a=3);"""
FAILS = "raise ValueError('the reason')"


def write(folder: Path, name: str, *cells: str) -> Path:
    """A notebook whose cells are code, or text where they start with #."""
    text, code = nbformat.v4.new_markdown_cell, nbformat.v4.new_code_cell
    made = [text(cell) if cell.startswith("#") else code(cell) for cell in cells]
    (folder / "notebooks").mkdir(exist_ok=True)
    nbformat.write(nbformat.v4.new_notebook(cells=made), folder / "notebooks" / name)
    return folder / "notebooks" / name


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("course")
    bar = "import sys; sys.stderr.write('half\\rdone\\n')"
    done = runner.execute(
        write(folder, "00_good.ipynb", "# A *title*", PICTURE, "## Widget", WIDGET, bar, PANEL)
    )
    runner.tidy(done.notebook)
    return done


def test_side_by_side_they_come_back_in_order(tmp_path, monkeypatch):
    monkeypatch.setattr(runner.os, "cpu_count", lambda: 2)
    late = "import os, time; time.sleep(2); print(os.environ['OMP_NUM_THREADS'])"
    paths = [
        write(tmp_path, "1.ipynb", late),
        write(tmp_path, "2.ipynb", FAILS),
        write(tmp_path, "3.ipynb", PICTURE),
    ]
    runs = list(runner.execute_all(paths))
    assert [run.path for run in runs] == paths and [len(run.problems) for run in runs] == [0, 1, 0]
    assert runs[0].notebook.cells[0].outputs[0].text == "1\n"  # a core for each


def test_a_run_says_what_failed(tmp_path):
    done = runner.execute(write(tmp_path, "bad.ipynb", PICTURE, FAILS, PICTURE))
    assert (
        len(done.problems) == 1
        and "the reason" in done.problems[0]
        and "bad.ipynb" in done.problems[0]
    )


def test_an_error_hidden_in_a_widget_is_found(tmp_path):
    (problem,) = runner.execute(write(tmp_path, "hidden.ipynb", HIDDEN)).problems
    assert "ZeroDivisionError" in problem


def test_a_tidy_notebook_shows_pictures_where_widgets_were(executed):
    assert not executed.problems
    nb = executed.notebook
    nbformat.validate(nb)
    assert set(nb.metadata) == {"kernelspec", "language_info", "blendlab"}
    for cell in (3, 5):  # of a panel its result, not the picture that is painted on
        (output,) = nb.cells[cell].outputs
        picture = Image.open(io.BytesIO(base64.b64decode(output["data"]["image/png"])))
        assert picture.convert("RGB").getpixel((0, 0)) == (0, 0, 255)
    assert output["metadata"]["image/png"]["alt"] == "A blue square: share 1"
    assert nb.cells[4].outputs[0]["text"] == "done\n"
    said = [nb.cells[i].outputs[0].metadata["image/png"]["alt"] for i in (1, 3)]
    assert said == ["A figure of the section A title", "A figure of the section Widget"]


def test_a_widgets_picture_is_told_by_its_label_or_its_tooltip():
    file = io.BytesIO()
    Image.new("RGB", (8, 8), "blue").save(file, "PNG")
    png = base64.b64encode(file.getvalue()).decode()
    for key in ("label", "tooltip"):
        inner = {"_model_name": "ImageModel", key: "A blue square"}
        buffers = [{"path": ["value"], "data": png}]
        (output,) = runner.shown("a", {"a": {"state": inner, "buffers": buffers}})
        assert output.metadata["image/png"]["alt"] == "A blue square"


def test_outputs_are_stale_when_code_changed_and_fresh_when_text_did(executed):
    nb = copy.deepcopy(executed.notebook)
    nb.cells[0].source += ", better worded"
    assert runner.fresh(nb)
    nb.cells[1].source += " "
    assert not runner.fresh(nb)


def test_the_page_holds_every_picture_under_its_heading(executed):
    sections = page.pictures(executed.notebook)
    assert [(heading, len(images)) for heading, images in sections] == [
        ("A title", 1),
        ("Widget", 2),
    ]
    text = page.page([executed])
    assert text.count("<img") == 3 and "http" not in text and "<h2>A title</h2>" in text


def test_one_command_leaves_notebooks_and_a_page_and_keeps_going(tmp_path, capsys):
    paths = [
        write(tmp_path, "00_bad.ipynb", FAILS),
        write(tmp_path, "01_good.ipynb", "# Good", PICTURE),
    ]
    before = paths[0].read_bytes()
    assert runner.run(paths, tmp_path / "out", save=False) == 1
    assert (tmp_path / "out/notebooks/01_good.ipynb").exists() and paths[0].read_bytes() == before
    assert "the reason" in (tmp_path / "out/index.html").read_text()
    assert "1 of 2 notebooks ran" in capsys.readouterr().out


def test_names_that_are_no_notebooks_are_refused_and_its_own_folder_will_do(
    tmp_path, capsys, monkeypatch
):
    good = write(tmp_path, "00_good.ipynb", PICTURE)
    monkeypatch.chdir(good.parent)
    assert not runner.execute(Path(good.name)).problems
    Path("torn.ipynb").write_text('{"cells": [')
    for name in ("01_good.ipynb", "README.md", "torn.ipynb"):
        with pytest.raises(SystemExit, match=f"{name} is no notebook"):
            runner.main([Path(name)])


def test_an_interrupt_ends_the_kernels_too(tmp_path):
    slow = write(tmp_path, "00_slow.ipynb", "import time\ntime.sleep(60)")
    until, began = time.monotonic() + 30, time.monotonic()

    def interrupt():
        while not runner.RUNNING and time.monotonic() < until:
            time.sleep(0.1)
        time.sleep(3)  # until the cell runs
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        list(runner.execute_all([slow]))
    signal.signal(signal.SIGINT, before)
    assert time.monotonic() - began < 50 and not runner.RUNNING


def test_saving_in_place_makes_a_notebook_fresh_and_keeps_the_old_one_on_failure(tmp_path):
    good, bad = write(tmp_path, "00_good.ipynb", PICTURE), write(tmp_path, "01_bad.ipynb", FAILS)
    before = bad.read_bytes()
    assert runner.stale([good, bad]) == 2
    runner.run([good, bad], tmp_path / "out", save=True)
    assert (
        runner.stale([good, bad]) == 1
        and bad.read_bytes() == before
        and not (tmp_path / "out").exists()
    )


def test_many_large_pictures_are_kept_in_256_colours(tmp_path, monkeypatch):
    noisy = "import os\nfrom PIL import Image\nImage.frombytes('RGB', (64, 64), os.urandom(64 * 64 * 3))"  # noqa: E501
    monkeypatch.setattr(runner, "LARGEST", 10_000)
    nb = runner.tidy(runner.execute(write(tmp_path, "large.ipynb", noisy)).notebook)
    png = base64.b64decode(nb.cells[0].outputs[0].data["image/png"])
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    assert len(png) < 10_000 and picture.size == (64, 64) and len(picture.getcolors(64 * 64)) <= 256
