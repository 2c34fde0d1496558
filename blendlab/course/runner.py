"""The notebook runner of `make run`, `make notebooks` and the tests: execute, tidy, show pictures.

No paper. `python -m blendlab.course --help` says what it can do. Read next:
notebooks/00_start_here.ipynb.
"""

import base64
import hashlib
import io
import math
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import Refused
from ..files import replacing
from .page import headings, page, place, plain

REPOSITORY, RELEASE = (
    "blendlab/blendlab",
    "v0.1.0",
)  # where the Colab badges point; a release is a tag
# bytes of pictures in a notebook; with more, the largest ones get 256 colours each
LARGEST = 900_000
SIDE = 256  # pixels of a widget's picture
STATE, VIEW = (
    "application/vnd.jupyter.widget-state+json",
    "application/vnd.jupyter.widget-view+json",
)
HELD = {"ImageModel": ["value"], "AnyModel": ["picture"]}  # where a widget holds what it shows


@dataclass
class Run:
    """One executed notebook: problems is empty when all went well, else one text per error."""

    path: Path
    notebook: dict
    problems: list[str]
    seconds: float


def notebooks(folder: Path | str = "notebooks") -> list[Path]:
    """All notebooks of the course in order, each followed by its solutions if it has some."""
    found = [p for p in Path(folder).rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts]
    return sorted(found, key=lambda p: (p.name, len(p.parts)))


def chosen(names: list[Path] | None) -> list[Path]:
    """The notebooks with these names, or all of the course; refuses what is none."""
    for path in names or []:
        if path.suffix != ".ipynb" or not path.is_file() or not readable(path):
            raise Refused(f"{path} is no notebook: name an .ipynb file that is there")
    found = names or notebooks()
    if not found:
        raise Refused("there is no notebook here: run this in the top folder of the clone")
    return found


def readable(path: Path) -> bool:
    """Whether a file holds a notebook."""
    import nbformat

    try:
        return bool(nbformat.read(path, as_version=4))
    except Exception:  # a file may hold anything
        return False


def badge(path: Path) -> str:
    """The "Open in Colab" line that the notebook at path carries in its first cell."""
    link = f"https://colab.research.google.com/github/{REPOSITORY}/blob/{RELEASE}/{place(path)}"
    return f"[![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)]({link})"


# --- executing
# ----------------------------------------------------------------------------------------


RUNNING: set = set()  # clients of the kernels that run now


def execute_all(paths: list[Path]) -> Iterator[Run]:
    """Run notebooks side by side, a core for each, and yield them in order; one after the other
    with other models.

    Networks as small as tinyworld's hardly gain from a second core, so two notebooks take little
    longer than one.
    """
    at_once = 1 if "BLENDLAB_MODEL" in os.environ else min(len(paths), os.cpu_count() or 1, 4)
    threads: dict[str, Any] = {} if at_once == 1 else {"OMP_NUM_THREADS": "1"}
    with ThreadPoolExecutor(at_once) as pool:
        try:
            yield from pool.map(lambda path: execute(path, **threads), paths)
        except BaseException:  # an interrupt: kernels do not hear it, and would go on to their end
            for client in list(RUNNING):
                client.km.provisioner.process.kill()
            raise


def execute(path: Path | str, timeout: int = 600, **variables: str) -> Run:
    """Run one notebook top to bottom in a fresh kernel, in a copy of its folder.

    timeout is in seconds, per cell; variables are for the kernel's environment. Stays offline while
    BLENDLAB_MODEL is not set. The file is not changed.
    """
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
    from tqdm import tqdm

    path, start, problems = Path(path), time.perf_counter(), []
    nb = nbformat.read(path, as_version=4)
    with (
        tempfile.TemporaryDirectory() as copy,
        tqdm(total=len(code(nb)), desc=path.stem, unit="cell") as bar,
    ):
        here = shutil.copytree(path.parent, Path(copy) / path.resolve().parent.name)
        client = NotebookClient(
            nb,
            timeout=timeout,
            kernel_name="python3",
            kernel_manager_class=patient_manager(),
            shutdown_kernel="immediate",  # else it waits for PyTorch to leave: 3 s
            store_widget_state=True,
            record_timing=False,
            extra_arguments=[
                "--IPKernelApp.log_level=40"
            ],  # errors; else it warns that it listens on a port
            resources={"metadata": {"path": str(here)}},
            on_cell_executed=lambda **_: bar.update(),
        )
        RUNNING.add(client)
        try:
            client.execute(env=kernel_environment() | variables)
        except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
            problems = [f"{path.name}: {error}"]
        finally:
            RUNNING.discard(client)
    return Run(path, nb, problems + hidden_errors(nb, path.name), time.perf_counter() - start)


