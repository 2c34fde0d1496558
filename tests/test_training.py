"""The training harness loses nothing, and every network trains, exports and comes back."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from PIL import Image

from blendlab import training, world
from blendlab.training import harness
from blendlab.training.tokenizer import build_merges, encode, load_tokenizer

ROOT = Path(__file__).parent.parent
TOY = """
import sys, time, torch
from blendlab.training import harness

class Toy(harness.Job):
    name, batch_size, lr = "toy", 4, 1e-2
    def __init__(self, pause=0.0):
        super().__init__()
        torch.manual_seed(0)
        self.net, self.pause = torch.nn.Linear(3, 3), pause
    def fill(self, step):
        make = lambda start, n: {"x": (torch.arange(start, start + n)[:, None] / 100 + torch.eye(3)[0]).sin()}
        self.pool = harness.Pool(make, 16, 2, step, chunk=4)
    def batch(self, step):
        time.sleep(self.pause)
        g = self.generator(step)
        return {"x": self.pool.draw(4, step, g)["x"], "noise": torch.randn(4, 3, generator=g)}
    def loss(self, batch):
        return {"loss": (self.net(batch["x"] + batch["noise"]) - batch["x"]).square().mean()}
    def export(self, folder):
        torch.save(self.net.state_dict(), folder / "toy.pt")

def run(out, pause=0.0, steps=80):
    accelerator = harness.make_accelerator("no", cpu=True)
    options = harness.Options(steps, lr=1e-2, warmup=5, checkpoint_minutes=0)
    return harness.train(Toy(pause), out, options, accelerator)
"""


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """The toy job, as a module here and as a file that another process can run."""
    file = tmp_path_factory.mktemp("toy") / "toy.py"
    file.write_text(TOY + "\nif __name__ == '__main__':\n    run(sys.argv[1], pause=0.05)\n")
    names = {}
    exec(compile(TOY, str(file), "exec"), names)
    return file, names["run"]


def test_a_run_killed_with_sigkill_and_resumed_equals_an_uninterrupted_one(toy, tmp_path):
    file, run = toy
    whole = torch.load(run(tmp_path / "whole") / "toy.pt", weights_only=True)
    process = subprocess.Popen(
        [sys.executable, file, tmp_path / "cut"], env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    while not (tmp_path / "cut" / "checkpoint.pt").exists():
        assert process.poll() is None
        time.sleep(0.05)
    time.sleep(0.3)
    process.send_signal(signal.SIGKILL)
    process.wait()
    step = harness.load_checkpoint(tmp_path / "cut")["step"]
    assert 0 < step < 80 and not (tmp_path / "cut" / "export").exists()
    resumed = torch.load(run(tmp_path / "cut") / "toy.pt", weights_only=True)
    torch.testing.assert_close(resumed, whole, rtol=0, atol=0)


def test_a_finished_run_is_not_trained_again_and_can_be_made_longer(toy, tmp_path):
    run = toy[1]
    run(tmp_path, steps=3)
    before = harness.load_checkpoint(tmp_path)["net"]
    run(tmp_path, steps=3)
    torch.testing.assert_close(harness.load_checkpoint(tmp_path)["net"], before, rtol=0, atol=0)
    run(tmp_path, steps=5)
    assert harness.load_checkpoint(tmp_path)["step"] == 5


def test_a_checkpoint_that_cannot_be_written_leaves_the_old_one(tmp_path):
    path = tmp_path / "checkpoint.pt"
    harness.atomic_save({"step": 1}, path)
    with pytest.raises((AttributeError, TypeError, RuntimeError, Exception), match="pickle|local"):
        harness.atomic_save({"step": lambda: 2}, path)
    assert torch.load(path, weights_only=True) == {"step": 1}


def test_ema_warms_up_and_then_follows_its_decay():
    net = torch.nn.Linear(1, 1, bias=False).half()
    torch.nn.init.constant_(net.weight, 0.0)
    ema, expected = harness.EMA(net, decay=0.5), 0.0
    torch.nn.init.constant_(net.weight, 1.0)
    for k in range(20):
        decay = min(0.5, (1 + k) / (10 + k))
        expected = decay * expected + (1 - decay)
        ema.update()
    assert ema.shadow[0].dtype == torch.float32
    assert ema.shadow[0].item() == pytest.approx(expected, rel=1e-6)
    torch.nn.init.constant_(net.weight, 3.0)
    with ema.applied():
        assert net.weight.item() == pytest.approx(expected, rel=1e-3)
    assert net.weight.item() == 3.0


def test_the_pool_slides_along_the_stream_and_a_resumed_one_holds_the_same():
    make = lambda start, n: {"x": torch.arange(start, start + n)}  # noqa: E731
    pool = harness.Pool(make, size=8, renew=1, chunk=2)
    for step in range(7):
        pool.draw(3, step, torch.Generator())
    assert sorted(pool.data["x"].tolist()) == list(range(6, 14))
    resumed = harness.Pool(make, size=8, renew=1, step=6, chunk=2)
    assert sorted(resumed.data["x"].tolist()) == list(range(6, 14))
    draw = lambda p: p.draw(5, 6, torch.Generator().manual_seed(1))["x"].tolist()  # noqa: E731
    assert draw(pool) == draw(resumed)


def test_the_learning_rate_warms_up_and_falls_to_one_per_cent():
    assert harness.cosine(0, 0.0, 10) == pytest.approx(0.1)
    assert harness.cosine(100, 0.0, 10) == 1
    assert harness.cosine(100, 1.0, 10) == pytest.approx(0.01)


# The networks, as small as they go

TINY = {"steps": 2, "batch": 2, "precision": "no", "cpu": True}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The three networks after two steps: {name: exported folder}."""
    out = tmp_path_factory.mktemp("runs")
    folder = {"autoencoder": training.main("autoencoder", out=out / "a", widths=(8, 8, 8), pool=16, **TINY)}
    rest = {"autoencoder": folder["autoencoder"], "pool": 16, "options": {"sheet_minutes": None}, **TINY}
    folder["judge"] = training.main("judge", out=out / "j", widths=(8, 8), **rest)
    sizes = {"widths": (16, 16), "text_width": 16, "text_layers": 1}
    folder["latent"] = training.main("latent", out=out / "l", **sizes, **rest)
    return folder


