"""The widgets' Python side, without a browser: what they hold, how runs end, what is saved."""

import io
import json
import re
import threading
from contextlib import contextmanager

import comm
import ipywidgets
import numpy as np
import pytest
import torch
from PIL import Image

import blendlab as bl
from blendlab.course import widgets
from blendlab.course.widgets import common
from blendlab.course.widgets.upload import uploaded
from blendlab.measuring import results

RNG = np.random.default_rng(0)
PHOTO = Image.fromarray(RNG.integers(0, 256, (24, 32, 3), dtype=np.uint8))  # 32 wide, 24 high
WHERE = np.zeros((24, 32), bool)
WHERE[4:12, 16:24] = True
MASK = Image.fromarray(np.uint8(255) * WHERE)


def arrives(widget, **state):
    """Set traits as a browser does."""
    widget.set_state(
        {name: memoryview(v) if isinstance(v, bytes) else v for name, v in state.items()}
    )


def heard(widget):
    """The list that every new value of a widget goes to."""
    values = []
    widget.observe(lambda change: values.append(change.new), "value")
    return values


# Painters


@pytest.mark.parametrize(
    "mask",
    [MASK, MASK.convert("1"), WHERE, WHERE.astype(float), np.array(MASK), torch.from_numpy(WHERE)],
    ids=["L", "1", "bools", "floats", "bytes", "tensor"],
)
def test_a_mask_set_in_python_comes_back_as_it_is(mask):
    painter = widgets.MaskPainter(PHOTO)
    assert painter.mask.getbbox() is None
    painter.mask = mask
    assert painter.mask.mode == "L" and painter.mask.tobytes() == MASK.tobytes()
    assert torch.equal(bl.images.mask(painter.mask), torch.from_numpy(WHERE)[None, None].float())
    painter.mask = None
    assert painter.mask.size == (32, 24) and painter.mask.getbbox() is None


def test_a_stroke_is_the_new_value_once():
    painter = widgets.MaskPainter(PHOTO)
    values = heard(painter)
    arrives(painter, _layer=MASK.tobytes())
    assert [value.tobytes() for value in values] == [MASK.tobytes()]


def test_a_mask_that_does_not_fit_is_refused_with_the_fix():
    painter = widgets.MaskPainter(PHOTO, MASK)
    with pytest.raises(ValueError, match=r"mask is 24x32 and the picture 32x24.*fit_mask"):
        painter.mask = WHERE.T
    with pytest.raises(ValueError, match="not all 0 or 1"):
        painter.mask = WHERE * 0.5
    assert painter.mask.tobytes() == MASK.tobytes()


def test_greys_need_a_soft_brush_and_become_black_and_white_without_it():
    painter = widgets.MaskPainter(PHOTO, soft=True)
    greys = Image.fromarray(np.where(WHERE, 200, 100).astype(np.uint8))
    painter.mask = greys
    assert painter.mask.tobytes() == greys.tobytes()
    painter.soft = False
    assert painter.mask.tobytes() == MASK.tobytes()
    arrives(painter, _layer=greys.tobytes())  # undo in the browser
    assert painter.soft and painter.mask.tobytes() == greys.tobytes()


def test_another_picture_keeps_what_is_painted_where_the_size_is_the_same():
    painter = widgets.MaskPainter(PHOTO, MASK)
    painter.image = Image.new("RGB", (32, 24))
    assert painter.mask.tobytes() == MASK.tobytes()
    painter.image = Image.new("RGB", (8, 8))
    assert painter.mask.size == (8, 8) and painter.mask.getbbox() is None


def test_scribbles_change_the_pixels_that_they_cover_and_no_others():
    painter = widgets.ScribblePainter(PHOTO)
    assert painter.picture == PHOTO
    colours = np.zeros((24, 32, 3), np.uint8) + np.uint8([255, 128, 0])
    arrives(painter, _layer=MASK.tobytes() + colours.tobytes())
    expected = np.where(WHERE[..., None], colours, np.asarray(PHOTO))
    assert np.array_equal(painter.picture, expected)
    again = widgets.ScribblePainter(PHOTO, painter.scribbles)
    assert np.array_equal(again.picture, expected)
    with pytest.raises(ValueError, match="scribbles are RGB: pass RGBA of 32x24"):
        again.scribbles = PHOTO


