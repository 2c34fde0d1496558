"""The command line: what it writes, and that a mistake is answered by one sentence. Small random
networks.
"""

import shlex
import subprocess
import sys
from pathlib import Path

import checkpoints
import numpy as np
import pytest
import torch
from PIL import Image

from blendlab import cli, images, options, papers
from blendlab.errors import Refused, WrongType
from blendlab.networks.load import load
from blendlab.papers.blended_latent import blended_latent

COMMANDS = ["edit", "rank", "world", "train", "results", "leaderboard", "doctor"]


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


def test_the_lecturers_command_has_an_example_and_refuses_where_no_notebooks_are(
    run, tmp_path, monkeypatch
):
    assert "Example: blendlab course pack" in run("course", "pack", "--help")[1]
    monkeypatch.chdir(tmp_path)
    code, _, complained = run("course", "pack")
    assert code == 2 and "run this in the top folder of the clone" in complained
    assert not list(tmp_path.iterdir())


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
        (["--skip", "1.5"], "--skip is 1.5"),
        (["--skip", "-1"], "--skip is -1.0"),
        (["--steps", "0"], "--steps"),
        (["--steps", "1001"], "--steps is 1001; it counts levels of this schedule (1 to 1000)"),
        (["--preset", "best"], "official-sd2"),
        (["--method", "magic"], "blended_latent"),
        (["--device", "gpu"], "cpu, cuda or mps"),
        (["--device", "cuda:99"], "--device cpu"),
        (["--device", "mps:x"], "cpu, cuda or mps"),
        (["--model", "tinyworld-judge"], "--model tinyworld"),
        (["--image", "."], "folder"),
        (["-o", "out.psd"], ".png"),
        (["-o", "out.gif"], ".png"),
        (["-o", "out"], ".png"),
    ],
)
def test_a_mistake_gets_a_sentence_and_exit_code_2(run, sd1, scene, tmp_path, change, says):
    good = ["edit", *scene, "--prompt", "a cat", "--model", sd1, "--steps", 2, "--w", 2]
    code, _, err = run(*good, "-o", tmp_path / "out.png", *change)
    assert code == 2 and says in err and "Traceback" not in err
    assert not (tmp_path / "out.png").exists()


def folder(path):
    path.mkdir()


def file_for_a_parent(path):
    path.parent.write_text("not a folder")


@pytest.mark.parametrize("block", [folder, file_for_a_parent])
@pytest.mark.parametrize("n", [1, 3])
def test_the_output_is_tried_before_any_network_is_loaded(
    run, scene, tmp_path, monkeypatch, block, n
):
    monkeypatch.setattr("blendlab.networks.load.load", lambda *_, **__: pytest.fail("loaded"))
    out = tmp_path / "new" / "out.png" if block is file_for_a_parent else tmp_path / "out.png"
    block(out if n == 1 or block is file_for_a_parent else out.with_stem("out_3"))
    code, _, err = run("edit", *scene, "--prompt", "a cat", "-o", out, "-n", n)
    assert code == 2 and len(err.strip().splitlines()) == 1


