"""The leaderboard of a class: rows that precision.py made on several machines, on one page.

    blendlab results precision --add my_method.py -o anna   # a row and its pictures, in anna/
    blendlab leaderboard class/            # merges class/anna/..., class/ben/...

Rows that were made with other tasks or networks are refused with the reason. Next: precision.py.
"""

import html
import json
import math
from collections import Counter
from pathlib import Path

from .. import files
from ..errors import Refused
from . import pages, precision, results

KINDS = {"what": str, "device": str, "command": str, "seconds": float, "n": int}


def merge(folder) -> tuple[dict, list[str]]:
    """Make one table and page of all rows below a folder; returns it, and why rows were refused."""
    folder, found, refused = Path(folder), {}, []
    for path in sorted(folder.rglob("row.json")):
        name = path.parent.relative_to(folder).as_posix()
        try:
            if path.parent == folder:
                raise Refused(f"it lies in {folder} itself: name the folder above")
            found[name] = _read(path)
        except Exception as error:  # a row may come from anyone, and hold anything
            refused.append(f"{name}: no row ({error})")
    if not found:
        because = f" ({'; '.join(refused)})" if refused else ""
        raise Refused(
            f"there are no rows below {folder}{because}; make one with `blendlab results precision "
            f"--add my_method.py -o {folder}/NAME`"
        )
    now = {task: precision.tasks_of(task) for task in precision.TASKS}
    reasons = {name: _outdated(one, now[_asked(one)[0]]) for name, one in found.items()}
    fit = [one for name, one in found.items() if not reasons[name]]  # others have no vote
    usual = Counter(_asked(one) for one in fit or found.values()).most_common(1)[0][0]
    reasons = {name: reasons[name] or _unlike(one, usual) for name, one in found.items()}
    refused += [f"{name}: {reason}" for name, reason in reasons.items() if reason]
    kept = {name: found[name] for name, reason in reasons.items() if not reason}
    if not kept:
        raise Refused("every row was refused: " + "; ".join(refused))

    made = _joined(kept) | {"command": f"blendlab leaderboard {folder.name}"}
    pages.write_table(folder / "leaderboard", made)
    _page(folder, made, refused)
    return made, refused


def _joined(kept: dict) -> dict:
    """One table of rows, the most precise first."""
    rows = [one["rows"][0] | {"label": name} for name, one in kept.items()]
    rows.sort(key=lambda row: -((row.get("batch precision") or row.get("gone"))[0] or 0))
    made = {k: v for k, v in next(iter(kept.values())).items() if k != "identity"}
    weights = {k: v for one in kept.values() for k, v in one["identity"]["weights"].items()}
    seconds = sum(one["seconds"] for one in kept.values())
    return made | {"rows": rows, "weights": weights, "seconds": seconds, "device": "their machines"}


def _page(folder, made, refused):
    sheets = [pages.figure(row["label"], [Path(row["label"]) / "sheet.png"], ["its first scenes"])
              for row in made["rows"]]  # fmt: skip
    lines = "".join(f"<li>{html.escape(line)}</li>" for line in refused)
    said = f"<h2>Refused</h2><ul>{lines}</ul>" * bool(refused)
    body = results.Table(made)._repr_html_() + "".join(sheets) + said
    files.write_text(folder / "leaderboard.html", pages.PAGE.format(title="Leaderboard", body=body))


def _read(path):
    one = json.loads(path.read_text(encoding="utf-8"))
    (row,) = one["rows"]
    for column, value in row.items():
        if column not in results.BESIDE and not _is_interval(value, not column.endswith(")")):
            raise Refused(f"{column!r} is {value!r}, not value, low and high")
    task, *_ = _asked(one)
    if task not in precision.TASKS or not {"batch precision", "gone"} & row.keys():
        raise Refused(f"its task is {task!r}")
    weights = one["identity"]["weights"]
    if not isinstance(weights, dict) or not set(precision.MEASURING) <= weights.keys():
        raise Refused(f"its weights do not name {', '.join(precision.MEASURING)}")
    if not all(type(one[name]) is kind for name, kind in KINDS.items()):
        raise Refused(f"{', '.join(KINDS)} are not all there as they should be")
    return one


def _is_interval(value, share):
    """Value, low and high, finite and in order; or a value alone, or nothing. Shares are 0 to 1."""
    if not isinstance(value, list) or len(value) != 3:
        return False
    there = [x for x in value if x is not None]
    if not all(type(x) in (int, float) and math.isfinite(x) for x in there):
        return False
    if len(there) == 2 or len(there) == 1 and value[0] is None:
        return False
    ordered = len(there) < 3 or value[1] <= value[2]
    return ordered and not (share and any(not -1e-6 <= x <= 1 + 1e-6 for x in there))


def _asked(one):
    """Task, scenes and batch of a row."""
    return one["identity"]["task"], int(one["n"]), int(one["identity"]["batch"])


def _unlike(one, usual) -> str:
    """Why a row cannot be compared with most; empty if it can."""
    for name, mine, others in zip(("task", "scenes", "batch"), _asked(one), usual, strict=True):
        if mine != others:
            return f"made with {name} {mine}, the others with {others}"
    return ""


def _outdated(one, now) -> str:
    """Why a row could not be made here, where its task is as `now` says; empty if it could."""
    if {key: one["identity"].get(key) for key in now} != now:
        return "made with other tasks: another version of blendlab"
    for name, digits in one["identity"]["weights"].items():
        try:
            here = precision.weights_of(name)
        except (FileNotFoundError, ValueError) as error:
            return f"cannot be checked: {error}"
        if here != digits:
            return f"made with another {name} ({digits}; here {here})"
    return ""