def test_cells_are_rows_and_columns_and_their_mask_has_the_size_of_the_picture():
    picker = widgets.CellPicker(PHOTO, (3, 4))
    picked = np.zeros((3, 4), bool)
    picked[1, 2] = True
    arrives(picker, _layer=(255 * picked.astype(np.uint8)).tobytes())
    assert np.array_equal(picker.cells, picked)
    assert picker.mask.size == (32, 24) and picker.mask.getbbox() == (16, 8, 24, 16)
    small = bl.masks.to_latent(bl.images.mask(picker.mask), (3, 4))
    assert np.array_equal(small[0, 0].bool(), picked)
    with pytest.raises(ValueError, match=r"cells are \(4, 3\): pass bools of shape \(3, 4\)"):
        picker.cells = picked.T
    with pytest.raises(ValueError, match="set cells"):
        picker.value = MASK


# Boxes


def test_boxes_go_in_and_out_and_their_masks_are_those_of_the_package():
    editor = widgets.BoxEditor(PHOTO, {"cat": (0.25, 0.5, 0.5, 1)})
    values = heard(editor)
    arrives(editor, _boxes=[["cat", [0, 0.25, 0.5, 0.75]]])
    assert editor.boxes == values[0] == [("cat", (0, 0.25, 0.5, 0.75))] and len(values) == 1
    mask = bl.masks.from_box((0, 0.25, 0.5, 0.75), (24, 32))
    assert torch.equal(bl.images.mask(editor.mask("cat")), mask)
    with pytest.raises(ValueError, match="the box of 'cat' is .*fractions of the picture"):
        editor.boxes = {"cat": (8, 6, 16, 12)}


# Tables


class Frame:
    """As much of a DataFrame as is asked for."""

    def to_dict(self, orient):
        assert orient == "index"
        return {"ours": {"class": 0.83125, "seconds": float("nan")}, "theirs": {"seconds": 2}}


@pytest.mark.parametrize("table", [Frame(), Frame().to_dict("index")], ids=["frame", "dict"])
def test_the_cell_that_is_pressed_is_the_value_and_a_panel_shows_what_is_behind_it(table):
    picker = widgets.TablePicker(table)
    assert picker._cells == [["0.831", ""], ["", "2"]] and picker.value == ("ours", "class")
    panel = widgets.panel(lambda cell: " of ".join(cell[::-1]), {"cell": picker})
    assert panel.result == "class of ours"
    arrives(picker, _at=[1, 1])
    panel.wait()
    assert picker.value == ("theirs", "seconds") and panel.result == "seconds of theirs"
    picker.value = ("ours", "class")
    assert picker._at == [0, 0]


def test_cells_that_are_not_there_or_empty_are_refused_with_the_names_that_are():
    with pytest.raises(ValueError, match="no cell .'ours', 'colour'.: it has rows ours, theirs"):
        widgets.TablePicker(Frame(), ("ours", "colour"))
    with pytest.raises(ValueError, match="the cell .'ours', 'seconds'. is empty"):
        widgets.TablePicker(Frame(), ("ours", "seconds"))
    with pytest.raises(ValueError, match="no cell with a value"):
        widgets.TablePicker({})


def test_a_measured_table_can_be_pressed():
    table = results.table("edits")
    picker = widgets.TablePicker(table)
    assert [[row, *cells] for row, cells in zip(picker._rows, picker._cells, strict=True)] == (
        table.cells()
    )


# Runs


def play(mask, share):
    return Image.blend(
        PHOTO, Image.composite(Image.new("RGB", PHOTO.size, "red"), PHOTO, mask), share
    )


def film(mask, share):
    for i in range(4):
        yield i / 4, play(mask, share * i / 4)
    return play(mask, share)


def controls(share=0.5):
    slider = ipywidgets.FloatSlider(share, min=0, max=1)
    return {"mask": widgets.MaskPainter(PHOTO, MASK), "share": slider}


