"""Build the site: the edit in a browser tab, the executed notebooks, the pages around them.

    python site/make.py            needs the extra `site` and npm; writes out/site/html
    python site/make.py live       only the front page's panel, out/site/live

Notebooks are shown as they were saved, never run. Next: export.py, pages.py, conf.py.
"""

import argparse
import gzip
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent
# What is copied of onnxruntime-web, and its WebAssembly under our name; see live/networks.js.
RUNTIMES = {
    "wasm": ("ort.wasm.min.mjs", "ort-wasm-simd-threaded", "runtime.bin"),
    "webgpu": ("ort.jspi.min.mjs", "ort-wasm-simd-threaded.jspi", "runtime-gpu.bin"),
}


def packages(out: Path) -> Path:
    """The npm packages of package.json, installed under `out` unless they are there already."""
    wanted = (HERE / "package.json").read_text()
    here = out / "package.json"
    if not (out / "node_modules").is_dir() or not here.exists() or here.read_text() != wanted:
        out.mkdir(parents=True, exist_ok=True)
        quiet = ["--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts", "--silent"]
        quiet += ["--prefer-offline", "--fetch-retries=1"]
        (out / "package.json").write_text(wanted)
        try:
            subprocess.run(["npm", "install", *quiet], cwd=out, check=True)
        except BaseException:
            here.unlink()
            raise
    return out / "node_modules"


def live(out: Path, modules: Path, model: str) -> Path:
    """The panel's folder: our JavaScript, the widgets', the runtime, the networks, the scenes."""
    from export import export, rounded

    import blendlab as bl
    from blendlab.course.widgets import common

    folder = out / "live"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(HERE / "live", folder)
    (folder / "painter.mjs").write_text(common.script("layer.js", "painter.js"))
    (folder / "viewer.mjs").write_text(common.script("viewer.js"))
    (folder / "widgets.css").write_text(common.CSS)
    (folder / "ort").mkdir()
    about = export(rounded(bl.load(model)), folder)
    about["runtimes"] = {on: runtime(on, modules, folder) for on in RUNTIMES}
    (folder / "model.json").write_text(json.dumps(about), encoding="utf-8")
    return folder


def runtime(on: str, modules: Path, folder: Path) -> int:
    """Copy one runtime of the networks; return the bytes of its WebAssembly."""
    script, name, file = RUNTIMES[on]
    dist = modules / "onnxruntime-web" / "dist"
    for copied in (script, f"{name}.mjs"):
        shutil.copy(dist / copied, folder / "ort")
    # Not .gz: a server may unpack that on the way.
    packed = gzip.compress((dist / f"{name}.wasm").read_bytes(), 9, mtime=0)
    return (folder / file).write_bytes(packed)


def pages(out: Path):
    """The source of the pages, then the pages."""
    from pages import reachable, write

    write(out / "source", out / "node_modules")
    for folder in ("doctrees", "html"):  # what an interrupted build left would be a warning
        shutil.rmtree(out / folder, ignore_errors=True)
    command = [sys.executable, "-m", "sphinx", "-b", "html", "-W", "--keep-going", "-q"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
    subprocess.run(
        [*command, "-d", out / "doctrees", out / "source", out / "html"],
        check=True,
        env=environment,
    )
    reachable(out / "html")
    shutil.copytree(out / "live", out / "html" / "live")
    # At the root, as a service worker serves only the folders below its own.
    shutil.move(out / "html" / "live" / "isolate.js", out / "html" / "isolate.js")


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("part", nargs="?", choices=["all", "live", "pages"], default="all")
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "site")
    parser.add_argument("--model", default="tinyworld")
    given = parser.parse_args()
    modules = packages(given.out.resolve())
    if given.part != "pages":
        live(given.out.resolve(), modules, given.model)
    if given.part != "live":
        pages(given.out.resolve())
        print(f"{given.out / 'html'}: serve it with python -m http.server -d {given.out / 'html'}")


if __name__ == "__main__":
    sys.path[:0] = [str(ROOT), str(HERE)]
    main()
