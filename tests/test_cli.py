"""The command line: what it writes, and that a mistake is answered by one sentence. Small random
networks.
"""

import subprocess
import sys

import checkpoints
import numpy as np
import pytest
from PIL import Image

from blendlab import cli

COMMANDS = ["edit", "rank", "world", "train", "results", "doctor"]


@pytest.fixture
def run(monkeypatch, capsys):
    """run(*arguments) -> (exit code, what it printed, what it complained)."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["blendlab", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        return end.value.code, *capsys.readouterr()

    return call


@pytest.fixture(scope="module")
def sd1(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sd1")
    checkpoints.sd1(folder)
    return folder


@pytest.fixture
def scene(tmp_path):
    """Options of an edit: a picture of 64x64 and a mask of its middle."""
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    mask = np.zeros((64, 64), np.uint8)
    mask[16:48, 16:48] = 255
    Image.fromarray(pixels).save(tmp_path / "scene.png")
    Image.fromarray(mask).save(tmp_path / "mask.png")
    return ["--image", tmp_path / "scene.png", "--mask", tmp_path / "mask.png"]


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_every_command_has_an_example(run, command):
    code, out, _ = run(command, "--help")
    assert code == 0 and f"Example: blendlab {command}" in out


def test_the_commands_are_these(run):
    assert [command.callback.__name__ for command in cli.app.registered_commands] == COMMANDS
    assert run()[1].count("\n") > len(COMMANDS)


def test_edit_writes_one_picture_or_numbered_ones(run, sd1, scene, tmp_path):
    words = ["edit", *scene, "--prompt", "a cat", "--model", sd1, "--steps", 2, "--w", 2]
    code, out, err = run(*words, "-o", tmp_path / "one.png")
    assert code == 0, err
    assert out.split() == [str(tmp_path / "one.png")] and Image.open(tmp_path / "one.png").size == (
        64,
        64,
    )
    code, out, err = run(*words, "-o", tmp_path / "new" / "two.png", "-n", 2)
    assert code == 0, err
    assert out.split() == [str(tmp_path / "new" / f"two_{i}.png") for i in (1, 2)]
    first, second = (np.asarray(Image.open(path)) for path in out.split())
    assert (first != second).any()


def test_rank_names_the_pictures_best_first(run, scene, tmp_path):
    checkpoints.open_clip_folder(tmp_path / "clip")
    words = ["rank", "--prompt", "a cat", "--clip", tmp_path / "clip"]
    code, out, err = run(*words, scene[1], scene[3])
    assert code == 0, err
    distances = [float(line.split()[0]) for line in out.splitlines()]
    assert len(distances) == 2 and distances == sorted(distances) and "scene.png" in out


def test_world_draws_a_sheet(run, tmp_path):
    code, _, err = run("world", "--seed", 3, "-n", 4, "--size", 32, tmp_path / "sheet.png")
    assert code == 0, err
    sheet = np.asarray(Image.open(tmp_path / "sheet.png").convert("RGB"))
    assert sheet.size >= 4 * 32 * 32 * 3 and sheet.std() > 10


def test_doctor_says_versions_device_and_networks(run):
    code, out, _ = run("doctor")
    assert code == 0
    for word in ("Python", "torch", "device", "tinyworld"):
        assert word in out


@pytest.mark.parametrize(
    "change, says",
    [
        (["--image", "nowhere.png"], "nowhere.png"),
        (["--model", "tinywrld"], "tinyworld"),
        (["-o", "out.xyz"], ".png"),
        (["-n", "0"], "-n"),
        (["--w", "strong"], "--w"),
    ],
)
def test_a_mistake_gets_a_sentence_and_exit_code_2(run, sd1, scene, tmp_path, change, says):
    good = ["edit", *scene, "--prompt", "a cat", "--model", sd1, "--steps", 2, "--w", 2]
    code, _, err = run(*good, "-o", tmp_path / "out.png", *change)
    assert code == 2 and says in err and "Traceback" not in err


@pytest.mark.parametrize("arguments", ["train dragon", "rank --prompt cat --clip no-such a.png"])
def test_other_commands_explain_themselves_too(run, arguments):
    code, _, err = run(*arguments.split())
    assert code == 2 and len(err.strip().splitlines()) == 1


def test_a_bug_keeps_its_traceback(run, monkeypatch):
    def broken():
        int("not a number, and not blendlab's sentence")

    monkeypatch.setattr("blendlab.course.doctor.check", broken)
    monkeypatch.setattr(sys, "argv", ["blendlab", "doctor"])
    with pytest.raises(ValueError, match="not blendlab's sentence"):
        cli.main()


def test_it_is_also_a_module():
    done = subprocess.run(
        [sys.executable, "-m", "blendlab", "--help"], capture_output=True, text=True
    )
    assert done.returncode == 0 and "doctor" in done.stdout