class Gate:
    """A function that waits in the middle, plain or a generator, and counts how it went."""

    def __init__(self, steps=False):
        self.entered, self.open = threading.Semaphore(0), threading.Event()
        self.ended, self.put_back, self.at_once, self.most = [], 0, 0, 0
        self.__name__ = "gate"
        self.steps = steps

    def __call__(self, x):
        return self.many(x) if self.steps else self.plain(x)

    @contextmanager
    def changed(self):
        """Stands for what alters a network and puts it back."""
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        try:
            yield
        finally:
            self.at_once -= 1
            self.put_back += 1

    def waiting(self):
        """Short waits until the gate opens, at most a few seconds in all."""
        for _ in range(300):
            if self.open.wait(0.01):
                return
            yield 0.5, None

    def plain(self, x):
        with self.changed():
            self.entered.release()
            for _ in self.waiting():
                pass
        self.ended.append(x)
        return f"result of {x}"

    def many(self, x):
        with self.changed():
            self.entered.release()
            yield from self.waiting()
        self.ended.append(x)
        yield 0.9, f"result of {x}"


def gated(gate):
    slider = ipywidgets.IntSlider(0)
    return widgets.panel(gate, {"x": slider}, start=False), slider


def test_a_panel_has_the_function_s_own_result_without_a_browser():
    given = controls()
    panel = widgets.panel(play, given, before=PHOTO)
    assert panel.result == play(MASK, 0.5) and panel.values["share"] == 0.5
    shown = Image.open(io.BytesIO(panel._viewer.picture))
    assert shown.tobytes() == panel.result.tobytes()
    given["share"].value = 0.25
    panel.wait()
    assert panel.result == play(MASK, 0.25)


def test_a_generator_s_steps_are_the_film_and_its_return_the_result():
    panel = widgets.panel(film, controls())
    assert panel.result == widgets.result(film(MASK, 0.5)) == play(MASK, 0.5)
    assert panel.frames == [play(MASK, 0.5 * i / 4) for i in range(4)]
    assert len(panel._viewer.film) == 4 and not panel._viewer.busy and not panel._viewer.preview
    assert widgets.result(step for step in [(0, "a"), (0.5, "b")]) == "b"  # else the last picture


def test_progress_is_shown_while_it_runs():
    seen = []
    panel = widgets.panel(film, controls(), start=False)
    panel._viewer.observe(lambda change: seen.append(change.new), "done")
    panel.run()
    assert seen == [0, 0.25, 0.5, 0.75, 1]


@pytest.mark.parametrize("steps", [False, True], ids=["plain", "generator"])
def test_stop_ends_a_run_and_puts_back_what_it_changed(steps):
    gate = Gate(steps)
    panel, _ = gated(gate)
    panel.start()
    assert gate.entered.acquire(timeout=10)
    assert panel._viewer.busy and not panel._stop.disabled
    panel.stop()
    panel.stop()  # once too often
    panel.wait()
    assert gate.ended == [] and gate.put_back == 1 and panel.result is None
    assert (
        panel._viewer.status.startswith("Stopped")
        and not panel._viewer.busy
        and panel._stop.disabled
    )
    gate.open.set()
    assert panel.run() == "result of 0"  # and the next is as ever


@pytest.mark.parametrize("steps", [False, True], ids=["plain", "generator"])
def test_the_latest_change_wins_and_one_runs_at_a_time_in_all_panels(steps):
    gate = Gate(steps)
    (one, slider), (other, _) = gated(gate), gated(gate)
    other.start()
    assert gate.entered.acquire(timeout=10)
    for x in range(1, 20):
        slider.value = x
    other.stop()
    assert gate.entered.acquire(timeout=10)
    gate.open.set()
    one.wait()
    other.wait()
    assert gate.ended == [19] and one.result == "result of 19" and one.values == {"x": 19}
    assert gate.most == 1 and other.result is None


def test_stop_after_the_end_harms_nobody():
    gate = Gate()
    gate.open.set()
    panel, _ = gated(gate)
    for _ in range(200):  # in this very thread, which Stopped would end
        panel.run()
        panel.stop()
    assert len(gate.ended) == 200