def patient_manager() -> type:
    """A kernel manager whose clients look every second whether a reply is there.

    Where a cell shows a picture in a widget, nbclient sends on the socket that it waits on, and the
    wait may sleep through the reply until the cell's timeout.
    """
    from queue import Empty

    from jupyter_client import AsyncKernelClient, AsyncKernelManager
    from jupyter_client.channels import AsyncZMQSocketChannel

    class Channel(AsyncZMQSocketChannel):
        async def get_msg(self, timeout=None):
            end = time.monotonic() + (math.inf if timeout is None else timeout)
            while (left := end - time.monotonic()) > 1:
                try:
                    return await super().get_msg(1)
                except Empty:
                    pass
            return await super().get_msg(max(0, left))

    class Client(AsyncKernelClient):
        shell_channel_class = Channel

    class Manager(AsyncKernelManager):
        client_factory = Client

    return Manager


def kernel_environment() -> dict:
    """Variables for the kernel: figures go into the notebook, and tinyworld needs no network."""
    env = {key: value for key, value in os.environ.items() if key != "MPLBACKEND"}
    return env if "BLENDLAB_MODEL" in env else {**env, "HF_HUB_OFFLINE": "1"}


def hidden_errors(nb, name: str) -> list[str]:
    """Errors that a widget's callback printed into its Output widget, where no cell fails."""
    outputs = [out for model in widgets(nb).values() for out in model["state"].get("outputs", [])]
    errors = [out for out in outputs if out["output_type"] == "error"]
    return [
        f"{name}: inside a widget: {plain(chr(10).join(error['traceback']))}" for error in errors
    ]


# --- tidying, so that a notebook can be committed
# -----------------------------------------------------


def tidy(nb):
    """Make an executed notebook fit to commit: pictures for widgets, a hash of its code."""
    state = widgets(nb)
    for cell in code(nb):
        cell.outputs = [kept for output in cell.outputs for kept in settled(output, state)]
    shown = [
        output.data
        for cell in code(nb)
        for output in cell.outputs
        if "image/png" in output.get("data", {})
    ]
    shown.sort(key=lambda data: -len(data["image/png"]))
    for data in shown:
        if sum(len(each["image/png"]) for each in shown) > LARGEST:
            data["image/png"] = squeezed(data["image/png"], colours=256)
    tell(nb)
    nb.metadata.clear()
    nb.metadata.update(
        kernelspec={"name": "python3", "display_name": "Python 3", "language": "python"},
        language_info={"name": "python"},
        blendlab={"code": code_hash(nb)},
    )
    return nb


def tell(nb) -> None:
    """Give each picture that has no alternative text the name of its section as one."""
    heading = ""
    for cell in nb.cells:
        heading = ([heading] + headings(cell.source) * (cell.cell_type == "markdown"))[-1]
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                about = output.metadata.setdefault("image/png", {})
                about["alt"] = about.get("alt") or f"A figure of the section {heading}"


def settled(output, state) -> list:
    """What is left of one output: a widget's picture, one picture of two, a bar's last line."""
    data = output.get("data", {})
    if VIEW in data:
        return shown(data[VIEW]["model_id"], state)
    if "image/png" in data:
        data.pop("image/jpeg", None)  # IPython sends a PIL image as both
        data["image/png"] = squeezed(data["image/png"])
    if output["output_type"] == "stream":
        output["text"] = re.sub(r"[^\n]*\r(?!\n)", "", output["text"])
        return [output] if output["text"].strip() else []
    return [output]


def squeezed(png: str, colours: int | None = None) -> str:
    """The same picture in fewer bytes: pixel for pixel, or in so many colours of its own."""
    from PIL import Image

    before, after = base64.b64decode(png), io.BytesIO()
    picture = Image.open(io.BytesIO(before))
    if colours:
        # Refined by k-means, which halves the error of the median cut.
        picture = picture.convert("RGB").quantize(
            colours, Image.Quantize.MEDIANCUT, kmeans=1, dither=Image.Dither.NONE
        )
    picture.save(after, "PNG", optimize=True)
    return base64.b64encode(min(before, after.getvalue(), key=len)).decode()


