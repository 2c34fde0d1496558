"""What a lecturer gets of a notebook: the students' version with points, the solved one, slides.

`blendlab course pack` writes them from the notebooks as they were saved; nothing is executed.
Points are in the cells' metadata, as nbgrader reads it. Goals, minutes and questions are in
notebooks/for_lecturers.md. No paper. Next: slides.py, and ../measuring/goals.py.
"""

import ast
import base64
import re
import shutil
from copy import deepcopy
from pathlib import Path

from ..errors import Refused
from . import slides
from .exercises.common import CHECKERS
from .page import place
from .runner import RELEASE, REPOSITORY

BADGE = re.compile(r"\[!\[Open In Colab\][^\n]*\n+")
FOLDED = re.compile(r"<details><summary>([^<]*)</summary>\n*(.*?)\n*</details>\n?", re.S)
CHECKED = re.compile(r"\bexercises\.(check_\w+)\((\w+)\)")
WRITTEN = re.compile(r"exercises\.attempt\((\w+), ")
REACHED = (
    "from blendlab.measuring import goals\n\ngoals.reached({1}) if exercises.{0}({1}) else 0.0"
)
CONFIG = """c = get_config()
c.CourseDirectory.course_id = "blendlab"
# The students' notebooks hold no solutions, so none are to be taken out.
c.CourseDirectory.source_directory = "student"
c.GenerateAssignment.preprocessors = [
    "nbgrader.preprocessors." + name
    for name in ("LockCells", "ClearOutput", "CheckCellMetadata", "ComputeChecksums", "SaveCells")
]
c.Execute.timeout = 600  # seconds a cell
"""


def pack(paths: list[Path], out: Path, goals: dict[str, int]) -> list[str]:
    """Write the pack of these notebooks to a folder; what could not be made, and why.

    goals: what it is worth to reach the goal of a function, by its name; see measuring/goals.py.
    """
    import nbformat

    out.mkdir(parents=True, exist_ok=True)
    (out / "nbgrader_config.py").write_text(CONFIG)
    missing = []
    for path in paths:
        nb, twin = (
            nbformat.read(file, as_version=4) if file.exists() else None
            for file in (path, path.parent / "solutions" / path.name)
        )
        page = path.parent / "for_lecturers.md"
        if page.exists():
            shutil.copy(page, out)
        done = solved(nb, twin, path)
        for made, file in (
            (student(nb, path, goals), out / "student" / path.stem / path.name),
            (done, out / "solved" / path.name),
        ):
            file.parent.mkdir(parents=True, exist_ok=True)
            nbformat.write(made, file)
        notes = slides.notes(page.read_text("utf-8"), path.stem) if page.exists() else {}
        missing += slides.write(done, notes, out / "slides" / f"{path.stem}.html")
    return list(dict.fromkeys(missing))


def student(nb, path: Path, goals: dict[str, int]):
    """The notebook without outputs, answers and the hints that are nearly the code, with points."""
    nb = plain(nb, path, others="../{0}/{0}.ipynb")
    cells: list = []
    for cell in nb.cells:
        if cell.cell_type == "markdown":
            cell.source = FOLDED.sub(open_to_students, cell.source)
            cell.source = re.sub(slides.SOLUTIONS, "", cell.source).strip()
        else:
            cell.outputs, cell.execution_count = [], None
        graded = graded_cells(cell, goals) if cell.cell_type == "code" else []
        if graded:
            cell.metadata["nbgrader"] = marks(f"answer-{len(cells)}", solution=True)
        cells += [cell, *graded]
    nb.cells = cells
    return nb


def open_to_students(found) -> str:
    summary = found[1]
    return "" if summary.startswith("Answer") or "nearly the code" in summary else found[0]


def graded_cells(cell, goals: dict[str, int]) -> list:
    """Cells that give the points for what a cell asks the student to write."""
    import nbformat

    checked = CHECKED.findall(cell.source)
    written = [(CHECKERS[mine].__name__, mine) for mine in WRITTEN.findall(cell.source)]
    checked += written
    asked = [(f"exercises.points(exercises.{check}, {mine})", f"{check}-{mine}", 1)
             for check, mine in checked]  # fmt: skip
    asked += [(REACHED.format(check, mine), f"goal-{mine}", goals[mine])
              for check, mine in written if mine in goals]  # fmt: skip
    made = []
    for call, name, worth in asked:
        made.append(nbformat.v4.new_code_cell(call))
        made[-1].metadata["nbgrader"] = marks(name, grade=True, locked=True, points=worth)
    return made