def test_without_auto_only_run_runs():
    made = []
    slider = ipywidgets.IntSlider(0)
    panel = widgets.panel(lambda x: made.append(x) or str(x), {"x": slider}, auto=False)
    slider.value = 3
    panel.wait()
    assert made == [0]
    panel._buttons[0].click()
    panel.wait()
    assert made == [0, 3]


def test_a_closed_panel_runs_no_more():
    gate = Gate()
    panel, slider = gated(gate)
    panel.start()
    assert gate.entered.acquire(timeout=10)
    panel.close()
    slider.value = 5
    assert gate.put_back == 1 and not any(thread.is_alive() for thread in panel._threads)
    assert panel.comm is None and panel._viewer.comm is None and slider.comm is not None
    panel.close()


def test_a_page_hears_of_a_widget_once_and_completely(monkeypatch):
    """What is sent later may be lost while the page loads (anywidget's issue 803)."""
    sent = []

    class Heard(comm.base_comm.BaseComm):
        def publish_msg(self, kind, data=None, metadata=None, buffers=None, **keys):
            sent.append((self.comm_id, kind, data))

    monkeypatch.setattr(comm, "create_comm", Heard)
    box, cell = {"cat": (0.25, 0.5, 0.5, 0.75)}, {"blended": {"red": 0.5}}
    controls = {
        "mask": widgets.MaskPainter(PHOTO, MASK),
        "cells": widgets.CellPicker(PHOTO, (3, 4), np.eye(3, 4)),
        "boxes": widgets.BoxEditor(PHOTO, box),
        "table": widgets.TablePicker(cell),
    }
    assert not sent
    panel = widgets.panel(lambda **values: PHOTO, controls, before=PHOTO)
    panel._repr_mimebundle_()
    for widget in (*controls.values(), panel._viewer):
        ((kind, data),) = [message[1:] for message in sent if message[0] == widget.model_id]
        assert kind == "comm_open"
        now = {k: v for k, v in widget.get_state().items() if not isinstance(v, bytes)}
        assert now == {name: data["state"].get(name) for name in now}


# What goes wrong, and what is shown


def test_an_error_is_one_sentence_in_the_panel_and_raised_by_run():
    given = controls()
    panel = widgets.panel(lambda mask, share: bl.images.mask(mask) and None, given, start=False)
    given["mask"].mask = None
    panel.wait()
    assert (
        panel._viewer.error.startswith("mask is black everywhere")
        and "\n" not in panel._viewer.error
    )
    with pytest.raises(ValueError, match="black everywhere"):
        panel.run()
    panel = widgets.panel(lambda: {}["x"], {}, start=False)
    panel.start()
    panel.wait()
    assert panel._viewer.error == "KeyError: 'x'" and isinstance(panel.error, KeyError)


def test_after_an_error_or_a_stop_save_still_means_the_result_that_is_shown():
    given = controls(0.5)
    panel = widgets.panel(play, given)
    given["share"].max = 2
    given["share"].value = 0.25
    panel.wait()
    panel.function = lambda **values: 1 / 0
    given["share"].value = 0.75
    panel.wait()
    assert panel.error and panel.values["share"] == 0.25 and panel.result == play(MASK, 0.25)


@pytest.mark.parametrize(
    "returns, sentence",
    [
        (None, "returned nothing: end it with return picture"),
        (3.5, "the result is a float: return a picture"),
        (PHOTO.crop((0, 0, 24, 24)), "the result is 24x24 and the picture before 32x24"),
    ],
    ids=["nothing", "number", "shape"],
)
def test_results_that_cannot_be_shown_get_a_sentence(returns, sentence):
    with pytest.raises((TypeError, ValueError), match=re.escape(sentence)):
        widgets.panel(lambda: returns, {}, before=PHOTO)


def test_steps_that_are_no_pairs_get_a_sentence():
    with pytest.raises(TypeError, match=r"a step is a pair: yield \(done, picture\)"):
        widgets.panel(lambda: (PHOTO for _ in range(2)), {})


