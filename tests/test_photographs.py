"""The published protocol on photographs, with a small Stable Diffusion and a classifier whose
answers are known.
"""

import json

import checkpoints
import pytest
import torch
from PIL import Image

from blendlab import masks
from blendlab.measuring import photographs
from blendlab.networks.clip import load_clip


class Sure(torch.nn.Module):
    """Its likeliest classes are those that it was told, whatever it sees; it keeps what it saw."""

    pretrained_cfg = dict(
        input_size=(3, 32, 32), mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25), crop_pct=1.0
    )

    def __init__(self, *classes):
        super().__init__()
        self.scores = torch.nn.Parameter(torch.arange(1000).neg().float())
        self.scores.data[list(classes)] = torch.arange(1.0, 1 + len(classes))

    def forward(self, x):
        self.saw = x
        return self.scores.expand(len(x), -1)


def difference(a, b):
    return (a - b).abs().mean((1, 2, 3))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three photographs of another shape than the model's, and a file that is none."""
    there = tmp_path_factory.mktemp("photographs")
    for name, colour in {"a.jpg": "teal", "b.png": "orange", "c.jpeg": "gray"}.items():
        Image.new("RGB", (120, 90), colour).save(there / name)
    (there / "notes.txt").write_text("no picture")
    return there


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Folders of a Stable Diffusion 1.x and of a CLIP, both small and random."""
    there = tmp_path_factory.mktemp("models")
    checkpoints.sd1(there / "sd1")
    checkpoints.open_clip_folder(there / "clip")
    return there


def measure(folder, models, out, judge=None, **asked):
    asked = dict(methods="source", scenes=3, batch=2) | asked
    given = dict(clip=load_clip(models / "clip"), distance=difference)
    given["judge"] = judge or photographs.Classifier(Sure())
    return photographs.run(folder, models / "sd1", out=out, **asked, **given)


def test_a_class_is_seen_if_any_of_its_name_is_among_the_five_likeliest():
    pictures = torch.zeros(2, 3, 40, 30)
    cranes = {(134,): True, (517,): True, (): False, (517, 900): True}  # a bird, a machine
    for classes, seen in cranes.items():
        judge = photographs.Classifier(Sure(*classes))
        assert judge.names[134] == judge.names[517] == "crane" and judge.names[0] == "tench"
        assert judge.sees(pictures, "crane").tolist() == [seen] * 2
        assert judge.network.saw.shape == (2, 3, 32, 32) and judge.network.saw.abs().max() < 1e-6
    sixth = photographs.Classifier(Sure(517, 1, 2, 3, 4, 5))  # the last is the likeliest
    assert not sixth.sees(pictures, "crane").any()


def test_it_is_shown_the_box_alone_as_it_was_trained(models):
    judge, image = photographs.Classifier(Sure()), torch.full((1, 3, 64, 64), -1.0)
    mask = masks.from_box((0.25, 0.25, 0.5, 0.75), (64, 64))
    image[mask.expand_as(image) > 0] = 1.0
    one, clip = photographs.Photograph(image, mask, "crane"), load_clip(models / "clip")
    run = photographs.OnPhotographs("", 1, 1, None, {}, [], "", "", judge, clip, difference)
    run.outcomes(one, image)
    assert torch.allclose(judge.network.saw, torch.tensor(2.0))  # white: (1 - mean) / deviation


def test_every_picture_has_a_box_and_a_class_of_its_own_and_the_same_again(
    folder, models, tmp_path
):
    made = measure(folder, models, tmp_path)
    (row,) = made["rows"]
    assert made["n"] == 3 and "of 50 x 24" in made["what"]
    assert "--images" in made["command"] and "--model" in made["command"]
    assert row["background (dB)"][0] == 80 and row["background (LPIPS)"][0] == 0
    assert row["batch precision"][0] == 0 and row["side (pixels)"][0] == 64
    records = [
        json.loads((tmp_path / "source" / f"scene-{i:04d}.json").read_text()) for i in range(3)
    ]
    assert len({record["prompt"] for record in records}) == 3

    sure = photographs.Classifier(Sure())
    sure.network.scores.data[sure.names.index(records[1]["prompt"])] = 1
    (row,) = measure(folder, models, tmp_path / "sure", sure)["rows"]
    assert row["batch precision"][0] == row["best result"][0] == pytest.approx(1 / 3, abs=1e-4)
    assert row["diversity (LPIPS)"][0] == 0  # both results are the photograph


def test_methods_run_and_a_second_call_makes_nothing_again(folder, models, tmp_path):
    asked = dict(methods="source,blended_latent+paste", scenes=2)
    made = measure(folder, models, tmp_path, **asked)
    before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("scene-*")}
    again = measure(folder, models, tmp_path, **asked)
    assert len(before) == 8 and made["rows"] == again["rows"]
    assert before == {file: file.stat().st_mtime_ns for file in tmp_path.rglob("scene-*")}
    with pytest.raises(ValueError, match="another weights"):
        measure(folder, models, tmp_path, photographs.Classifier(Sure(7)), **asked)
    Image.new("RGB", (120, 90), "black").save(folder / "a.jpg")
    with pytest.raises(ValueError, match="another tasks"):
        measure(folder, models, tmp_path, **asked)


@pytest.mark.parametrize(
    "asked, said",
    [
        (dict(scenes=4), "has 3 pictures .*--scenes is 4"),
        (dict(methods="exemplar,repaint"), "exemplar, repaint cannot be compared on photographs"),
        (dict(methods="nobody"), "no method 'nobody'"),
        (dict(batch=0), "batch is 0"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_anything_loads(
    folder, tmp_path, asked, said, monkeypatch
):
    monkeypatch.setattr(photographs, "load", None)
    with pytest.raises(ValueError, match=said):
        photographs.run(folder, out=tmp_path, **(dict(scenes=3, batch=1) | asked))


def test_classifiers_that_timm_does_not_have_are_refused():
    with pytest.raises(ValueError, match="timm has no weights of 'resnet51'"):
        photographs.classifier("resnet51")


def test_the_command_line_takes_a_folder(run, folder):
    code, _, err = run("results", "precision", "--images", folder)
    assert code == 2 and "has 3 pictures" in err
    code, _, err = run("results", "precision", "--images", folder, "--task", "remove")
    assert code == 2 and "leave them or --images out" in err
    code, _, err = run("results", "precision", "--model", "sdxl")
    assert code == 2 and "name their folder, too" in err