def test_trying_an_output_leaves_what_is_there_as_it_is(tmp_path):
    old = tmp_path / "old.png"
    old.write_bytes(b"something")
    assert cli.numbered(old, 1) == [old] and old.read_bytes() == b"something"
    cli.numbered(tmp_path / "fresh.png", 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["old.png"]


@pytest.mark.parametrize("ending", [".jpg", ".JPEG"])
def test_jpeg_is_written_at_quality_95_with_all_colours(tmp_path, ending):
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    cli.save(Image.fromarray(pixels), tmp_path / f"ours{ending}")
    Image.fromarray(pixels).save(tmp_path / "wanted.jpg", quality=95, subsampling=0)
    assert (tmp_path / f"ours{ending}").read_bytes() == (tmp_path / "wanted.jpg").read_bytes()


@pytest.mark.parametrize("ending", [".png", ".webp", ".tif", ".tiff", ".bmp"])
def test_other_endings_lose_nothing(tmp_path, ending):
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    cli.save(Image.fromarray(pixels), tmp_path / f"ours{ending}")
    assert (np.asarray(Image.open(tmp_path / f"ours{ending}").convert("RGB")) == pixels).all()


def test_a_write_that_fails_leaves_what_was_there(tmp_path):
    old = tmp_path / "old.webp"
    cli.save(Image.new("RGB", (8, 8), "red"), old)
    before = old.read_bytes()
    with pytest.raises(Refused, match="end the name with .png"):
        cli.save(Image.new("RGB", (2, 16384)), old)  # taller than WebP can hold
    assert old.read_bytes() == before and list(tmp_path.iterdir()) == [old]


def test_the_home_folder_is_meant_by_its_sign(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cli.numbered(Path("~/out.png"), 1) == [tmp_path / "out.png"]


def test_paste_puts_every_kept_pixel_back(run, sd1, scene, tmp_path):
    words = ["edit", *scene, "--prompt", "a cat", "--model", sd1, "--steps", 2, "--w", 2]
    words += ["--method", "blended_latent", "--batch", 1, "-o", tmp_path / "out.png"]
    before, kept = (np.asarray(Image.open(scene[i])) for i in (1, 3))
    for more, same in ([], False), (["--paste"], True):
        code, _, err = run(*words, *more)
        assert code == 0, err
        after = np.asarray(Image.open(tmp_path / "out.png"))
        assert (after == before)[kept == 0].all() == same


def test_greys_need_soft_and_around_edits_a_crop(run, sd1, scene, tmp_path):
    half = tmp_path / "half.png"
    Image.open(scene[3]).point(lambda v: v // 2).save(half)
    words = ["edit", "--image", scene[1], "--mask", half, "--prompt", "a cat", "--model", sd1]
    words += ["--steps", 3, "--w", 2, "-o", tmp_path / "soft.png"]
    code, _, err = run(*words)
    assert code == 2 and "or pass --soft" in err
    code, _, err = run(*words, "--soft", "--around", 1.5)
    before, kept, after = (np.asarray(Image.open(p)) for p in (scene[1], half, words[-1]))
    assert code == 0 and (after == before)[kept == 0].all(), err
    assert (after != before)[kept > 0].any()


@pytest.mark.parametrize("method", ["blended", "clip_guided", "paint_by_word"])
def test_methods_that_a_clip_guides_are_reached_by_their_name(run, scene, tmp_path, method):
    words = ["edit", *scene, "--prompt", "a red house", "--method", method, "--steps", 3]
    code, _, err = run(*words, "--paste", "-o", tmp_path / "out.png")
    assert code == 0, err
    before, kept = (np.asarray(Image.open(scene[i])) for i in (1, 3))
    changed = (np.asarray(Image.open(tmp_path / "out.png")) != before).any(-1)
    assert changed[kept > 0].mean() > 0.5 and not changed[kept == 0].any()
    assert run(*words, "--no-paste", "-o", tmp_path / "out.png")[0] == 0
    changed = (np.asarray(Image.open(tmp_path / "out.png")) != before).any(-1)
    assert changed[kept == 0].any() == (method != "blended")  # whose last blend is the source
    code, _, err = run(*words, "--w", 3, "-o", tmp_path / "out.png")
    assert code == 2 and f"{method} has no option 'w'" in err


TOY = '''
"""Each result is the source, lighter inside the mask."""

from dataclasses import dataclass
from typing import Literal

from blendlab import door
from blendlab.options import Options, registered, settle


@dataclass(frozen=True)
class Lightening(Options):
    where: Literal["inside", "outside"] = "inside"
    strength: float | None = None


@registered("tinyworld", Lightening)
def toy(pipe, image, mask, prompt, *, n=1, seed=0, batch=None, first=0, preset=None, **options):
    how = settle(Lightening, toy, pipe, {}, {"strength": 0.1}, preset, options)
    request = door.latent(pipe, image, mask, prompt, n=n, seed=seed, batch=batch, first=first)
    where = request.mask if how.where == "inside" else 1 - request.mask
    tensors = [request.image + how.strength * where for _ in range(n)]
    return request.finish(tensors, None, {}, paste=False)
'''


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """A method in a file of its own in papers/, and nowhere else."""
    (tmp_path / "papers").mkdir()
    (tmp_path / "papers" / "toy.py").write_text(TOY)
    monkeypatch.setattr(papers, "__path__", [*papers.__path__, str(tmp_path / "papers")])
    monkeypatch.setattr(options, "METHODS", found := dict(options.METHODS))
    monkeypatch.setattr(papers, "METHODS", found)
    yield "toy"
    sys.modules.pop("blendlab.papers.toy")


def test_a_method_is_reached_from_its_own_file_alone(run, sd1, scene, tmp_path, toy):
    words = ["edit", *scene, "--prompt", "a cat", "--model", sd1, "--method", toy]
    words += ["-o", tmp_path / "out.png", "--set", "strength=2"]
    before, kept = (np.asarray(Image.open(scene[i])) for i in (1, 3))
    for more, white in ([], kept > 0), (["--set", "where=outside"], kept == 0):
        code, _, err = run(*words, *more)
        assert code == 0, err
        after = np.asarray(Image.open(tmp_path / "out.png"))
        assert (after[white] == 255).all() and (after[~white] == before[~white]).all()


@pytest.mark.parametrize(
    "method, words, says",
    [
        ("toy", ["--set", "colour=red"], "toy has no option 'colour'; it has where, strength, n"),
        ("toy", ["--set", "where=above"], "where is 'above'; choose 'inside' or 'outside'"),
        ("toy", ["--set", "strength=much"], "strength is 'much', not a number"),
        ("toy", ["--w", 3], "toy has no option 'w'"),
        ("toy", ["--set", "seed=3"], "seed is no setting: it is an option of its own"),
        ("toy", ["--set", "where"], "'where' is no setting; write NAME=VALUE"),
        ("blended_latent", ["--set", "resampling=3"], "you may mean 'resamplings'"),
        ("blended_latent", ["--set", "guidance_scale=3"], "you may mean 'w'"),
        ("blended_latent", ["--set", "noises=0"], "noises is 0; how many noises"),
    ],
)
def test_settings_are_checked_before_a_network_is_loaded(
    run, scene, tmp_path, monkeypatch, toy, method, words, says
):
    monkeypatch.setattr("blendlab.networks.load.load", lambda *_, **__: pytest.fail("loaded"))
    good = ["edit", *scene, "--prompt", "a cat", "--method", method, "-o", tmp_path / "out.png"]
    code, _, err = run(*good, *words)
    assert code == 2 and says in err and not (tmp_path / "out.png").exists()


def test_settings_without_a_flag_reach_the_method(run, sd1, scene, tmp_path):
    words = ["edit", *scene, "--prompt", "a cat", "--model", sd1, "--steps", 3, "--w", 2]
    words += ["--set", "noise=fixed", "--set", "resamplings=2", "--set", "shrink=2,1"]
    code, _, err = run(*words, "-o", tmp_path / "out.png")
    assert code == 0, err
    same = dict(steps=3, w=2.0, noise="fixed", resamplings=2, shrink=(2, 1))
    wanted = blended_latent(load(sd1, device="cpu"), scene[1], scene[3], "a cat", **same)
    assert (np.asarray(wanted.images[0]) == np.asarray(Image.open(tmp_path / "out.png"))).all()


def test_a_clip_orders_the_results_of_a_method_without_one(run, sd1, scene, tmp_path):
    words = ["edit", *scene, "--prompt", "a red house", "--model", sd1, "--steps", 2, "--w", 2]
    words += ["-n", 3, "-o", tmp_path / "out.png", "--clip", "tinyworld-clip"]
    code, out, err = run(*words)
    assert code == 0, err
    same = dict(steps=2, w=2.0, n=3, clip=load("tinyworld-clip", device="cpu"))
    wanted = blended_latent(load(sd1, device="cpu"), scene[1], scene[3], "a red house", **same)
    for file, picture in zip(out.split(), wanted.images, strict=True):
        assert (np.asarray(Image.open(file)) == np.asarray(picture)).all()


def test_rank_refuses_pictures_of_two_sizes(run, scene, tmp_path):
    Image.open(scene[1]).resize((48, 32)).save(tmp_path / "other.png")
    code, _, err = run("rank", "--prompt", "a cat", scene[1], tmp_path / "other.png")
    assert code == 2 and "is 64x64" in err and "is 48x32" in err


@pytest.mark.parametrize(
    "change, says",
    [
        (["-n", 1000000], "-n is 1000000; at --size 128 a sheet holds 1 to 4096 scenes"),
        (["-n", 1, "--size", 10**6], "--size is 1000000; take 8 to 8192"),
        (["-n", 0], "-n"),
        (["--size", 4], "--size"),
    ],
)
def test_world_refuses_impossible_sheets_with_the_range(run, tmp_path, change, says):
    code, _, err = run("world", tmp_path / "sheet.png", *change)
    assert code == 2 and says in err and not (tmp_path / "sheet.png").exists()


@pytest.mark.parametrize(
    "python, shell",
    [
        ("take skip=0.1, or eta=1", "take --skip 0.1, or --set eta=1"),
        ("pass noise='fixed'", "pass --set noise=fixed"),
        ("skip=1/steps leaves it out", "--skip 1/steps leaves it out"),
        ("pass mask=, or view='image'", "pass --mask, or --view image"),
        ("batch=2 halves it", "--batch 2 halves it"),
        ("paste=True does", "--paste does"),
        ("n is 0; take 1", "-n is 0; take 1"),
        ("fit(image, mask=mask)", "fit(image, mask=mask)"),
        ("the mask is empty", "the mask is empty"),
    ],
)
def test_advice_is_in_the_words_of_the_shell(python, shell):
    assert cli.in_shell_words(python) == shell


def two_tone(mode, size, around, inside):
    picture = Image.new(mode, size, around)
    picture.paste(inside, (8, 8, 24, 24))
    return picture


NOT_YET = {  # what is refused until the fix has run
    "mask, grey": two_tone("L", (64, 64), 99, 200),
    "mask, see-through": two_tone("RGBA", (64, 64), (0, 0, 0, 0), (0, 0, 0, 255)),
    "mask, small": two_tone("L", (32, 32), 0, 255),
    "image, see-through": two_tone("RGBA", (64, 64), (0, 0, 0, 0), (0, 0, 0, 255)),
    "image, deep": Image.new("I;16", (64, 64), 999),
    "image, odd": Image.new("RGB", (65, 64)),
}


@pytest.mark.parametrize("case", NOT_YET)
def test_the_fix_of_a_file_runs_in_a_shell_and_helps(case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    NOT_YET[case].save("grandma's.png")
    like = torch.zeros(1, 3, 64, 64)

    def door(file):
        if case.startswith("mask"):
            return images.mask(file, like=like)
        return images.image(file, size_multiple=64)

    with pytest.raises(ValueError) as refused:
        door("grandma's.png")
    said = cli.in_shell_words(str(refused.value))
    program, flag, code = shlex.split(said.split("this makes: ")[1])
    assert (program, flag) == ("python", "-c")
    exec(code, {})
    door("fixed.png")


OTHERS = ["train dragon", "rank --prompt cat --clip no-such a.png", "results dragon"]


@pytest.mark.parametrize("arguments", OTHERS)
def test_other_commands_explain_themselves_too(run, arguments):
    code, _, err = run(*arguments.split())
    assert code == 2 and len(err.strip().splitlines()) == 1


SOLUTION = "notebooks/solutions/00_start_here.ipynb"


@pytest.mark.parametrize(
    "arguments, said",
    [
        ("results index -o here.md", "-n and -o are of a table"),
        ("results index -n 3", "-n and -o are of a table"),
        ("results -n 3", "-n and -o are of a table"),
        ("results all -n 3", "all takes no other option"),
        ("results edits --no-save -o here.json", "choose one"),
        ("course pack nowhere.ipynb", "is no notebook"),
        ("course pack README.md", "is no notebook"),
        (f"course pack {SOLUTION}", "is a solution"),
    ],
)
def test_what_would_be_ignored_is_refused(run, monkeypatch, arguments, said):
    monkeypatch.chdir(Path(__file__).parents[1])
    code, _, err = run(*arguments.split())
    assert code == 2 and said in err and not Path("here.md").exists()


def test_a_bug_keeps_its_traceback(run, monkeypatch):
    def broken():
        int("not a number, and not blendlab's sentence")

    monkeypatch.setattr("blendlab.course.doctor.check", broken)
    monkeypatch.setattr(sys, "argv", ["blendlab", "doctor"])
    with pytest.raises(ValueError, match="not blendlab's sentence"):
        cli.main()


@pytest.mark.parametrize("kind", [ValueError, TypeError])
def test_pythons_own_message_in_a_line_of_blendlab_is_no_sentence(run, monkeypatch, kind):
    call = "int('strong')" if kind is ValueError else "int()(1)"
    ours = eval(compile(f"lambda: {call}", cli.__file__, "eval"))
    monkeypatch.setattr("blendlab.course.doctor.check", ours)
    monkeypatch.setattr(sys, "argv", ["blendlab", "doctor"])
    with pytest.raises(kind):
        cli.main()


def test_a_refusal_is_caught_as_pythons_own_errors_are():
    assert issubclass(Refused, ValueError)
    assert issubclass(WrongType, Refused) and issubclass(WrongType, TypeError)


def test_what_the_machine_refuses_is_a_sentence(run, monkeypatch):
    def full():
        raise OSError(28, "No space left on device", "out.png")

    monkeypatch.setattr("blendlab.course.doctor.check", full)
    assert run("doctor")[0::2] == (2, "out.png: No space left on device\n")


def test_it_is_also_a_module():
    done = subprocess.run(
        [sys.executable, "-m", "blendlab", "--help"], capture_output=True, text=True
    )
    assert done.returncode == 0 and "doctor" in done.stdout