def marks(grade_id, grade=False, solution=False, locked=False, points=None) -> dict:
    """What nbgrader wants to know of a cell."""
    told = dict(grade_id=grade_id, grade=grade, solution=solution, locked=locked, task=False)
    told |= {"points": points} if grade else {}
    return told | {"schema_version": 3, "cell_type": "code"}


def solved(nb, twin, path: Path):
    """The notebook with the functions of its solutions in place of those still to write.

    Outputs stay, as they were made with the package's version of the same; cells that have changed
    lose theirs.
    """
    nb = plain(nb, path, others="{0}.ipynb")
    answers: dict[str, str] = {}  # and what they import that the notebook does not
    for cell in twin.cells if twin else []:
        if cell.cell_type == "code":
            answers |= functions(cell.source) | imported(cell.source)
    for cell in nb.cells:
        for name in imported(cell.source) if cell.cell_type == "code" else ():
            answers.pop(name, None)
    for cell in nb.cells:
        if cell.cell_type != "code" or "raise NotImplementedError" not in cell.source:
            continue
        for name, stub in functions(cell.source).items():
            if "raise NotImplementedError" in stub and name in answers:
                cell.source = cell.source.replace(stub, with_helpers(answers[name], answers))
        cell.outputs, cell.execution_count = [], None
    return nb


def with_helpers(answer: str, others: dict[str, str]) -> str:
    """A function, after the imports and the functions of the solutions that it uses."""
    nodes = list(ast.walk(ast.parse(answer)))
    called = {node.id for node in nodes if isinstance(node, ast.Name)}
    called -= {node.arg for node in nodes if isinstance(node, ast.arg)}
    helpers = [others[name] for name in others if name in called and others[name] != answer]
    return "\n\n\n".join([*helpers, answer])


def without_magic(code: str) -> str:
    """A cell as the Python that IPython runs: calls stand for lines with % or !."""
    from IPython.core.inputtransformer2 import TransformerManager

    return TransformerManager().transform_cell(code)


def imported(code: str) -> dict[str, str]:
    """The line of each import of a cell, by the name that it gives."""
    lines = [
        node
        for node in ast.parse(without_magic(code)).body
        if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    return {alias.asname or alias.name: ast.unparse(line) for line in lines for alias in line.names}


def functions(code: str) -> dict[str, str]:
    """The source of each function of a cell, by name."""
    code = without_magic(code)
    found = [node for node in ast.parse(code).body if isinstance(node, ast.FunctionDef)]
    return {node.name: ast.get_source_segment(code, node) or "" for node in found}


def plain(nb, path: Path, others: str):
    """A copy that stands alone: its pictures inside, links to where they lead from elsewhere.

    others: where the other notebooks lie, with {0} for a name.
    """
    nb = deepcopy(nb)
    nb.metadata.pop("blendlab", None)  # the hash of code that is no longer this
    for cell in nb.cells:
        if cell.cell_type == "markdown":
            cell.source = BADGE.sub("", cell.source)
            for name in re.findall(r"!\[[^\]]*\]\(([^):]*)\)", cell.source):
                attach(cell, name, path.parent / name)
            cell.source = re.sub(
                r"\]\(((?!attachment)[^):#]+)\)",
                lambda found: f"]({leads(found[1], path, others)})",
                cell.source,
            )
    return nb


def attach(cell, name: str, file: Path):
    """Put a picture of the repository into the cell that shows it."""
    if not file.is_file():
        raise Refused(f"{file} is missing: run this in the top folder of the clone")
    data = base64.b64encode(file.read_bytes()).decode()
    cell.setdefault("attachments", {})[file.name] = {"image/png": data}
    cell.source = cell.source.replace(f"]({name})", f"](attachment:{file.name})")


def leads(link: str, path: Path, others: str) -> str:
    """Where a link to a file of the repository leads: another notebook of the pack, or the web."""
    file = Path(link)
    if file.suffix == ".ipynb" and file.parent == Path("."):
        return others.format(file.stem)
    here = Path(place(path)).parent / link
    parts: list[str] = []
    for part in here.parts:
        parts = parts[:-1] if part == ".." else [*parts, part]
    return f"https://github.com/{REPOSITORY}/blob/{RELEASE}/{'/'.join(parts)}"
