"""Every notebook is executed, once; what is committed is checked: outputs fresh, small and of no
machine.
"""

import base64
import functools
import re
from pathlib import Path

import lab
import nbformat
import pytest
from test_repository import HOSTS, MACHINE

from blendlab.course import page, runner

ROOT = Path(__file__).parent.parent
PATHS = runner.notebooks(ROOT / "notebooks")
every_notebook = pytest.mark.parametrize("path", PATHS, ids=[page.place(path) for path in PATHS])

# The shape of a lesson holds for all that students open.
LESSONS = [path for path in PATHS if path.parent.name == "notebooks"]
every_lesson = pytest.mark.parametrize("path", LESSONS, ids=[page.place(path) for path in LESSONS])


@functools.cache
def read(path: Path):
    return nbformat.read(path, as_version=4)


def set_up(nb) -> str:
    """The set-up cell: the first one with code."""
    return runner.code(nb)[0].source


def made_again(call: str) -> dict[str, int]:
    """{name: tasks} of what lessons measure again for their readers, with all its rows, by this
    call, and compare with the saved table; here they run.
    """
    live = rf'live = {re.escape(call)}\("([\w,]+)"(?:, n=(\d+))?\)\s+print\(results\.reproduces\('
    cells = [cell.source for path in LESSONS for cell in runner.code(read(path))]
    found = [match for source in cells if (match := re.search(live, source))]
    return {name: int(match[2] or 1) for match in found for name in match[1].split(",")}


def texts(nb) -> list[str]:
    """All that a notebook says in words: its cells and the text of their outputs."""
    outputs = [output for cell in nb.cells for output in cell.get("outputs", [])]
    words = [output.get("text", "") for output in outputs]
    words += [
        data
        for output in outputs
        for kind, data in output.get("data", {}).items()
        if "text" in kind
    ]
    return [cell.source for cell in nb.cells] + [str(word) for word in words]


def test_there_are_notebooks():
    assert PATHS, "notebooks/ has no notebook"


def opened(request):
    """(page, server) of a JupyterLab in a browser; None where there is none."""
    try:
        return request.getfixturevalue("desk"), request.getfixturevalue("server")
    except pytest.skip.Exception:
        return None


@every_notebook
def test_it_runs_top_to_bottom(path, request):
    """In JupyterLab, as a reader runs it; headless where there is no browser."""
    if browser := opened(request):
        problems = lab.problems(*browser, path, page.place(path))
    else:
        problems = runner.execute(path, OMP_NUM_THREADS="1").problems
    assert not problems, "\n".join(map(page.plain, problems))


@every_notebook
def test_its_outputs_are_newer_than_its_code(path):
    assert runner.fresh(read(path)), f"run: make notebooks ARGS={page.place(path)}"


@every_notebook
def test_it_is_committed_with_pictures_and_without_widget_state(path):
    nb = read(path)
    nbformat.validate(nb)
    assert page.pictures(nb), "no picture is saved in it"
    assert set(nb.metadata) == {"kernelspec", "language_info", "blendlab"}
    assert not any(
        output.output_type == "error" for cell in runner.code(nb) for output in cell.outputs
    )
    assert path.stat().st_size <= 1e6, f"{path.stat().st_size / 1e6:.1f} MB: save smaller pictures"


@every_notebook
def test_it_opens_in_any_jupyter(path):
    kernel = read(path).metadata.get("kernelspec")
    assert kernel == {"name": "python3", "display_name": "Python 3", "language": "python"}


@every_notebook
def test_its_lines_fit_a_colab_column(path):
    lines = [line for cell in runner.code(read(path)) for line in cell.source.splitlines()]
    assert not [line for line in lines if len(line) > 76]


@every_notebook
def test_it_begins_with_its_own_badge(path):
    badge = runner.badge(path)
    assert badge in read(path).cells[0].source, f"the first cell wants the line {badge}"


@every_notebook
def test_the_pictures_that_its_text_shows_are_there(path):
    links = re.findall(
        r"!\[[^\]]*\]\(([^)]*)\)", "\n".join(cell.source for cell in read(path).cells)
    )
    assert not [link for link in links if "://" not in link and not (path.parent / link).is_file()]