def test_every_network_writes_weights_in_half_precision_with_its_seed_and_config(runs):
    from safetensors.torch import load_file

    for name, folder in runs.items():
        notes = json.loads((folder / f"training-{name}.json").read_text())
        assert notes["seed"] == 0 and notes["step"] == 2 and notes["versions"]["torch"] == torch.__version__
        assert (folder.parent / "config.json").exists()
        for file in folder.rglob("*.safetensors"):
            dtype = torch.float32 if file.parent.name == "text_encoder" else torch.float16
            assert all(value.dtype == dtype for value in load_file(file).values())


def test_a_sheet_of_samples_is_drawn(runs):
    assert Image.open(runs["autoencoder"].parent / "sheet.png").width > 500


def test_the_autoencoder_ships_with_a_measured_scaling_factor_and_takes_other_sizes(runs):
    vae = harness.find_autoencoder(runs["autoencoder"], "cpu")
    images = world.render(world.sample(32, seed=0), size=64).image
    z = vae.config.scaling_factor * vae.encode(images).latent_dist.mode()
    assert z.std().item() == pytest.approx(1, abs=0.1)
    assert vae.decode(torch.zeros(1, 4, 32, 32)).sample.shape == (1, 3, 128, 128)


def test_the_latent_model_is_a_stable_diffusion_pipeline(runs):
    from diffusers import StableDiffusionPipeline
    from safetensors.torch import load_file

    pipe = StableDiffusionPipeline.from_pretrained(runs["latent"])
    pipe.set_progress_bar_config(disable=True)
    image = pipe("a red mushroom", num_inference_steps=2, output_type="pt").images
    assert image.shape == (1, 3, 64, 64)
    config = pipe.scheduler.config
    assert (config.prediction_type, config.set_alpha_to_one, config.clip_sample) == (
        "v_prediction",
        True,
        False,
    )
    assert json.loads((runs["latent"] / "blendlab.json").read_text())["size"] == 64
    # transformers 4 starts from random weights without this prefix
    keys = load_file(runs["latent"] / "text_encoder" / "model.safetensors").keys()
    assert all(key.startswith("text_model.") for key in keys)