def test_pictures_of_every_kind_tables_and_texts_are_shown():
    class Table:
        def _repr_html_(self):
            return "<b>7</b>"

    def shown(value):
        viewer = widgets.panel(lambda: value, {})._viewer
        return Image.open(io.BytesIO(viewer.picture)) if viewer.picture else viewer.table

    x = bl.images.image(PHOTO)
    assert (
        shown(PHOTO).tobytes() == shown(x).tobytes() == shown([PHOTO]).tobytes() == PHOTO.tobytes()
    )
    two = bl.viz.show([PHOTO, PHOTO])
    assert (
        shown([PHOTO, PHOTO]).tobytes() == shown(x.expand(2, -1, -1, -1)).tobytes() == two.tobytes()
    )
    assert shown(bl.viz.curve([0, 1], {"a": [0, 1]})).width > 300
    assert shown(Table()) == "<b>7</b>" and shown("a < b") == "<p>a &lt; b</p>"


def test_a_result_says_which_values_made_it():
    def play(words, w, mask):
        return PHOTO

    given = {"words": ipywidgets.Text("a cat"), "w": ipywidgets.FloatSlider(4.0)}
    given["mask"] = widgets.MaskPainter(PHOTO)
    made = widgets.panel(play, given, label="Edit")
    assert made._viewer.label == "Edit: words a cat, w 4"
    assert widgets.panel(lambda: PHOTO, {})._viewer.label == "Result"


def test_controls_are_named_and_run_once_for_a_drag():
    given = controls() | {
        "words": ipywidgets.Text("x"),
        "n": ipywidgets.IntSlider(description="How many"),
    }
    panel = widgets.panel(lambda **values: "x", given)
    assert given["words"].description == "words" and given["n"].description == "How many"
    assert not given["share"].continuous_update and not given["words"].continuous_update
    assert all(f"bl-control-{name}" in control._dom_classes for name, control in given.items())
    assert "bl-panel" in panel._dom_classes
    with pytest.raises(ValueError, match="x is a VBox, which has no value"):
        widgets.panel(play, {"x": ipywidgets.VBox()})
    with pytest.raises(ValueError, match="seed is a int, which has no value"):
        widgets.panel(play, {"seed": 3})


# Saving


def painted_red(mask, share, words, box, flag):
    return Image.composite(Image.new("RGB", mask.size, words), Image.new("RGB", mask.size), mask)


def stepwise(mask, share):
    yield 0.5, Image.new("RGB", mask.size)
    return Image.merge("RGB", [mask.point(lambda v: int(v * share))] * 3)


@pytest.mark.parametrize("function", [painted_red, stepwise])
def test_the_saved_lines_of_python_remake_the_same_picture(tmp_path, function):
    given = controls()
    if function is painted_red:
        plain = {"words": "red", "box": ("cat", [(0.5, 1)], ()), "flag": None}
        given |= {
            name: ipywidgets.Dropdown(options=[("it", value)]) for name, value in plain.items()
        }
    panel = widgets.panel(function, given)
    folder = panel.save(tmp_path / "edit")
    assert {f.name for f in folder.iterdir()} == {
        "result.png",
        "mask.png",
        "settings.json",
        "remake.py",
    }
    names = {}
    exec((folder / "remake.py").read_text(), names)
    assert names["picture"] == panel.result
    assert Image.open(folder / "result.png").tobytes() == panel.result.tobytes()
    settings = json.loads((folder / "settings.json").read_text())
    assert settings["mask"] == "mask.png" and settings["share"] == 0.5


def test_functions_of_a_notebook_come_with_their_lines_and_what_they_need():
    def local(mask, share):
        return Image.eval(mask, lambda v: int(v * share * factor))

    factor = 0.5
    panel = widgets.panel(local, controls(), setup="factor = 0.5")
    assert "def local(mask, share):" in panel.code() and factor == 0.5
    MASK.save("mask.png")
    names = {}
    exec(panel.code(), names)
    assert names["picture"].tobytes() == panel.result.tobytes()


def test_save_by_default_makes_a_new_folder_each_time_and_the_button_says_which():
    panel = widgets.panel(play, controls())
    assert [panel.save().as_posix() for _ in range(2)] == ["out/edits/001", "out/edits/002"]
    panel._press_save()
    said = "Saved in out/edits/003: mask.png, remake.py, result.png, settings.json"
    assert panel._viewer.status == said


