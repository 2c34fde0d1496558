"""The widgets as a person uses them: JupyterLab and Notebook 7 in a browser, what Python saw, what
is seen.

Each page opens one notebook, runs its cells once, and stays open for all tests. Needs Chromium,
playwright and Jupyter; the tests are skipped without them. Screenshots go to out/browser/.
"""

import ast
import io
import json
import re
import time
from pathlib import Path

import lab
import nbformat
import pytest
from PIL import Image

ROOT = Path(__file__).parent.parent
SHOTS = ROOT / "out" / "browser"

KERNEL = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
NOTEBOOK = [
    """\
import time
import blendlab as bl, ipywidgets as widgets
from PIL import Image
from blendlab.course.widgets import *

image = Image.open(bl.data("scenes/meadow.png")).convert("RGB").resize((64, 64))
drawn = Image.open(bl.data("masks/meadow.png")).resize((64, 64), Image.NEAREST)
painter = MaskPainter(image, brush=8)
painter""",
    """\
scribbles = ScribblePainter(image, brush=6, colour="#ff0000")
scribbles""",
    """\
cells = CellPicker(image, (16, 16))
cells""",
    """\
boxes = BoxEditor(image, {"cat": (0.125, 0.5, 0.5, 0.875), "red bus": (0.5, 0.25, 0.75, 0.75)})
boxes""",
    """\
upload = PictureUpload(64, image, note="Photographs come out as the model sees them.")
upload""",
    """\
pipe = bl.load("tinyworld")
calls = []

def edit(mask, words, seed):
    return bl.blended_latent(pipe, image, mask, words, seed=seed).images[0]

def counted(module, given):
    calls.append(1)

pipe.unet.register_forward_pre_hook(counted)
play = panel(edit, {
    "mask": MaskPainter(image, drawn),
    "words": widgets.Text("a red mushroom"),
    "seed": widgets.IntSlider(0, 0, 20),
}, before=image, setup='''
import blendlab as bl
from PIL import Image
pipe, image = bl.load("tinyworld"), Image.open(bl.data("scenes/meadow.png"))
image = image.convert("RGB").resize((64, 64))''')
play""",
    """\
def film(share):
    for i in range(20):
        time.sleep(0.1)
        yield i / 20, Image.blend(image, Image.new("RGB", image.size, "red"), share * i / 20)
    return Image.blend(image, Image.new("RGB", image.size, "red"), share)

runs = panel(film, {"share": widgets.FloatSlider(0.5, min=0, max=1, step=0.25)}, start=False)
runs""",
    """\
def behind(cell):
    method, colour = cell
    return Image.new("RGB", (64, 64), colour)

table = panel(behind, {"cell": TablePicker({
    "blended": {"red": "83% [77, 88]", "blue": "41% [35, 48]"},
    "guided": {"blue": "12% [8, 17]"},
})}, label="The picture behind the cell")
table""",
    """\
def sheet(cells):
    return bl.viz.show([image] * 4, columns=4, panel=192)

four = panel(sheet, {"cells": CellPicker(image, (16, 16), shown=256)})
four""",
]  # fmt: skip


@pytest.fixture(scope="module", params=["lab", "notebook"])
def notebook(request, server, browser):
    """The notebook in each of the two applications, with every cell run."""
    if request.param == "notebook":
        pytest.importorskip(
            "notebook", reason="Notebook 7 is missing: pip install 'blendlab[browser]'"
        )
    cells = [nbformat.v4.new_code_cell(source) for source in NOTEBOOK]
    nbformat.write(
        nbformat.v4.new_notebook(cells=cells, metadata=KERNEL), server[2] / "widgets.ipynb"
    )
    page = browser.new_page(viewport={"width": 1280, "height": 1200})
    page.set_default_timeout(30_000)
    opened = Notebook(page, request.param)
    lab.run_all(
        page, server, {"lab": "lab/tree", "notebook": "notebooks"}[request.param] + "/widgets.ipynb"
    )
    errors = page.locator(
        ".jp-RenderedText[data-mime-type='application/vnd.jupyter.error'],"
        "[data-mime-type='application/vnd.jupyter.stderr']"
    ).all_inner_texts()
    assert not errors, errors[0]
    page.locator(".bl-viewer").last.wait_for(state="attached", timeout=30_000)
    yield opened
    page.close()