def test_from_shipped_continues_from_the_shipped_weights(runs, tmp_path, monkeypatch):
    from safetensors.torch import load_file

    shipped = tmp_path / "weights"
    shipped.mkdir()
    (shipped / "tinyworld").symlink_to(runs["latent"])
    (shipped / "tinyworld-judge").symlink_to(runs["judge"])
    monkeypatch.setattr(harness, "WEIGHTS", shipped)
    monkeypatch.chdir(tmp_path)  # no runs/autoencoder here, so the shipped autoencoder is found
    sizes = {"judge": {"widths": (8, 8)}, "latent": {"widths": (16, 16), "text_width": 16, "text_layers": 1}}
    for name, more in sizes.items():
        continued = training.main(
            name, source="shipped", lr=1e-9, pool=16, options={"sheet_minutes": None}, **more, **TINY
        )
        for file in continued.rglob("*.safetensors"):
            before = load_file(runs[name] / file.relative_to(continued))
            torch.testing.assert_close(load_file(file), before, atol=1e-4, rtol=1e-3)


def test_a_running_job_can_be_exported_from_its_checkpoint(runs, tmp_path):
    out = runs["autoencoder"].parent
    folder = training.main("autoencoder", out=out, export_to=tmp_path / "now", widths=(8, 8, 8), **TINY)
    weights = "diffusion_pytorch_model.safetensors"
    assert (folder / weights).read_bytes() == (runs["autoencoder"] / weights).read_bytes()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"name": "dragon"}, "cannot train 'dragon'; it can train autoencoder"),
        ({"name": "autoencoder", "seed": 7}, "holds a run with seed 0, not 7"),
        ({"name": "autoencoder", "out": "elsewhere", "export_to": "x"}, "no checkpoint in elsewhere"),
        ({"name": "judge", "autoencoder": "nowhere"}, "no autoencoder in nowhere; train it first"),
    ],
)
def test_a_wrong_call_gets_a_sentence_that_names_the_fix(runs, arguments, sentence):
    arguments = {"out": runs["autoencoder"].parent, "widths": (8, 8, 8), **TINY, **arguments}
    with pytest.raises(ValueError, match=sentence):
        training.main(**arguments)


def test_weights_of_another_size_are_refused_with_a_sentence(runs, tmp_path):
    with pytest.raises(ValueError, match="other sizes than this network"):
        training.main("autoencoder", out=tmp_path, source=runs["autoencoder"], widths=(16, 16, 16), **TINY)


# The tokenizer


def test_every_known_word_is_one_token_and_captions_survive_the_round_trip():
    tokenizer = load_tokenizer(world.words())
    for word in world.words():
        assert len(tokenizer(word).input_ids) == 3, word  # start, word, end
    for caption in world.captions(world.sample(50), rich=0.5):
        assert (
            tokenizer.decode(tokenizer(caption).input_ids, skip_special_tokens=True).replace(" ,", ",")
            == caption
        )
    assert len(tokenizer) < 500 and tokenizer.pad_token_id == tokenizer.eos_token_id == len(tokenizer) - 1


def test_a_later_word_never_changes_how_an_earlier_one_is_encoded():
    words = ["us", "bus", "abundant", "dant", "abuse"]
    merges = build_merges(words)
    assert all(encode(word, merges) == [word + "</w>"] for word in words)
    assert len(encode("dust", merges)) > 1


def test_no_caption_is_longer_than_the_text_encoder():
    from blendlab.training.tokenizer import LENGTH

    tokenizer = load_tokenizer(world.words())
    scenes = world.sample(2000)
    captions = world.captions(scenes) + world.captions(scenes, rich=1.0, setting=1.0)
    lengths = [len(ids) for ids in tokenizer(captions).input_ids]
    print(max(lengths), sum(n > LENGTH for n in lengths))
    assert max(lengths[:2000]) <= LENGTH
