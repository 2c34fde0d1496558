"""What a panel's Save writes: the result, what it was made from, and Python that makes it again.

No paper. Next: needs.py, the lines of a notebook that it needs; back to panel.py.
"""

import inspect
import textwrap
from pathlib import Path

from PIL import Image

from ... import files
from . import needs


def code(function, values: dict, setup: str, folder, steps: bool = False) -> str:
    """Python that calls function(**values) again; pictures among the values come from folder.

    setup: what the function needs before it; empty: the lines of the notebook that it needs. steps:
    what it returns is a film.
    """
    words = ", ".join(f"{name}={_written(name, value, folder)}" for name, value in values.items())
    call = f"{function.__name__}({words})"
    imports = []
    if any(isinstance(value, Image.Image) for value in values.values()):
        imports += ["from PIL import Image"]
    if steps or inspect.isgeneratorfunction(function):
        imports += ["from blendlab.course.widgets import result"]
        call = f"result({call})"
    parts = [
        "\n".join(imports),
        textwrap.dedent(setup).strip() or needs.of(function),
        _source(function),
        f"picture = {call}",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def write(folder: Path, seen, values: dict, lines: str):
    """result.png (or .html), NAME.png for pictures among the values, settings.json, remake.py."""
    folder.mkdir(parents=True, exist_ok=True)
    if isinstance(seen, Image.Image):
        seen.save(folder / "result.png")
    else:
        (folder / "result.html").write_text(seen, encoding="utf-8")
    plain = {}
    for name, value in values.items():
        plain[name] = value
        if isinstance(value, Image.Image):
            plain[name] = f"{name}.png"
            value.save(folder / plain[name])
    files.write_json(folder / "settings.json", plain)
    (folder / "remake.py").write_text(lines, encoding="utf-8")


def new_folder(above: Path = Path("out/edits")) -> Path:
    """The first of out/edits/001, 002, ... that is not there yet."""
    number = 1
    while (above / f"{number:03d}").exists():
        number += 1
    return above / f"{number:03d}"


def _written(name, value, folder):
    """A value as Python writes it."""
    if isinstance(value, Image.Image):
        return f"Image.open({(Path(folder) / name).as_posix() + '.png'!r})"
    if isinstance(value, (str, int, float, bool, type(None))):
        return repr(value)
    if isinstance(value, (list, tuple)):
        inner = "".join(_written(name, one, folder) + ", " for one in value)
        return f"[{inner[:-2]}]" if isinstance(value, list) else f"({inner.rstrip()})"
    kind = type(value).__name__
    raise ValueError(f"{name} is a {kind}, which no line of Python writes: give it plain values")


def _source(function):
    """The function's own lines, or its import where it lives in a module."""
    if function.__name__ == "<lambda>":
        raise ValueError(
            "a lambda cannot be written to a file: give the panel a function, def play(...)"
        )
    if function.__module__ != "__main__" and "<locals>" not in function.__qualname__:
        return f"from {function.__module__} import {function.__name__}"
    return textwrap.dedent(inspect.getsource(function)).strip()