class Notebook:
    """A page with the notebook, and a line to its kernel."""

    def __init__(self, page, app):
        self.page, self.app, self.requests = page, app, []
        self.errors = []
        page.on("pageerror", lambda error: self.errors.append(f"{error}\n{error.stack}"))
        page.on("request", lambda request: self.requests.append(request.url))

    def ask(self, expression):
        """The value of a Python expression in the kernel."""
        script = """async code => {
            const kernel = jupyterapp.shell.currentWidget.sessionContext.session.kernel;
            const sent = {code: '', user_expressions: {it: code}, store_history: false};
            const {it} = (await kernel.requestExecute(sent).done).content.user_expressions;
            return it.status === 'ok' ? it.data['text/plain'] : "'" + it.ename + ': ' + it.evalue + "'" }"""
        return ast.literal_eval(self.page.evaluate(script, expression))

    def do(self, code):
        """Run Python in the kernel."""
        script = """async code => (await jupyterapp.shell.currentWidget.sessionContext.session.kernel
            .requestExecute({code, store_history: false}).done).content"""
        content = self.page.evaluate(script, code)
        assert content["status"] == "ok", content

    def until(self, expression, wanted=True, seconds=30):
        """Wait until the expression has this value."""
        end = time.monotonic() + seconds
        while (value := self.ask(expression)) != wanted:
            if time.monotonic() > end:
                pytest.fail(f"{expression} is {str(value)[:400]}, not {str(wanted)[:400]}")
            time.sleep(0.05)

    def widget(self, number):
        """The output of one cell, scrolled into view."""
        found = self.page.locator(".jp-Cell").nth(number).locator(".jp-OutputArea")
        found.scroll_into_view_if_needed()
        return found

    def press(self, output, name):
        button = output.get_by_role("button", name=name)
        self.box(button)
        button.click()

    def box(self, locator):
        """Where an element is, once it is in view and nothing scrolls any more."""
        locator.evaluate("element => element.scrollIntoView({block: 'center'})")
        before = None
        while (box := locator.bounding_box()) != before:
            before = box
            self.page.wait_for_timeout(100)
        return box

    def click(self, locator, x, y):
        """Click on a place of an element, given in fractions of it."""
        box = self.box(locator)
        self.page.mouse.click(box["x"] + x * box["width"], box["y"] + y * box["height"])

    def drag(self, locator, start, end):
        """Press at start, move to end in steps, let go; places are fractions of the element."""
        box, mouse = self.box(locator), self.page.mouse
        points = [
            (box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in (start, end)
        ]
        mouse.move(*points[0])
        mouse.down()
        mouse.move(*points[1], steps=8)
        mouse.up()

    def shot(self, name, number):
        SHOTS.mkdir(parents=True, exist_ok=True)
        self.box(self.widget(number))
        self.widget(number).screenshot(path=SHOTS / f"{self.app}_{name}.png")


def test_what_fails_in_jupyterlab_is_found_where_a_cell_or_only_a_widget_fails(
    desk, server, tmp_path
):
    hidden = "import ipywidgets\nipywidgets.interact(lambda a: 1 / a, a=0);"
    cells = ["1 + 1", hidden, "raise ValueError('the reason')", "2 + 2"]
    for name, some in {"good": cells[:1], "bad": cells}.items():
        nb = nbformat.v4.new_notebook(
            cells=[nbformat.v4.new_code_cell(c) for c in some], metadata=KERNEL
        )
        nbformat.write(nb, tmp_path / f"{name}.ipynb")
    found = {
        name: lab.problems(desk, server, tmp_path / f"{name}.ipynb", f"{name}.ipynb")
        for name in ("good", "bad")
    }
    assert found["good"] == []
    error, skipped, inside = found["bad"]
    assert "the reason" in error and "did not run: 2 + 2" in skipped
    assert "ZeroDivisionError" in inside


MASK, SCRIBBLES, CELLS, BOXES, UPLOAD, PLAY, FILM, TABLE, SHEET = range(9)  # the cells
COVER = "painter.mask.tobytes().hex()"


def expected(*conditions):
    """White where x and y of a pixel's middle, in 64 x 64, meet all conditions."""
    middle = [(x + 0.5, y + 0.5) for y in range(64) for x in range(64)]
    return bytes(255 * all(c(x, y) for c in conditions) for x, y in middle).hex()


@pytest.fixture
def canvas(notebook):
    """The mask painter's canvas, with nothing painted, and its tools as at first."""
    notebook.do("painter.mask, painter.soft, painter.erase, painter.brush = None, False, False, 8")
    return notebook.widget(MASK).locator("canvas")


def capsule(x, y):
    """Within 4 pixels of the line from (16, 32) to (48, 32)."""
    return (x - min(48, max(16, x))) ** 2 + (y - 32) ** 2 <= 16


STROKE = (0.25, 0.5), (0.75, 0.5)  # on a canvas: from (16, 32) to (48, 32)


def test_a_stroke_reaches_python_pixel_for_pixel(notebook, canvas):
    notebook.drag(canvas, *STROKE)
    notebook.until(COVER, expected(capsule))
    alpha = (
        "c => [...c.getContext('2d').getImageData(0, 0, 64, 64).data].filter((v, i) => i % 4 == 3)"
    )
    seen = bytes(255 * (a > 0) for a in canvas.evaluate(alpha))
    assert seen.hex() == expected(capsule), "what is drawn is not what Python has"
    assert "8% painted" in notebook.widget(MASK).inner_text()


def test_erase_undo_and_redo(notebook, canvas):
    tools = notebook.widget(MASK)
    notebook.drag(canvas, *STROKE)
    notebook.press(tools, "Erase")
    notebook.drag(canvas, (0.5, 0.1), (0.5, 0.9))
    cut = expected(capsule, lambda x, y: abs(x - 32) > 4)
    notebook.until(COVER, cut)
    notebook.press(tools, "Undo")
    notebook.until(COVER, expected(capsule))
    notebook.press(tools, "Undo")
    notebook.until("painter.mask.getbbox()", None)
    for _ in range(2):
        notebook.press(tools, "Redo")
    notebook.until(COVER, cut)
    assert tools.get_by_role("button", name="Redo", exact=True).is_disabled()
    assert (
        tools.get_by_role("button", name="Erase", exact=True).get_attribute("aria-pressed")
        == "true"
    )


def test_clear_invert_grow_and_shrink(notebook, canvas):
    tools = notebook.widget(MASK)
    notebook.do("m = bl.masks.from_box((0.25, 0.5, 0.75, 0.75), (64, 64)); painter.mask = m")
    same = "(bl.images.mask(painter.mask) == {}).all().item()"
    notebook.press(tools, "Grow")
    notebook.press(tools, "Grow")
    notebook.until(same.format("bl.masks.dilate(m, 2)"))
    notebook.press(tools, "Shrink")
    notebook.until(same.format("bl.masks.dilate(m, 1)"))
    notebook.press(tools, "Invert")
    notebook.until(same.format("1 - bl.masks.dilate(m, 1)"))
    notebook.press(tools, "Clear")
    notebook.until("painter.mask.getbbox()", None)


def test_a_mask_set_in_python_is_shown_and_can_be_painted_on(notebook, canvas):
    notebook.do("painter.mask = drawn")
    notebook.until("painter.mask.getbbox() is None", False)
    left, top, right, bottom = notebook.ask("painter.mask.getbbox()")
    notebook.drag(canvas, *STROKE)
    box = lambda x, y: left < x < right and top < y < bottom  # noqa: E731
    notebook.until(COVER, expected(lambda x, y: box(x, y) or capsule(x, y)))


def test_a_soft_brush_paints_greys_and_a_hard_one_none(notebook, canvas):
    tools = notebook.widget(MASK)
    notebook.press(tools, "Soft")
    notebook.until("painter.soft")
    notebook.drag(canvas, *STROKE)
    notebook.until("painter.mask.getextrema()[1]", 255)
    greys = notebook.ask("len(painter.mask.getcolors())")
    assert greys > 3
    notebook.press(tools, "Soft")
    notebook.until("[grey for _, grey in painter.mask.getcolors()]", [0, 255])
    notebook.press(tools, "Undo")  # the greys come back, and the soft brush with them
    notebook.until("painter.soft, len(painter.mask.getcolors())", (True, greys))


def test_the_keyboard_paints_and_the_notebook_does_not_listen(notebook, canvas):
    keyboard, cells = notebook.page.keyboard, notebook.page.locator(".jp-Cell").count()
    notebook.click(canvas, 0.5, 0.5)  # the keys go on from here
    notebook.do("painter.brush, painter.mask = 1, None")
    canvas.focus()
    for _ in range(2):
        keyboard.press("Shift+ArrowLeft")  # 4 pixels
    keyboard.down(" ")
    for _ in range(3):
        keyboard.press("ArrowDown")
    assert "column 25, row 36" in notebook.widget(MASK).inner_text()
    keyboard.up(" ")
    line = expected(lambda x, y: x == 24.5 and 32 < y < 36)
    rest = expected(lambda x, y: not (x == 24.5 and 32 < y < 36))
    notebook.until(COVER, line)
    for keys, wanted in [("i", rest), ("Control+z", line), ("e", line)]:
        keyboard.press(keys)
        notebook.until(COVER, wanted)
    notebook.until("painter.erase")
    keyboard.press(" ")  # on the last pixel of the line
    notebook.until(COVER, expected(lambda x, y: x == 24.5 and 32 < y < 35))
    for keys in [
        "]",
        "]",
        "x",
        "d",
        "d",
        "Delete",
    ]:  # "d d" deletes a cell where the notebook listens
        keyboard.press(keys)
    notebook.until("painter.mask.getbbox(), painter.brush", (None, 3))
    assert notebook.page.locator(".jp-Cell").count() == cells


@pytest.mark.parametrize("kind", ["touch", "pen"])
def test_fingers_and_pens_paint(notebook, canvas, kind):
    box = notebook.box(canvas)
    x0, x1 = (box["x"] + x * box["width"] for x, _ in STROKE)
    y = box["y"] + 0.5 * box["height"]
    session = notebook.page.context.new_cdp_session(notebook.page)
    if kind == "touch":
        moves = [("touchStart", x0), *[("touchMove", x0 + (x1 - x0) * i / 8) for i in range(1, 9)]]
        for event, x in moves:
            points = [{"x": x, "y": y}]
            session.send("Input.dispatchTouchEvent", {"type": event, "touchPoints": points})
        session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    else:
        pen = {"y": y, "pointerType": "pen", "button": "left", "buttons": 1, "clickCount": 1}
        for event, x in [("mousePressed", x0), ("mouseMoved", x1), ("mouseReleased", x1)]:
            session.send("Input.dispatchMouseEvent", pen | {"type": event, "x": x})
    notebook.until(COVER, expected(capsule))


def test_scribbles_are_in_the_colour_that_was_chosen(notebook):
    canvas = notebook.widget(SCRIBBLES).locator("canvas")
    notebook.drag(canvas, (0.1, 0.2), (0.9, 0.2))
    notebook.until("scribbles.picture.getpixel((32, 12))", (255, 0, 0))
    notebook.widget(SCRIBBLES).locator(".bl-colour").evaluate(
        "input => { input.value = '#0080ff'; input.dispatchEvent(new Event('input')) }"
    )
    notebook.drag(canvas, (0.5, 0.1), (0.5, 0.9))
    notebook.until("scribbles.picture.getpixel((32, 12))", (0, 128, 255))
    assert notebook.ask("scribbles.picture.getpixel((10, 12))") == (255, 0, 0)
    assert notebook.ask("scribbles.picture.getpixel((10, 60)) == image.getpixel((10, 60))")


def test_cells_are_picked_and_dropped(notebook):
    canvas = notebook.widget(CELLS).locator("canvas")
    picked = "cells.cells.nonzero()[0].tolist(), cells.cells.nonzero()[1].tolist()"
    notebook.do("cells.cells = cells.cells & False")
    middle = lambda row, column: ((column + 0.5) / 16, (row + 0.5) / 16)  # noqa: E731
    notebook.drag(canvas, middle(3, 4), middle(3, 7))
    notebook.until(picked, ([3, 3, 3, 3], [4, 5, 6, 7]))
    assert notebook.ask("cells.mask.getbbox()") == (16, 12, 32, 16)  # at the picture's size
    notebook.drag(canvas, middle(3, 5), middle(3, 6))
    notebook.until(picked, ([3, 3], [4, 7]))
    canvas.focus()
    notebook.page.keyboard.press("ArrowDown")
    notebook.page.keyboard.press(" ")
    notebook.until(picked, ([3, 3, 4], [4, 7, 6]))


def test_boxes_are_dragged_pulled_and_moved_by_keys(notebook):
    notebook.do(
        "boxes.boxes = {'cat': (0.125, 0.5, 0.5, 0.875), 'red bus': (0.5, 0.25, 0.75, 0.75)}"
    )
    stage = notebook.widget(BOXES).locator(".bl-stage")
    notebook.drag(stage, (0.25, 0.75), (0.375, 0.625))
    notebook.until("boxes.boxes[0]", ("cat", (0.25, 0.375, 0.625, 0.75)))
    notebook.drag(stage, (0.75, 0.25), (0.875, 0.125))  # the bus by its corner
    notebook.until("boxes.boxes[1]", ("red bus", (0.5, 0.125, 0.875, 0.75)))
    notebook.drag(stage, (0.6, 0.6), (5, 0.6))  # a box stays in the picture
    notebook.until("boxes.boxes[1]", ("red bus", (0.625, 0.125, 1.0, 0.75)))
    notebook.widget(BOXES).locator(".bl-box").first.focus()
    notebook.page.keyboard.press("ArrowLeft")
    notebook.page.keyboard.press("Shift+Control+ArrowUp")
    notebook.until("boxes.boxes[0]", ("cat", (15 / 64, 24 / 64, 39 / 64, 38 / 64)))
    assert (
        notebook.widget(BOXES)
        .locator(".bl-box")
        .first.get_attribute("aria-label")
        .startswith("cat: ")
    )


def phone_photo(path):
    """A photo whose left half is red as one looks at it, taken with the phone on its side."""
    photo = Image.new("RGB", (300, 400), "blue")
    photo.paste("red", (0, 0, 150, 400))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    photo.transpose(Image.Transpose.ROTATE_90).save(path, "JPEG", exif=exif, quality=95)
    return path


def test_a_rotated_phone_photo_comes_in_upright_and_the_box_says_what_is_taken(notebook, tmp_path):
    output = notebook.widget(UPLOAD)
    with notebook.page.expect_file_chooser() as chooser:
        notebook.press(output, "Own picture")
    chooser.value.set_files(phone_photo(tmp_path / "phone.jpg"))
    output.locator(".bl-box").wait_for()
    notebook.until("upload.value.size", (64, 64))
    says = output.inner_text()
    assert "phone.jpg is 300 x 400, turned upright. Of it the box is taken, 300 x 300" in says
    near = "[round(v / 255) for v in upload.value.getpixel(({}, 32))]"
    assert notebook.ask(near.format(10)) == [1, 0, 0] and notebook.ask(near.format(54)) == [0, 0, 1]
    notebook.drag(output.locator(".bl-se"), (0.5, 0.5), (-8, -8))  # smaller, in the upper left
    notebook.until(near.format(54), [1, 0, 0])  # no more blue in it
    assert notebook.ask("upload.crop.boxes[0][1][0]") == 0
    notebook.do("from pathlib import Path; Path('notes.txt').write_text('no picture')")
    with notebook.page.expect_file_chooser() as chooser:
        notebook.press(output, "Own picture")
    chooser.value.set_files(
        {"name": "notes.txt", "mimeType": "text/plain", "buffer": b"no picture"}
    )
    output.get_by_text("notes.txt is no picture that can be read here").wait_for()


SHOWN = """async image => { const bytes = await (await fetch(image.src)).arrayBuffer();
    return [...new Uint8Array(bytes)] }"""


def picture(output):
    """What the viewer shows now."""
    return Image.open(io.BytesIO(bytes(output.locator(".bl-after").evaluate(SHOWN)))).convert("RGB")


def test_painting_makes_a_new_edit_and_an_empty_mask_one_sentence(notebook):
    output = notebook.widget(PLAY)
    before = picture(output)
    canvas = output.locator("canvas")
    notebook.press(output, "Clear")
    output.get_by_text("mask is black everywhere, so nothing is edited").wait_for()  # one sentence
    notebook.shot("error", PLAY)
    assert "Traceback" not in notebook.page.locator("body").inner_text()
    notebook.do("play.controls['mask'].brush = 20")
    notebook.drag(canvas, (0.6, 0.6), (0.8, 0.6))
    notebook.until("play.values['mask'] == play.controls['mask'].mask")
    output.locator("progress").wait_for(state="hidden")
    now = picture(output)
    assert now != before
    assert now.tobytes().hex() == notebook.ask("play.result.tobytes().hex()")
    assert output.locator(".bl-error").is_hidden()


def test_stop_ends_a_real_edit_in_the_middle(notebook):
    output = notebook.widget(PLAY)
    before = picture(output)
    notebook.do("calls.clear()")
    notebook.press(output, "Run")
    notebook.until("len(calls) > 2")
    notebook.press(output, "Stop")
    output.get_by_text("Stopped").wait_for()
    made = notebook.ask("len(calls)")
    notebook.page.wait_for_timeout(500)
    assert made == notebook.ask("len(calls)") < 24, "the network went on"
    assert picture(output) == before
    assert output.get_by_role("button", name="Stop").is_disabled()


def test_the_latest_change_wins(notebook):
    output = notebook.widget(FILM)
    track = output.locator(".noUi-base")
    notebook.do("runs.controls['share'].value = 0.5")
    notebook.click(track, 0.25, 0.5)
    output.get_by_text(re.compile("^[1-6][05]%$")).wait_for()  # in the middle of the first
    notebook.shot("running", FILM)
    notebook.click(track, 0.75, 0.5)
    notebook.until("runs.values and runs.values['share']", 0.75)
    assert notebook.ask("sum(thread.is_alive() for thread in runs._threads)") <= 1


def test_the_film_is_scrubbed_by_keys_and_the_swipe_uncovers_the_picture_before(notebook):
    notebook.do("runs.run()")
    output = notebook.widget(FILM)
    output.locator(".bl-frame").wait_for()
    result = picture(output)
    output.locator(".bl-frame").focus()
    notebook.page.keyboard.press("Home")
    notebook.page.wait_for_timeout(300)
    assert output.get_by_text("1 of 20").is_visible()
    first = picture(output).tobytes().hex()
    assert first == notebook.ask("image.tobytes().hex()"), "the first frame is the source itself"
    notebook.page.keyboard.press("End")
    notebook.page.wait_for_timeout(300)
    assert picture(output) == result

    output = notebook.widget(PLAY)
    output.locator(".bl-swipe").focus()
    for _ in range(3):
        notebook.page.keyboard.press("PageUp")
    share = int(output.locator(".bl-swipe").input_value())
    assert share >= 30
    assert (
        output.locator(".bl-after").evaluate("e => e.style.clipPath")
        == f"inset(0px 0px 0px {share}%)"
    )
    notebook.page.keyboard.press("Home")


def test_save_writes_files_whose_python_remakes_the_picture(notebook, server):
    output = notebook.widget(PLAY)
    notebook.press(output, "Save")
    output.get_by_text("Saved in").wait_for()
    folder = Path(
        notebook.ask(
            "str(sorted(__import__('pathlib').Path('out/edits').absolute().iterdir())[-1])"
        )
    )
    assert {p.name for p in folder.iterdir()} == {
        "result.png",
        "mask.png",
        "settings.json",
        "remake.py",
    }
    saved = Image.open(folder / "result.png")
    assert saved.tobytes() == picture(output).tobytes()
    assert json.loads((folder / "settings.json").read_text())["words"] == "a red mushroom"
    notebook.do(f"names = {{}}; exec(open({str(folder / 'remake.py')!r}).read(), names)")
    again = notebook.ask("names['picture'].tobytes().hex()")
    assert again == saved.tobytes().hex(), "with a model of its own, from the files alone"


def test_a_cell_of_a_table_opens_the_picture_behind_it(notebook):
    output = notebook.widget(TABLE)

    def shown():
        """The picture's colour, once the browser has it."""
        notebook.page.wait_for_timeout(500)
        output.locator("progress").wait_for(state="hidden")
        return picture(output).getpixel((0, 0))

    notebook.press(output, "blended, blue: 41%")
    notebook.until("table.values['cell']", ("blended", "blue"))
    assert shown() == (0, 0, 255)
    pressed = output.locator("[aria-pressed=true]")
    assert pressed.all_inner_texts() == ["41% [35, 48]"]
    notebook.page.keyboard.press("ArrowDown")
    notebook.page.keyboard.press("ArrowLeft")  # an empty cell and the edge: it stays
    notebook.page.keyboard.press("Enter")
    notebook.until("table.values['cell']", ("guided", "blue"))
    notebook.page.keyboard.press("ArrowUp")
    notebook.page.keyboard.press("ArrowLeft")
    notebook.page.keyboard.press(" ")
    notebook.until("table.values['cell']", ("blended", "red"))
    assert shown() == (255, 0, 0)


def test_a_sheet_of_pictures_has_the_whole_width_and_buttons_stand_in_a_row(notebook):
    output = notebook.widget(SHEET)
    width = output.locator(".bl-after").bounding_box()["width"]
    assert width >= 4 * 192, "each of the four pictures is at least 192 pixels wide"
    buttons = [output.get_by_role("button", name=name) for name in ("Undo", "Redo", "Clear")]
    assert len({button.bounding_box()["y"] for button in buttons}) == 1


@pytest.mark.parametrize("theme", ["Light", "Dark"])
def test_texts_are_legible_in_both_themes(notebook, canvas, theme):
    """Screenshots to look at, and the contrast of every text with what it stands on: 4.5 to 1 (WCAG
    AA).
    """
    change = "name => jupyterapp.commands.execute('apputils:change-theme', {theme: name})"
    notebook.page.evaluate(change, "JupyterLab " + theme)
    notebook.page.wait_for_timeout(1000)
    notebook.drag(canvas, *STROKE)
    notebook.do("runs.run()")
    notebook.widget(MASK).get_by_text("Keyboard").click()
    canvas.focus()
    notebook.page.mouse.move(0, 0)
    for i, name in enumerate(
        ["mask", "scribbles", "cells", "boxes", "upload", "panel", "film", "table", "sheet"]
    ):
        notebook.widget(i)
        notebook.shot(f"{name}_{theme.lower()}", i)
    poor = notebook.page.evaluate(CONTRAST)
    assert not poor, poor


CONTRAST = """() => {
    const rgba = text => { const c = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
        c.fillStyle = text; c.fillRect(0, 0, 1, 1); return [...c.getImageData(0, 0, 1, 1).data] };
    const over = (top, below) => [0, 1, 2].map(i => (top[i] * top[3] + below[i] * (255 - top[3])) / 255);
    const ground = element => { if (!element) return [255, 255, 255];
        return over(rgba(getComputedStyle(element).backgroundColor), ground(element.parentElement)) };
    const light = c => { const [r, g, b] = c.map(v => v / 255).map(v =>
        v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4); return 0.2126 * r + 0.7152 * g + 0.0722 * b };
    const poor = [];
    for (const element of document.querySelectorAll('.bl *, .bl-upload span')) {
        const own = [...element.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
        if (!own || element.disabled || !element.getClientRects().length) continue;
        const behind = ground(element), ink = over(rgba(getComputedStyle(element).color), behind);
        const [a, b] = [light(ink), light(behind)].sort((x, y) => x - y);
        const ratio = (b + 0.05) / (a + 0.05);
        if (ratio < 4.5) poor.push(element.textContent.trim().slice(0, 40) + ': ' + ratio.toFixed(2));
    }
    return poor }"""


def test_nothing_comes_from_the_network_and_nothing_fails_in_the_page(notebook, server):
    own = (server[0], "blob:", "data:", server[0].replace("http", "ws"))
    assert [url for url in notebook.requests if not url.startswith(own)] == []
    # Widgets come as blobs; Notebook 7 has two errors of its own when it starts.
    assert [error for error in notebook.errors if "blob:" in error] == []