def test_what_cannot_be_written_as_python_is_not_saved():
    panel = widgets.panel(
        lambda x: "made", {"x": ipywidgets.Dropdown(options=[("array", WHERE.tolist())])}
    )
    panel._press_save()
    assert panel._viewer.error.startswith("a lambda cannot be written")
    panel = widgets.panel(play, controls(), start=False)
    with pytest.raises(ValueError, match="there is no result yet"):
        panel.save()


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


# Own pictures


def as_file(picture, format="PNG", **options):
    file = io.BytesIO()
    picture.save(file, format, **options)
    return file.getvalue()


def choose(upload, name, content):
    """What a FileUpload holds after a choice, in the installed ipywidgets."""
    if ipywidgets.__version__.startswith("7"):
        about = {"name": name, "type": "", "size": len(content), "lastModified": 0}
        upload.file.set_trait("value", {name: {"metadata": about, "content": content}})
    else:
        file = {
            "name": name,
            "type": "",
            "size": len(content),
            "last_modified": 0,
            "content": content,
        }
        arrives(upload.file, value=[file])


def test_files_are_read_from_both_formats_of_ipywidgets():
    seven = {"a.png": {"metadata": {"name": "a.png"}, "content": b"bytes"}}
    eight = ({"name": "a.png", "content": memoryview(b"bytes"), "size": 5},)
    assert uploaded(seven) == uploaded(eight) == [("a.png", b"bytes")]
    assert uploaded({}) == uploaded(()) == []


def test_a_picture_of_the_right_size_is_taken_as_it_is():
    upload = widgets.PictureUpload((32, 24), Image.new("RGB", (32, 24)), note="So it is.")
    values = heard(upload)
    choose(upload, "mine.png", as_file(PHOTO))
    assert values == [PHOTO] and upload.crop.layout.display == "none"
    assert "mine.png is 32 x 24 and is taken as it is. So it is." in upload.says.value


def test_a_large_photo_is_cut_turned_and_reduced_and_all_of_that_is_said():
    photo = Image.new("RGB", (300, 400), "blue")
    photo.paste("red", (0, 0, 150, 400))
    exif = Image.Exif()
    exif[0x0112] = 6
    sideways = as_file(photo.transpose(Image.Transpose.ROTATE_90), "JPEG", exif=exif, quality=95)
    upload = widgets.PictureUpload(64, Image.new("RGB", (64, 64)))
    choose(upload, "phone.jpg", sideways)
    assert upload.crop.boxes == [("this part", (0, 0.125, 1, 0.875))]
    assert np.asarray(upload.value)[:, [4, 60]].mean((0, 2)).round() == pytest.approx(
        [85, 85], abs=2
    )
    assert upload.value.getpixel((4, 32))[0] > 250 and upload.value.getpixel((60, 32))[2] > 250
    said = "phone.jpg is 300 x 400, turned upright. Of it the box is taken, 300 x 300, and reduced to 64 x 64"  # noqa: E501
    assert said in upload.says.value
    arrives(upload.crop, _boxes=[["this part", [0, 0, 0.25, 0.1875]]])
    assert upload.value.getpixel((60, 32))[0] > 250 and "75 x 75" in upload.says.value


@pytest.mark.parametrize(
    "name, content, sentence",
    [
        (
            "notes.txt",
            b"no picture",
            "notes.txt is no picture that can be read here: save it as PNG or JPEG.",
        ),
        ("cut.png", as_file(PHOTO)[:500], "cut.png: image is damaged"),
        ("cmyk.jpg", as_file(PHOTO.convert("CMYK"), "JPEG"), "cmyk.jpg: image is in CMYK"),
    ],
)
def test_files_that_cannot_be_taken_are_refused_in_a_sentence(name, content, sentence):
    upload = widgets.PictureUpload((32, 24), PHOTO)
    choose(upload, name, content)
    assert sentence in upload.says.value and upload.value == PHOTO


