"""Where blendlab's own files are: data/ lies beside the package in a clone and inside it in a
wheel.

No paper. Read next: images.py, the door that pictures come in through.
"""

from pathlib import Path

PACKAGE = Path(__file__).parent


def data(name: str = "") -> Path:
    """Path of a file of data/, as in data("scenes/meadow.png"); ValueError names the files there
    are, and refuses what leads out of data/.
    """
    if not isinstance(name, str) or "\0" in name:
        raise ValueError(f'the name in data/ is {name!r}: pass a text, as in "scenes/meadow.png"')
    folder = next(place for place in (PACKAGE / "data", PACKAGE.parent / "data") if place.is_dir())
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"{name!r} leads out of data/: open other files by their own path")
    if not path.exists():
        there = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
        raise ValueError(f"data/ has no {name!r}; it has {', '.join(there)}")
    return path
