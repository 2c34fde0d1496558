"""One panel behind every Play section: controls, a function of their values, and what it returns.

    def play(mask, words, seed):              # the function that the notebook has already called
        return bl.blended_latent(pipe, image, mask, words, seed=seed).images[0]

    panel(play, {"mask": MaskPainter(image, mask), "words": widgets.Text("a red mushroom"),
                 "seed": widgets.IntSlider(0, 0, 20)}, before=image)

The function gets the `value` of each control by name. It is plain and returns its result, or it is
a generator that yields (done, picture) after each step, done from 0 to 1, and returns the result
(if it returns none, its last picture is the result), see film.py. Pictures: PIL, tensors, figures,
lists of pictures. A result may also be a text, or an object that shows itself as HTML.

It runs once when the panel is made, in the cell, so that a notebook without a browser has the same
picture; then at every change, in a thread. There is one run at a time, in all panels together, and
the latest change wins: a change or Stop ends a generator at its next step and a plain function as
Ctrl-C would, so that `with` and `finally` put back what they changed.
No paper. Next: painter.py, boxes.py and upload.py, the controls; remake.py, what Save writes.
"""

import html
import io
import threading
import time
from contextlib import closing
from pathlib import Path

import ipywidgets as widgets
from PIL import Image
from torch import Tensor

from ... import images, viz
from . import remake
from .common import encoded, picture
from .runs import ONE_AT_A_TIME, Run, Stopped
from .viewer import Viewer


class Panel(widgets.VBox):
    """`panel(function, controls)` makes one. Controls are widgets with a `value`, by name.

    before: a picture to swipe from, or the name of the control that holds it. label: what a screen
    reader calls the result; the values that made it follow. setup: Python that the function needs
    before it, for `code`; in a notebook, its own lines that made what the function uses.
    auto: run at every change, not only on Run. start: run once now.

    result, frames, values: of the latest run that came to its end, which is the one that is shown.
    error: why the latest run failed, or None.
    """

    def __init__(
        self, function, controls, before=None, setup="", auto=True, start=True, label="Result"
    ):
        self.function, self.controls, self.setup = function, dict(controls), setup
        self.result = self.values = self.error = None
        self.frames, self._latest, self._threads = [], None, []
        self._before, self._auto = before, auto
        self._label, self._viewer = label, Viewer(label=label)
        self._stop = _button("Stop", self.stop)
        self._buttons = [_button("Run", self.start), self._stop, _button("Save", self._press_save)]
        for name, control in self.controls.items():
            _dress(name, control)
        self._idle("")
        if start:
            self.run()
        row = widgets.HBox(self._buttons).add_class("bl-buttons")
        left = widgets.VBox([*self.controls.values(), row]).add_class("bl-controls")
        super().__init__([widgets.HBox([left, self._viewer]).add_class("bl-sides")])
        self.add_class("bl-panel")
        for control in self.controls.values() if auto else ():
            control.observe(self._changed, "value")

    # Running

    def run(self):
        """Run once here and now, and return the result or raise the error."""
        run = self._next()
        with ONE_AT_A_TIME:
            self._perform(run)
        if self.error:
            raise self.error
        return self.result

    def start(self):
        """Run in a thread with what the controls hold now, and end what runs already."""
        run = self._next()
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        self._threads.append(threading.Thread(target=self._in_turn, args=[run], daemon=True))
        self._threads[-1].start()

    def stop(self):
        """End the run that is under way, if there is one; the last result stays."""
        if self._latest:
            self._latest.stop()

    def wait(self):
        """Return when no run is under way."""
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join()

    def close(self):
        """End the run, let go of the controls, and remove the panel; a second time does nothing."""
        for control in self.controls.values() if self._auto else ():
            control.unobserve(self._changed, "value")
        self._auto = False
        self.stop()
        self.wait()
        for widget in (self._viewer, *self._buttons):
            widget.close()
        super().close()

    def _changed(self, change):
        self.start()

    def _next(self):
        self.stop()
        self._latest = Run({name: control.value for name, control in self.controls.items()})
        return self._latest

    def _in_turn(self, run):
        with ONE_AT_A_TIME:
            if not run.stopped:
                self._perform(run)

    def _perform(self, run):
        """Show what the run yields, then its result, or in one sentence why there is none."""
        began, frames = time.perf_counter(), []
        self._busy()
        try:
            with closing(run.steps(self.function)) as steps:
                for done, value in steps:
                    frames += [] if value is None else [_seen(value)]
                    self._progress(done, frames)
            self._finish(run.values, value, frames, f"{time.perf_counter() - began:.1f} s")
        except Stopped:
            self._idle("Stopped; what is shown was there before")
        except Exception as error:
            self.error = error
            self._idle("", _sentence(error))
        except BaseException:
            self._idle("Interrupted")
            raise

    def _finish(self, values, value, frames, took):
        """Keep what came out, and show it."""
        if value is None:
            raise TypeError(
                f"{self.function.__name__} returned nothing: end it with return picture"
            )
        seen, before = frames.pop(), self._picture_before(values)
        is_picture = isinstance(seen, Image.Image)
        if before and is_picture and seen.width * before.height != seen.height * before.width:
            (w, h), (width, height) = seen.size, before.size
            fix = "return the picture alone, or leave before= out"
            raise ValueError(
                f"the result is {w}x{h} and the picture before {width}x{height}: {fix}"
            )
        self.result, self.values, self.frames, self._seen = value, values, frames, seen
        with self._viewer.hold_sync():
            self._viewer.label = _said(self._label, values)
            self._viewer.film = (
                [encoded(frame, film=True) for frame in frames] if is_picture else []
            )
            self._viewer.picture = encoded(seen) if is_picture else b""
            self._viewer.before = encoded(before) if before and is_picture else b""
            self._viewer.table = "" if is_picture else seen
            self._idle(took)

    def _picture_before(self, values):
        given = values[self._before] if isinstance(self._before, str) else self._before
        return None if given is None else picture(given, "before")

    # Saying how it stands

    def _busy(self):
        self.error, self._stop.disabled = None, False
        with self._viewer.hold_sync():
            self._viewer.busy, self._viewer.done = True, None
            self._viewer.status, self._viewer.error = "Working", ""

    def _progress(self, done, frames):
        with self._viewer.hold_sync():
            self._viewer.done, self._viewer.status = float(done), f"{done:.0%}"
            if frames and isinstance(frames[-1], Image.Image):
                self._viewer.preview = encoded(frames[-1], film=True)

    def _idle(self, status, error=""):
        self._stop.disabled = True
        with self._viewer.hold_sync():
            self._viewer.busy, self._viewer.preview = False, b""
            self._viewer.status, self._viewer.error = status, error

    # Saving

    def code(self, folder=".") -> str:
        """Python that remakes the result; pictures among the values are read from folder."""
        made_with, steps = self._made_with(), bool(self.frames)
        return remake.code(self.function, made_with, self.setup, folder, steps)

    def save(self, folder=None) -> Path:
        """Write result, values and remake.py to a folder, by default a new one in out/edits."""
        values = self._made_with()
        folder = remake.new_folder() if folder is None else Path(folder)
        remake.write(folder, self._seen, values, self.code(folder))
        return folder

    def _made_with(self):
        if self.values is None:
            raise ValueError("there is no result yet: press Run, or call run()")
        return self.values

    def _press_save(self):
        try:
            folder = self.save()
        except (ValueError, TypeError, OSError) as error:
            self._viewer.error = _sentence(error)
        else:
            self._viewer.status = f"Saved in {folder}: " + ", ".join(
                sorted(p.name for p in folder.iterdir())
            )