def test_fit_takes_the_middle_or_the_box_and_averages():
    squares = Image.fromarray(
        np.kron(np.array([[0, 255], [255, 0]], np.uint8), np.ones((32, 32), np.uint8))
    )
    assert np.array_equal(widgets.fit(squares, 64), np.asarray(squares.convert("RGB")))
    assert widgets.fit(squares, (32, 16), box=(0.5, 0, 1, 0.5)).getextrema() == ((255, 255),) * 3
    assert widgets.fit(PHOTO, 8) == bl.images.fit(PHOTO, 8)
    noise = Image.fromarray(RNG.integers(0, 2, (640, 640), dtype=np.uint8) * np.uint8(255))
    assert np.std(widgets.fit(noise, 16)) < 20  # 128 where pixels are picked


def test_an_upload_leads_a_painter_and_a_panel():
    upload = widgets.PictureUpload((32, 24), PHOTO)
    painter = widgets.MaskPainter(PHOTO, MASK)
    ipywidgets.dlink((upload, "value"), (painter, "image"))

    def blacked(image, mask):
        return Image.composite(Image.new("RGB", image.size), image, mask)

    panel = widgets.panel(blacked, {"image": upload, "mask": painter}, before="image")
    mine = PHOTO.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    choose(upload, "mine.png", as_file(mine))
    panel.wait()
    assert panel.result == blacked(mine, MASK)
    assert Image.open(io.BytesIO(panel._viewer.before)).tobytes() == mine.tobytes()
    assert Image.open(io.BytesIO(painter._image)).tobytes() == mine.tobytes()


# The files


def test_nothing_comes_from_the_network_and_every_file_can_be_read_whole():
    scripts = sorted(common.HERE.glob("*.js"))
    assert len(scripts) == 6
    for path in [*scripts, common.HERE / "widgets.css"]:
        text = path.read_text()
        assert not re.search(r"https?:|//cdn|@import|\bimport\b.*from|url\(", text), path.name
        assert text.count("\n") < 250 and max(map(len, text.splitlines())) <= 110, path.name


# Ratings


def pairs(n=6):
    ours, theirs = (torch.full((n, 3, 8, 8), value) for value in (1.0, -1.0))
    return widgets.Rating(ours, theirs, ("white", "black"))


def test_a_blind_rating_keeps_whose_picture_was_chosen_wherever_it_stood():
    study, sides = pairs(), []
    for _ in range(6):
        shown = Image.open(io.BytesIO(study._sides[0].value))
        white = shown.getpixel((0, 0)) == (255, 255, 255)
        sides.append(white)
        study.buttons["left" if white else "right"].click()
    assert study.votes == [0] * 6 and 0 < sum(sides) < 6  # white stands on either side
    assert all(button.disabled for button in study.buttons.values())
    study.answer("left")
    assert len(study.votes) == 6 and "6 pairs are rated" in study._says.value


def test_a_rating_says_which_picture_is_which_to_those_who_do_not_see_it():
    study = pairs(2)
    assert [side.get_state()["tooltip"] for side in study._sides] == [
        "The left picture. Pair 1 of 2.",
        "The right picture. Pair 1 of 2.",
    ]


def test_a_rating_without_a_difference_is_no_vote_and_names_stay_hidden():
    study = pairs(2)
    study.buttons["no difference"].click()
    assert study.votes == [None] and study.order == pairs(2).order
    shown = str([child.get_state() for child in study.children])
    assert "white" not in shown and "black" not in shown
    with pytest.raises(ValueError, match="'both' is no answer; choose left, right"):
        study.answer("both")
    with pytest.raises(ValueError, match="1 and 2 pictures"):
        widgets.Rating(torch.zeros(1, 3, 8, 8), torch.zeros(2, 3, 8, 8))
    with pytest.raises(ValueError, match="1 questions for 2 pairs: pass one for each, or none"):
        widgets.Rating(
            [Image.new("RGB", (8, 8))] * 2, [Image.new("RGB", (8, 8))] * 2, questions=["?"]
        )


@pytest.mark.parametrize("make", [widgets.MaskPainter, widgets.ScribblePainter])
def test_an_option_that_a_painter_does_not_have_is_refused(make):
    with pytest.raises(ValueError, match=f"{make.__name__} has no option 'bush': it has .*brush"):
        make(Image.new("RGB", (8, 8)), bush=3)