def grown(png: str) -> str:
    """A small picture by a whole factor, up to SIDE wide, as the page shows a widget's."""
    from PIL import Image

    picture, after = Image.open(io.BytesIO(base64.b64decode(png))), io.BytesIO()
    factor = max(1, SIDE // picture.width)
    picture.resize([factor * side for side in picture.size], Image.Resampling.NEAREST).save(
        after, "PNG"
    )
    return base64.b64encode(after.getvalue()).decode()


def shown(model_id: str, state) -> list:
    """The outputs and pictures that a widget and its children show, in order."""
    import nbformat

    model = state.get(model_id, {"state": {}})
    inner = model["state"]
    path = HELD.get(inner.get("_model_name"))
    buffers = [b["data"] for b in model.get("buffers", []) if b["path"] == path]
    text = inner.get("label") or inner.get("tooltip")
    said = {"image/png": {"alt": text}} if text else {}
    own = [
        nbformat.v4.new_output("display_data", {"image/png": squeezed(grown(data))}, metadata=said)
        for data in buffers
        if data
    ]
    if inner.get("table"):
        own += [nbformat.v4.new_output("display_data", {"text/html": inner["table"]})]
    for output in inner.get("outputs", []):
        own += settled(nbformat.from_dict(output), state)
    for child in inner.get("children", []):
        own += shown(child.removeprefix("IPY_MODEL_"), state)
    return own


def code(nb) -> list:
    """The code cells that have any code."""
    return [cell for cell in nb.cells if cell.cell_type == "code" and cell.source.strip()]


def code_hash(nb) -> str:
    """A fingerprint of all code cells, 16 hexadecimal digits; text may change freely."""
    return hashlib.sha256("\0".join(cell.source for cell in code(nb)).encode()).hexdigest()[:16]


def fresh(nb) -> bool:
    """Whether the saved outputs were made by the code that stands there now."""
    return nb.metadata.get("blendlab", {}).get("code") == code_hash(nb)


def widgets(nb) -> dict:
    """The saved state of every widget, by model id."""
    return nb.metadata.get("widgets", {}).get(STATE, {}).get("state", {})


# --- the command
# --------------------------------------------------------------------------------------


def main(
    names: Annotated[
        list[Path] | None, typer.Argument(help="Notebooks; without names, all.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Where executed notebooks and pictures go.")] = Path(
        "out"
    ),
    save: Annotated[bool, typer.Option("--save", help="Save in place instead.")] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Only name those with old outputs.")
    ] = False,
):
    """Execute the course.

    Example: python -m blendlab.course --out out notebooks/00_start_here.ipynb
    """
    try:
        paths = chosen(names)
    except Refused as error:
        sys.exit(str(error))
    sys.exit(stale(paths) if check else run(paths, out, save))


def stale(paths: list[Path]) -> int:
    """Name the notebooks whose outputs are older than their code; returns how many."""
    import nbformat

    old = [path for path in paths if not fresh(nbformat.read(path, as_version=4))]
    for path in old:
        print(
            f"{path}: the code changed after its outputs were made; run: make notebooks ARGS={path}"
        )
    return len(old)


def run(paths: list[Path], out: Path, save: bool) -> int:
    """Execute notebooks, in place or to out with the page of pictures; return the failures."""
    import nbformat

    runs, start = [], time.perf_counter()
    for path, done in zip(paths, execute_all(paths), strict=True):
        runs.append(done)
        tidy(done.notebook)
        target = path if save else out / place(path)
        if not (save and done.problems):  # never save a broken run over a good one
            with replacing(target) as part:
                nbformat.write(done.notebook, part)
        saved = f"{path}: {done.seconds:.0f} s, saved as {target}"
        print("\n".join(plain(p) for p in done.problems) or saved, flush=True)
    if not save:
        (out / "index.html").write_text(page(runs), encoding="utf-8")
        print(f"All pictures: {out / 'index.html'}")
    failed = sum(bool(done.problems) for done in runs)
    print(
        f"{len(runs) - failed} of {len(runs)} notebooks ran, "
        f"{time.perf_counter() - start:.0f} s in all"
    )
    return failed
