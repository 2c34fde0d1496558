"""The wheel, installed outside the clone, makes an edit: weights and data/ travel in it."""

import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel built from the clone, offline, with the build tools that the test extra brings."""
    folder = tmp_path_factory.mktemp("wheel")
    options = ["-q", "--no-deps", "--no-build-isolation", "--wheel-dir", folder]
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options, ROOT], check=True)
    (path,) = folder.glob("blendlab-*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """run(program, *arguments): call a program of an environment that has this wheel and not the
    clone.

    The dependencies are lent by the environment that runs the tests (a second copy of PyTorch is 6
    GB). Its folders come after the new environment's own, and through a .pth file, which reads no
    further .pth files: so the clone, which `pip install -e` put there with one, stays out of sight.
    """
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder / "env", with_pip=False)
    python = folder / "env" / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", python]
    subprocess.run([*pip, "install", "-q", "--no-deps", "--no-index", wheel], check=True)
    (own,) = (folder / "env" / "lib").glob("python*/site-packages")
    lent = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
    (own / "lent.pth").write_text("\n".join(lent))
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}

    def run(program: str, *arguments) -> str:
        command = [python.with_name(program), *arguments]
        done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.strip()

    return run


def test_the_wheel_holds_weights_and_data_and_nothing_beside_the_package(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    for folder in ("blendlab/weights", "data"):
        files = [
            path for path in (ROOT / folder).rglob("*.*") if path.is_file() and path.name[0] != "."
        ]
        inside = {
            f"blendlab/{path.relative_to(ROOT).as_posix().removeprefix('blendlab/')}"
            for path in files
        }
        assert inside and inside <= set(names), inside - set(names)
    assert {name.split("/")[0].split("-")[0] for name in names} == {"blendlab"}
    assert "blendlab/cli.py" in names and not any("__pycache__" in name for name in names)


def test_an_installed_wheel_makes_an_edit_outside_the_clone(installed, tmp_path):
    files = "bl.__file__, bl.data('scenes/meadow.png'), bl.data('masks/meadow.png')"
    program = f"import blendlab as bl; print({files}, sep='\\n')"
    package, scene, mask = installed("python", "-c", program).splitlines()
    home = Path(package).parent
    assert ROOT not in home.parents and home in Path(scene).parents

    words = ["--image", scene, "--mask", mask, "--prompt", "a red mushroom"]
    installed("blendlab", "edit", *words, "-o", tmp_path / "out.png")

    before, after = Image.open(scene).convert("RGB"), Image.open(tmp_path / "out.png")
    assert after.mode == "RGB" and after.size == before.size
    inside = np.asarray(Image.open(mask).convert("L")) > 127  # (H,W)
    change = np.abs(np.asarray(after, float) - np.asarray(before, float)).mean(
        -1
    )  # (H,W), 0 to 255
    assert change[inside].mean() > 2 * change[~inside].mean()
