"""Where blendlab's own files are, and how files are written so that none is ever torn.

data/ lies beside the package in a clone and inside it in a wheel. No paper. Read next: images.py,
the door that pictures come in through.
"""

import json
import os
import secrets
from contextlib import contextmanager
from pathlib import Path

from .errors import Refused

PACKAGE = Path(__file__).parent


def data(name: str = "") -> Path:
    """Path of a file of data/, as in data("scenes/meadow.png"), and of nothing outside it."""
    if not isinstance(name, str) or "\0" in name:
        raise Refused(f'the name in data/ is {name!r}: pass a text, as in "scenes/meadow.png"')
    folder = next(place for place in (PACKAGE / "data", PACKAGE.parent / "data") if place.is_dir())
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise Refused(f"{name!r} leads out of data/: open other files by their own path")
    if not path.exists():
        there = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
        raise Refused(f"data/ has no {name!r}; it has {', '.join(there)}")
    return path


def beside(path) -> Path:
    """An unused name in the same folder, which `replacing` and exports write to first."""
    path = Path(path)
    return path.with_name(f".{path.name}.{secrets.token_hex(6)}.part")


@contextmanager
def replacing(path):
    """Give a name to write to; what is written there then replaces `path` in one move.

    A reader finds the old file or the new one, never a part, whoever else writes and whenever a
    process is killed. When the block fails, the old file stays.
    """
    path, part = Path(path), beside(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield part
        with open(part, "rb+") as file:  # on the disk before it takes the place
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def write_text(path, text: str) -> None:
    """Replace a file by this text, in UTF-8, in one move."""
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8")


def write_json(path, content: dict) -> None:
    """Replace a file by this dictionary, for people to read, in one move."""
    write_text(path, json.dumps(content, indent=2) + "\n")


@contextmanager
def locked(folder):
    """Hold a folder for one process: a second gets a ValueError. A killed one holds nothing."""
    from filelock import FileLock, Timeout

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise Refused(
            f"another process is writing in {folder}; wait for it, stop it, or name another folder"
        ) from None
    try:
        yield
    finally:
        lock.release()