panel = Panel


def _button(name, press):
    button = widgets.Button(description=name).add_class("bl-" + name.lower())
    button.on_click(lambda _: press())
    return button


def _dress(name, control):
    """A control's name, a class to find it by, and no run for every pixel that a slider passes."""
    if not (isinstance(control, widgets.Widget) and control.has_trait("value")):
        raise ValueError(
            f"{name} is a {type(control).__name__}, which has no value: pass one with a value"
        )
    control.add_class("bl-control").add_class("bl-control-" + name)
    if control.has_trait("continuous_update"):
        control.continuous_update = False
    if control.has_trait("description") and not control.description:
        control.description = name.replace("_", " ")


def _seen(value):
    """A result as one picture, or else as HTML."""
    if hasattr(value, "savefig"):
        file = io.BytesIO()
        value.savefig(file, format="png")
        value = Image.open(file)
    if isinstance(value, Image.Image):
        return value.convert("RGB")
    if isinstance(value, Tensor) and value.ndim == 4:
        value = images.to_pil(value)
    if isinstance(value, list):
        return value[0].convert("RGB") if len(value) == 1 else viz.show(value)
    if hasattr(value, "_repr_html_"):
        return value._repr_html_()
    if isinstance(value, str):
        return f"<p>{html.escape(value)}</p>"
    raise TypeError(
        f"the result is a {type(value).__name__}: return a picture, a list of pictures or a text"
    )


def _said(label, values):
    """The label, and the values that words can tell: no masks and pictures."""
    told = [f"{name} {one:g}" if isinstance(one, float) else f"{name} {one}"
            for name, one in values.items() if isinstance(one, (str, int, float))]  # fmt: skip
    return f"{label}: {', '.join(told)}" if told else label


def _sentence(error):
    """What went wrong in one sentence; the panel's `error` keeps the rest."""
    first = str(error).strip().partition("\n")[0]
    expected = isinstance(error, (ValueError, TypeError, MemoryError, OSError))
    return first if expected and first else f"{type(error).__name__}: {first}"