@every_notebook
def test_it_is_set_up_like_the_others(path):
    assert set_up(read(path)) == set_up(read(PATHS[0])), f"it differs from that of {PATHS[0].name}"


@every_notebook
def test_no_size_of_a_picture_is_guessed(path):
    """The network knows it, of a model without a card too."""
    assert 'get("size"' not in "".join(cell.source for cell in read(path).cells)


@every_notebook
def test_colab_installs_the_release_and_keeps_its_own_pytorch(path):
    (line,) = re.findall(r"^ +%pip install.*", set_up(read(path)), re.M)
    assert line.endswith(f" git+https://github.com/{runner.REPOSITORY}@{runner.RELEASE}"), line
    assert 'if "google.colab" in sys.modules:' in set_up(read(path)), "install on Colab only"
    assert not re.search(r"\s-U|--upgrade|\b(torch|torchvision|diffusers|numpy)\b", line)


@every_notebook
def test_it_names_no_machine(path):
    for text in texts(read(path)):
        found = re.search(f"{MACHINE}|{HOSTS}|/site-packages/", text)
        assert not found, f"a cell or its output names {found.group()}"


# The shape of a lesson


def words(nb) -> str:
    """All that a notebook's text cells say."""
    return "\n".join(cell.source for cell in nb.cells if cell.cell_type == "markdown")


@every_lesson
def test_a_lesson_has_25_to_45_cells_and_at_most_2000_words(path):
    nb = read(path)
    assert 25 <= len(nb.cells) <= 45
    assert len(words(nb).split()) <= 2000


@every_lesson
def test_a_lesson_says_first_how_long_it_takes_and_how_much_memory(path):
    assert re.search(
        r"minutes?\s+on\s+two\s+CPU\s+cores\s+and\s+\d+\s+GB\s+of\s+memory",
        read(path).cells[0].source,
    )


@every_lesson
def test_a_cell_of_a_lesson_has_at_most_20_lines_of_code(path):
    long = [cell.source for cell in runner.code(read(path)) if len(cell.source.splitlines()) > 20]
    assert not long, long[0]


@every_lesson
def test_a_lesson_succeeds_within_its_first_five_cells(path):
    shown = [output for cell in read(path).cells[:5] for output in cell.get("outputs", [])]
    assert any("image/png" in output.get("data", {}) for output in shown)


@every_lesson
def test_each_predict_has_its_answer_folded_in_the_same_cell(path):
    for cell in read(path).cells:
        asked = len(re.findall(r"\*\*Predict", cell.source)) * (cell.cell_type == "markdown")
        assert cell.source.count("<summary>Answer") == asked, cell.source


@every_lesson
def test_the_method_of_a_lesson_is_the_students_and_its_hints_are_folded(path):
    nb = read(path)
    (method,) = [cell for cell in runner.code(nb) if "exercises.attempt(my_" in cell.source]
    assert "raise NotImplementedError" in method.source
    before = nb.cells[nb.cells.index(method) - 1].source
    assert before.count("<summary>Hint") >= 2 and before.count("</details>") >= 2


@every_notebook
def test_each_picture_says_what_it_shows(path):
    outputs = [output for cell in runner.code(read(path)) for output in cell.outputs]
    for output in outputs:
        if "image/png" in output.get("data", {}):
            assert output.metadata["image/png"]["alt"]


@every_lesson
def test_a_lesson_opens_with_the_first_picture_that_it_makes(path):
    saved = path.parent.parent / "data" / "pictures" / f"{path.stem}.png"
    first = page.pictures(read(path))[0][1][0].split(",", 1)[1]
    assert saved.read_bytes() == base64.b64decode(first), "run: python data/make.py covers"
    assert f"](../data/pictures/{path.stem}.png)" in read(path).cells[0].source


@every_notebook
def test_no_cell_shows_a_bare_verdict(path):
    for cell in runner.code(read(path)):
        ends = cell.source.splitlines()[-1].startswith("exercises.")
        assert not (ends and [out for out in cell.outputs if out.output_type == "execute_result"])
