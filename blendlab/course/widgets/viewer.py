"""What a run shows, as a notebook widget: progress, result, the picture before, film of the steps.

No paper. Next: panel.py, which fills it.
"""

from traitlets import Bool, CBytes, Float, Int, List, Unicode

from .common import CSS, Widget, script


class Viewer(Widget):
    """All of it lies in the browser, so that swiping and scrubbing work while Python is busy."""

    _esm, _css = script("viewer.js"), CSS
    picture, before = CBytes().tag(sync=True), CBytes().tag(sync=True)  # before: none, no swipe
    preview = CBytes().tag(sync=True)  # shown instead of the picture while there is one
    film: List = List().tag(sync=True)  # frames as bytes
    table = Unicode().tag(sync=True)  # a result that is HTML
    busy = Bool(False).tag(sync=True)
    done = Float(None, allow_none=True).tag(sync=True)  # from 0 to 1; None: nobody knows
    status, error = Unicode().tag(sync=True), Unicode().tag(sync=True)
    label = Unicode("Result").tag(sync=True)  # alternative text of the picture
    shown = Int(384).tag(sync=True)  # width of small pictures on the screen
