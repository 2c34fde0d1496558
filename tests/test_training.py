"""The training harness loses nothing, and every network trains, exports and comes back."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import blendlab as bl
from blendlab import training, world
from blendlab.networks.clip import load_clip
from blendlab.training import harness, plan
from blendlab.training.tokenizer import build_merges, encode, load_tokenizer

ROOT = Path(__file__).parent.parent
TOY = """
import sys, time, torch
from blendlab.training import harness

class Toy(harness.Job):
    name, batch_size, lr, optimizer = "toy", 4, 1e-2, "muon"
    def __init__(self, pause=0.0):
        super().__init__()
        torch.manual_seed(0)
        layers = [torch.nn.Linear(3, 16), torch.nn.Linear(16, 16), torch.nn.Linear(16, 3)]
        self.net, self.pause = torch.nn.Sequential(*layers), pause
    def fill(self, step):
        at = lambda start, n: torch.arange(start, start + n)[:, None] / 100
        make = lambda start, n: {"x": (at(start, n) + torch.eye(3)[0]).sin()}
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


def other_process(code, *arguments, **how):
    """Run Python code in a process of its own, with this package."""
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, env=environment, **how)


WRITER = """
import sys, time, torch
from dataclasses import replace
from pathlib import Path
from blendlab.measuring import results
from blendlab.training import harness
out, value = Path(sys.argv[1]), int(sys.argv[2])
row = {"label": "toy", "share": [value] * 3}
until = time.monotonic() + 120
while time.monotonic() < until and not out.with_name("enough").exists():
    harness.atomic_save({"step": value, "net": torch.full((2000,), value)}, out / "checkpoint.pt")
    results.save({"n": value, "rows": [row] * 50}, out / "toy.json")
"""


def test_of_two_processes_that_write_one_file_none_is_ever_read_broken(tmp_path):
    out, seen, reads = tmp_path / "out", set(), 0
    table, checkpoint = out / "toy.json", out / "checkpoint.pt"
    out.mkdir()
    writers = [other_process(WRITER, out, value) for value in (1, 2)]
    while not (table.exists() and checkpoint.exists()):
        assert all(writer.poll() is None for writer in writers)
        time.sleep(0.01)
    while (reads <= 1000 or len(seen) < 4) and all(one.poll() is None for one in writers):
        saved = json.loads(table.read_text())
        assert len(saved["rows"]) == 50 and {row["share"][0] for row in saved["rows"]} == {
            saved["n"]
        }
        state = torch.load(checkpoint, weights_only=True)
        assert (state["net"] == state["step"]).all()
        seen, reads = seen | {(saved["n"], state["step"])}, reads + 2
    (tmp_path / "enough").touch()
    assert [writer.wait() for writer in writers] == [0, 0]
    assert reads > 1000 and len(seen) > 1, (reads, seen)  # both wrote while we read
    assert sorted(path.name for path in out.iterdir()) == ["checkpoint.pt", "toy.json"]


HOLDER = """
import sys, time
from blendlab import files
with files.locked(sys.argv[1]):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_second_run_in_one_folder_gets_a_sentence_and_a_killed_one_holds_nothing(toy, tmp_path):
    holder = other_process(HOLDER, tmp_path, stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(ValueError, match="another process is writing in .*; wait for it, stop it"):
        toy[1](tmp_path, steps=1)
    holder.kill()
    holder.wait()
    (tmp_path / ".checkpoint.pt.0123.part").write_bytes(b"begun by a killed process")
    assert (toy[1](tmp_path, steps=1) / "toy.pt").exists()
    assert not list(tmp_path.glob("**/*.part"))


def test_what_is_not_finite_is_neither_saved_nor_exported(toy, tmp_path):
    file, run = toy
    folder = run(tmp_path, steps=3)
    before = [(path, path.read_bytes()) for path in (tmp_path / "checkpoint.pt", folder / "toy.pt")]
    job = run.__globals__["Toy"]()
    job.loss = lambda batch: {"loss": job.net(batch["x"]).sum() * float("nan")}
    options = harness.Options(6, lr=1e-2, checkpoint_minutes=0)
    accelerator = harness.make_accelerator("no", cpu=True)
    with pytest.raises(ValueError, match="of toy at step 4 are not finite; the last checkpoint is"):
        harness.train(job, tmp_path, options, accelerator)
    assert all(path.read_bytes() == content for path, content in before)
    torch.nn.init.constant_(job.net[0].weight, 1e5)  # finite, but not in half precision
    with pytest.raises(ValueError, match="in half precision are not finite, so nothing was|; so"):
        harness.export(job, folder, {})
    assert before[1][1] == (folder / "toy.pt").read_bytes()
    assert not list(tmp_path.glob("**/*.part"))
    signals = [signal.getsignal(name) for name in (signal.SIGTERM, signal.SIGINT)]
    assert signals == [signal.SIG_DFL, signal.default_int_handler]


@pytest.mark.parametrize("content", [b"", b"garbage", b"PK\x03\x04torn", None])
def test_a_damaged_checkpoint_is_answered_by_what_to_do(toy, tmp_path, content):
    if content is None:  # a file of torch that is no checkpoint
        torch.save({"step": 1}, tmp_path / "checkpoint.pt")
    else:
        (tmp_path / "checkpoint.pt").write_bytes(content)
    with pytest.raises(ValueError, match="checkpoint.pt is no checkpoint .* delete it to start"):
        toy[1](tmp_path, steps=1)


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


RANKS = """
import os, sys, time
rank = int(os.environ["RANK"])
clock = time.monotonic
time.monotonic = lambda: clock() * (1 + rank)  # the second process believes in twice the time
exec(open(sys.argv[1]).read().split("if __name__")[0])
from accelerate import PartialState
job = Toy(0.02)
accelerator = harness.make_accelerator("no", cpu=True)
assert PartialState().num_processes == 2
options = harness.Options(10**6, minutes=0.03, sheet_minutes=None)
job.rank, job.last, batch = rank, 0, job.batch
def counted(step):
    job.last = step
    return batch(step)
job.batch = counted
harness.train(job, sys.argv[2], options, accelerator)
open(f"{sys.argv[2]}/rank-{rank}", "w").write(str(job.last))
"""


def test_two_processes_whose_time_is_up_stop_at_the_same_step(toy, tmp_path):
    script = tmp_path / "ranks.py"
    script.write_text(RANKS)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    words = [*torchrun, "--nproc_per_node", "2", script, toy[0], tmp_path / "run"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "ACCELERATE_USE_CPU": "true"}
    subprocess.run(words, env=environment, check=True, timeout=120)
    first, second = (int((tmp_path / "run" / f"rank-{rank}").read_text()) for rank in (0, 1))
    assert first == second > 3
    assert harness.load_checkpoint(tmp_path / "run")["step"] == first + 1


# The plan

PLANNED = """
import sys
from blendlab.training import plan
plan.PLAN = {"autoencoder": 1, "judge": 6}
plan.train_all(sys.argv[1], share=0.01, batch=2, pool=32, precision="no", cpu=True,
               options={"sheet_minutes": None, "checkpoint_minutes": 0})
"""


def test_a_plan_killed_in_its_second_network_goes_on_there(tmp_path):
    process = other_process(PLANNED, tmp_path, start_new_session=True)
    second = tmp_path / "judge" / "checkpoint.pt"
    while not second.exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.kill()
    process.wait()
    first, cut = (harness.load_checkpoint(tmp_path / name) for name in ("autoencoder", "judge"))
    assert not (tmp_path / "judge" / "export").exists() and cut["seconds"] < 3.6
    assert other_process(PLANNED, tmp_path).wait() == 0
    assert harness.load_checkpoint(tmp_path / "autoencoder")["step"] == first["step"]
    whole = harness.load_checkpoint(tmp_path / "judge")
    assert whole["step"] > cut["step"] and whole["seconds"] >= 3.6
    for name in ("autoencoder", "judge"):
        assert (tmp_path / name / "export" / f"training-{name}.json").exists()


def blendlab(*words, **how):
    """Run the command line in a process of its own; returns what `subprocess.run` does."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", *map(str, words)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, **how)


def test_all_networks_train_in_the_background_once(tmp_path):
    words = ["blendlab", "train", "all", "--background", "--share", 0.01, "--out", tmp_path]
    started = blendlab(*words, "--cpu", "--set", "pool=32")
    assert started.returncode == 0, started.stderr
    process = int(started.stdout.split("kill ")[1].split()[0])
    log = tmp_path / "train.log"
    try:
        until = time.monotonic() + 300
        while "autoencoder 1.8 minutes" not in log.read_text():
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.1)
        with pytest.raises(ValueError, match="another process is writing in"):
            plan.in_background(tmp_path)
    finally:
        os.kill(process, signal.SIGKILL)


@pytest.mark.parametrize(
    "given, sentence",
    [
        ({"share": 0.0}, "share is 0.0; take a number above 0 to 1000"),
        ({"share": float("nan")}, "share is nan"),
        ({"minutes": 3.0}, "the plan names the minutes; use --share"),
        ({"export_to": "x"}, "the plan names the folders"),
        ({"source": "x"}, "all networks start from 'shipped' or from nothing"),
        ({"pool": 0}, "pool is 0"),
        ({"lr": 1e30}, "lr is 1e"),
        ({"widths": (8, 8, 8, 8)}, "give 3 whole numbers"),
        ({"rung": "full"}, "autoencoder has no setting 'rung'"),
    ],
)
def test_a_plan_refuses_what_any_of_its_networks_refuses(given, sentence, tmp_path):
    for start in (plan.train_all, plan.in_background):
        with pytest.raises(ValueError, match=sentence):
            start(tmp_path, **given)
    assert not list(tmp_path.iterdir())


def test_the_module_and_the_command_take_the_same_words(tmp_path):
    words = ["autoencoder", "--batch", 2, "--cpu", "--precision", "no", "--out", tmp_path]
    words += ["--set", "widths=8,8,8", "--set", "pool=16", "--set", "kl=1e-5"]
    begun = blendlab("blendlab.training", *words, "--steps", 1)
    assert begun.returncode == 0, begun.stderr
    longer = blendlab("blendlab", "train", *words, "--steps", 2)
    assert longer.returncode == 0, longer.stderr
    assert "resumed at step 1" in longer.stdout and "done at step 2" in longer.stdout
    assert json.loads((tmp_path / "config.json").read_text())["job"]["kl"] == 1e-5


# The networks, as small as they go

TINY = {"steps": 2, "batch": 2, "precision": "no", "cpu": True}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Every network after two steps: {name: exported folder}."""
    out = tmp_path_factory.mktemp("runs")
    folder = {
        "autoencoder": training.main(
            "autoencoder", out=out / "a", widths=(8, 8, 8), pool=16, **TINY
        )
    }
    rest = {
        "autoencoder": folder["autoencoder"],
        "pool": 16,
        "options": {"sheet_minutes": None},
        **TINY,
    }
    folder["judge"] = training.main("judge", out=out / "j", widths=(8, 8), **rest)
    sizes = {"widths": (16, 16), "text_width": 16, "text_layers": 1}
    folder["latent"] = training.main("latent", out=out / "l", **sizes, **rest)
    del rest["autoencoder"]
    sizes = {"width": 32, "layers": 1, "text_width": 32, "text_layers": 1}
    folder["clip"] = training.main("clip", out=out / "c", **sizes, **rest)
    folder["pixel"] = training.main("pixel", out=out / "p", widths=(8, 16, 32), **rest)
    start = {"latent": folder["latent"], "clip": folder["clip"]}
    folder["exemplar"] = training.main("exemplar", out=out / "e", **start, **rest)
    start = {"latent": folder["latent"]}
    folder["inpaint"] = training.main("inpaint", out=out / "i", **start, **rest)
    assert set(folder) == set(training.JOBS)
    return folder


def test_every_network_writes_weights_in_half_precision_with_its_seed_and_config(runs):
    from safetensors.torch import load_file

    for name, folder in runs.items():
        notes = json.loads((folder / f"training-{name}.json").read_text())
        assert (
            notes["seed"] == 0
            and notes["step"] == 2
            and notes["versions"]["torch"] == torch.__version__
        )
        assert (folder.parent / "config.json").exists()
        configs = [json.loads(file.read_text()) for file in folder.rglob("config.json")]
        assert not any(config.get("_name_or_path") for config in configs), name
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
    assert image.shape == (1, 3, 128, 128)
    parts = [json.loads(file.read_text()) for file in runs["latent"].glob("*/config.json")]
    assert len(parts) == 3 and not any("_name_or_path" in part for part in parts)
    config = pipe.scheduler.config
    assert (config.prediction_type, config.set_alpha_to_one, config.clip_sample) == (
        "v_prediction",
        True,
        False,
    )
    assert json.loads((runs["latent"] / "blendlab.json").read_text())["size"] == 128
    # transformers 4 starts from random weights without this prefix
    keys = load_file(runs["latent"] / "text_encoder" / "model.safetensors").keys()
    assert all(key.startswith("text_model.") for key in keys)


def test_the_latent_model_learns_by_the_optimizer_that_is_named(runs):
    from blendlab.muon import Muon
    from blendlab.training.latent import Latent

    small = {"widths": (16, 16), "text_width": 16, "text_layers": 1, "pool": 16}
    small |= {"autoencoder": runs["autoencoder"]}
    for named, kind in (({}, Muon), ({"optimizer": "adamw"}, torch.optim.AdamW)):
        job = Latent(**named, **small)
        assert type(harness.make_optimizer(job, harness.Options(1))) is kind
    with pytest.raises(ValueError, match="optimizer is 'sgd'; choose 'muon' or 'adamw'"):
        Latent(optimizer="sgd", **small)


def test_the_clip_is_an_open_clip_folder_with_its_own_words(runs):
    import open_clip

    model = open_clip.create_model(f"local-dir:{runs['clip']}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{runs['clip']}")
    assert tokenizer(["a red cat"]).shape == (1, 32) and tokenizer(["a red cat"])[0].argmax() == 4
    assert model.visual.image_size in (64, (64, 64)) and tuple(model.visual.image_mean) == (
        0.5,
        0.5,
        0.5,
    )
    clip = load_clip(runs["clip"])
    torch.testing.assert_close(dict(clip.model.named_parameters()), dict(model.named_parameters()))


def test_the_clip_learns_what_a_mask_leaves_of_an_object(runs):
    from blendlab.training.clip import ClipJob

    job = ClipJob(batch_size=64, pool=64, width=32, layers=1, text_width=32, text_layers=1)
    job.fill(0)
    batch = job.batch(3)
    assert batch["image"].shape == (64, 3, 64, 64) and batch["image"].abs().max() <= 1
    corner = batch["image"][
        :, :, 0, 0
    ]  # (64,3): most objects are cut out on black (-1) or on grey (0, with noise)
    plain = ((corner - corner[:, :1]).abs().amax(1) < 1e-3).float().mean()
    assert 0.15 < plain < 0.9
    same = {
        **batch,
        "ids": batch["ids"][:1].expand(64, -1),
    }  # all words alike: nothing can be told apart
    assert job.loss(same)["right"] == 1
    nameless = batch | {"named": torch.full_like(batch["named"], -100)}  # as a batch of 2 may be
    assert job.loss(nameless)["token"] == 0 and job.loss(nameless)["loss"].isfinite()


def test_a_warp_that_does_nothing_changes_nothing_and_the_ground_comes_in_from_outside():
    from blendlab.training.clip import warped

    image, ground = torch.rand(2, 3, 16, 16), torch.tensor([0.0, -1.0]).view(2, 1, 1, 1)
    still = torch.tensor([0.5, (1 - 0.06 / 0.28) / 2, 0.5, 0.5, 0.5, 0.5]).expand(2, 6)
    whole = torch.tensor([[0.0, 0.0, 1.0, 1.0]]).expand(2, 4)
    torch.testing.assert_close(warped(image, still, ground, whole), image, atol=1e-5, rtol=0)
    quarter = warped(
        image, still, ground, torch.tensor([[0.5, 0.0, 1.0, 0.5]]).expand(2, 4)
    )  # top right
    larger = torch.nn.functional.interpolate(image[..., :8, 8:], scale_factor=2, mode="bilinear")
    inside = (
        ...,
        slice(1, -1),
        slice(1, -1),
    )  # at the edge its neighbours outside the frame show through
    torch.testing.assert_close(quarter[inside], larger[inside], atol=1e-5, rtol=0)
    moved = warped(image, torch.tensor([0.5, 0.0, 1.0, 0.5, 0.5, 0.5]).expand(2, 6), ground, whole)
    torch.testing.assert_close(moved[:, :, 8, -1], ground[:, 0, 0].expand(2, 3))


def test_the_pixel_model_is_a_diffusers_pipeline_without_words(runs):
    pipe = bl.load(runs["pixel"], device="cpu")
    assert type(pipe).__name__ == "DDIMPipeline" and pipe.unet.dtype == torch.float32
    assert pipe.scheduler.config.prediction_type == "sample" and pipe.unet.patch == 4
    images = pipe(batch_size=2, num_inference_steps=2, output_type="np").images
    assert images.shape == (2, 128, 128, 3)


def test_the_pixel_job_continues_from_the_weights_that_ship():
    from blendlab.training.pixel import Pixel

    folder, pipe = training.shipped("pixel"), bl.load("tinyworld-pixel", device="cpu")
    job = Pixel(pool=16, **Pixel.sizes_of(folder))
    job.load(folder)
    assert job.scheduler.config.prediction_type == pipe.scheduler.config.prediction_type == "sample"
    x = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(job.net["unet"](x, 500).sample, pipe.unet(x, 500).sample)


def test_the_pixel_model_begins_with_the_convolutions_of_the_latent_model(runs):
    from diffusers import UNet2DConditionModel

    from blendlab.training.pixel import Pixel

    known = UNet2DConditionModel.from_pretrained(runs["latent"] / "unet").float().state_dict()
    widths = UNet2DConditionModel.load_config(runs["latent"] / "unet")["block_out_channels"]
    net = Pixel(widths=(8, *widths), latent=runs["latent"], pool=16).net["unet"].unet
    mine, conv = net.state_dict(), "resnets.0.conv1.weight"
    for key in ("mid_block", "up_blocks.0", "up_blocks.1"):
        assert torch.equal(mine[f"{key}.{conv}"], known[f"{key}.{conv}"])
    assert torch.equal(
        mine[f"down_blocks.2.{conv}"], known[f"down_blocks.1.{conv}"]
    )  # one level deeper
    assert mine["conv_in.weight"].shape != known["conv_in.weight"].shape
    with pytest.raises(ValueError, match="text-to-image model"):
        Pixel(latent=runs["latent"] / "nowhere", pool=16)


def test_the_exemplar_model_has_the_published_layout_and_starts_blind_to_its_new_channels(runs):
    from blendlab.training.exemplar import nine_channels

    pipe = bl.load(runs["exemplar"], device="cpu")
    assert type(pipe).__name__ == "ExemplarPipeline" and pipe.unet.config.in_channels == 9
    assert (pipe.size, pipe.mean, pipe.encoder.config.tokens) == (64, (0.5, 0.5, 0.5), "class")
    assert bl.models.settings(pipe, "exemplar")["w"] == 1.5
    plain, nine = bl.load(runs["latent"], device="cpu").unet, nine_channels(runs["latent"] / "unet")
    z, beside, token = torch.randn(2, 4, 8, 8), torch.randn(2, 5, 8, 8), torch.randn(2, 1, 16)
    with torch.no_grad():
        ours, theirs = nine(torch.cat([z, beside], 1), 5, token).sample, plain(z, 5, token).sample
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "rung, tokens, without", [("tokens", 65, 0), ("augmented", 65, 0), ("full", 1, 0.2)]
)
def test_each_rung_of_the_exemplar_learns_from_what_the_paper_says(runs, rung, tokens, without):
    from blendlab.training.exemplar import Exemplar

    start = {"latent": runs["latent"], "clip": runs["clip"]}
    job = Exemplar(rung=rung, pool=32, batch_size=100, **start)
    job.fill(0)
    batch = job.batch(0)
    assert batch["beside"].shape == (100, 5, 32, 32) and set(
        batch["beside"][:, 4].unique().tolist()
    ) == {0.0, 1.0}
    assert (~batch["said"]).float().mean().item() == pytest.approx(
        without, abs=0.12
    )  # three standard errors
    crops = job.batch(1)
    assert crops["z0"].shape == (300, 4, 16, 16)
    torch.testing.assert_close(job.batch(1)["reference"], crops["reference"], rtol=0, atol=0)
    few = {key: value[:2] for key, value in batch.items()}
    assert (
        job.loss(few)["loss"].isfinite()
        and job.pipeline().encoder(few["reference"]).shape[1] == tokens
    )
    # with the null vector for all, the reference says nothing
    silent = few | {"said": torch.zeros(2, dtype=torch.bool)}
    other = silent | {"reference": -few["reference"]}
    assert job.loss(silent)["loss"] == job.loss(other)["loss"] != job.loss(few)["loss"]
    job.whole = 1  # whole pictures in every step
    assert job.batch(1)["z0"].shape == (100, 4, 32, 32)
    with pytest.raises(ValueError, match="whole is 0; take 1"):
        Exemplar(whole=0, **start)
    with pytest.raises(ValueError, match="rung is 'top'; choose tokens, augmented, full"):
        Exemplar(rung="top", **start)
    with pytest.raises(ValueError, match="no CLIP in nowhere; train it first: blendlab train clip"):
        Exemplar(latent=runs["latent"], clip="nowhere")
    if rung == "full":
        job.load(runs["exemplar"])
        trained = bl.load(runs["exemplar"], device="cpu")
        torch.testing.assert_close(
            job.net["unet"].state_dict(), trained.unet.state_dict(), rtol=0, atol=0
        )
        encoder, saved = job.pipeline().encoder.state_dict(), trained.encoder.state_dict()
        torch.testing.assert_close(
            encoder, saved, atol=1e-3, rtol=1e-3
        )  # the tower was rounded when it was saved
        by_batch = Exemplar(pool=32, batch_size=100, null_per="batch", **start)
        by_batch.pool = job.pool
        assert {by_batch.batch(step)["said"].unique().numel() for step in range(4)} == {1}


def test_half_of_the_scenes_that_a_reference_comes_from_have_patterns_only():
    from blendlab.training.pictures import patterned

    scenes = world.sample(128, seed=3, start=64)
    shown = patterned(scenes, 64)
    again = torch.cat([patterned(scenes[i : i + 32], 64 + i).pattern for i in range(0, 128, 32)])
    assert torch.equal(again, shown.pattern)  # of a scene's number alone
    natural = (torch.arange(64, 192) // 8 % 2 == 0)[:, None]
    there = scenes.kind >= 0
    assert torch.equal(shown.pattern[natural & there], scenes.pattern[natural & there])
    striped, spotted = ((shown.pattern == k)[~natural & there].float().mean() for k in (1, 2))
    assert striped + spotted == 1 and 0.4 < striped < 0.6
    assert 0.55 < (scenes.pattern == 0)[there].float().mean() < 0.75
    for name in ("kind", "colour", "x", "size"):
        assert torch.equal(getattr(shown, name), getattr(scenes, name))


def test_crops_lie_around_the_cells_that_were_asked_for():
    from blendlab.training.pictures import closer_looks, crop, middles

    maps = torch.arange(2 * 16 * 16).view(2, 1, 16, 16).float()
    windows = crop(maps, torch.tensor([8, 0]), torch.tensor([8, 15]), 4)
    assert windows.shape == (2, 1, 4, 4)
    torch.testing.assert_close(windows[0], maps[0, :, 6:10, 6:10])
    torch.testing.assert_close(windows[1], maps[1, :, 0:4, 12:16])  # moved to lie inside
    objects = torch.zeros(50, 1, 16, 16)
    objects[:, :, 3:5, 10:12] = 1
    y, x = middles(objects, torch.Generator().manual_seed(0))
    assert y.float().median() in (3, 4) and x.float().median() in (10, 11)
    looks = closer_looks(0, 40, smallest=0.3)
    side = looks[:, 2] - looks[:, 0]
    assert (side == 1).sum() == 30 and side.min() >= 0.3 and looks.min() >= 0 and looks.max() <= 1


@pytest.mark.parametrize("name", ["autoencoder", "latent", "pixel"])
def test_every_other_step_is_made_of_crops_around_objects(name, runs):
    sizes = {
        "latent": {
            "widths": (16, 16),
            "text_width": 16,
            "text_layers": 1,
            "autoencoder": runs["autoencoder"],
        }
    }
    small = {"autoencoder": {"widths": (8, 8, 8)}, "pixel": {"widths": (8, 16, 32)}, **sizes}[name]
    job = training.job_class(name)(batch_size=4, pool=32, **small)
    job.fill(0)
    key = {"latent": "z0"}.get(name, "image")
    whole, crops = job.batch(0)[key], job.batch(1)[key]
    assert crops.shape[-1] == whole.shape[-1] // 2 and crops.shape[0] in (
        3 * len(whole),
        4 * len(whole),
    )
    torch.testing.assert_close(job.batch(1)[key], crops, rtol=0, atol=0)


def test_from_shipped_continues_from_the_shipped_weights(runs, tmp_path, monkeypatch):
    from safetensors.torch import load_file

    shipped = tmp_path / "weights"
    shipped.mkdir()
    (shipped / "tinyworld").symlink_to(runs["latent"])
    (shipped / "tinyworld-judge").symlink_to(runs["judge"])
    monkeypatch.setattr(harness, "WEIGHTS", shipped)
    monkeypatch.chdir(tmp_path)  # no runs/autoencoder here, so the shipped autoencoder is found
    sizes = {
        "judge": {"widths": (8, 8)},
        "latent": {"widths": (16, 16), "text_width": 16, "text_layers": 1},
    }
    for name, more in sizes.items():
        continued = training.main(
            name,
            source="shipped",
            lr=1e-9,
            pool=16,
            options={"sheet_minutes": None},
            **more,
            **TINY,
        )
        for file in continued.rglob("*.safetensors"):
            before = load_file(runs[name] / file.relative_to(continued))
            torch.testing.assert_close(load_file(file), before, atol=1e-4, rtol=1e-3)


def test_a_running_job_can_be_exported_from_its_checkpoint(runs, tmp_path):
    out = runs["autoencoder"].parent
    folder = training.main(
        "autoencoder", out=out, export_to=tmp_path / "now", widths=(8, 8, 8), **TINY
    )
    weights = "diffusion_pytorch_model.safetensors"
    assert (folder / weights).read_bytes() == (runs["autoencoder"] / weights).read_bytes()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"name": "dragon"}, "cannot train 'dragon'; it can train autoencoder"),
        ({"name": "autoencoder", "seed": 7}, "holds a run with seed 0, not 7"),
        (
            {"name": "autoencoder", "out": "elsewhere", "export_to": "x"},
            "no checkpoint in elsewhere",
        ),
        ({"name": "judge", "autoencoder": "nowhere"}, "no autoencoder in nowhere; train it first"),
        ({"name": "autoencoder", "widths": (8, 8, 16)}, "of other sizes or another optimizer"),
        (
            {"name": "autoencoder", "widths": (8, 8, 16), "export_to": "x"},
            "of other sizes; pass those, as in --set widths=8,8,8",
        ),
        ({"name": "autoencoder", "precision": "fp16"}, "'fp16', which needs a GPU; choose auto"),
    ],
)
def test_a_wrong_call_gets_a_sentence_that_names_the_fix(runs, arguments, sentence):
    sizes = {"widths": (8, 8, 8)} if arguments["name"] != "judge" else {}
    arguments = {"out": runs["autoencoder"].parent, **sizes, **TINY, **arguments}
    with pytest.raises(ValueError, match=sentence):
        training.main(**arguments)


NUMBERS = {
    "steps": (0, -1, 1.5, 10**9, True, "2"),
    "batch": (0, -1, 2.5, 10**9),
    "lr": (0, -1e-3, 1e30, float("nan"), float("inf")),
    "minutes": (0, -1, float("nan"), float("inf"), 1e9),
    "seed": (-1, 15625, 0.5, 10**20),
    "pool": (0, -16, 15, 10**9, "many"),
    "kl": (0, -1, float("nan")),
}


@pytest.mark.parametrize(
    "name, value", [(name, value) for name, values in NUMBERS.items() for value in values]
)
def test_impossible_numbers_are_refused_with_the_range(name, value, tmp_path):
    with pytest.raises(ValueError, match=f"{name} is .*; take a .*number (from|above) .* to "):
        training.main("autoencoder", out=tmp_path, **{name: value})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "sizes, sentence",
    [
        ({"dragon": 1}, "autoencoder has no setting 'dragon'; it has widths, pool, kl"),
        ({"widths": 8}, "widths is 8; give 3 whole numbers, multiples of 8.*widths=8,16,32"),
        ({"widths": (8, 8)}, "give 3 whole numbers"),
        ({"widths": (8, 8, 12)}, "multiples of 8"),
        ({"widths": (8, 8, 0)}, "multiples of 8"),
        ({"widths": "8;8;8"}, "give 3 whole numbers"),
        ({"precision": "half"}, "precision is 'half'; choose auto, bf16, fp16, no"),
    ],
)
def test_settings_of_the_wrong_form_are_refused(sizes, sentence, tmp_path):
    with pytest.raises(ValueError, match=sentence):
        training.main("autoencoder", out=tmp_path, **sizes)


@pytest.mark.parametrize(
    "name, sizes, sentence",
    [
        ("pixel", {"widths": (8, 8, 8, 8), "patch": 3}, "size is 128: half of it has to be a mult"),
        ("pixel", {"prediction": "epsilon"}, "prediction is 'epsilon'; choose 'sample' or 'v_pred"),
        ("latent", {"size": 96, "widths": (16, 16, 16, 16)}, "with 4 widths take a multiple of 64"),
        ("latent", {"text_width": 18}, "text_width is 18; take a multiple of 4"),
        ("clip", {"width": 100}, "width is 100; take a multiple of 32"),
        ("clip", {"text_width": 16}, "text_width is 16; take a multiple of 32"),
        ("judge", {"widths": (8,) * 8}, "give 2 to 7 whole numbers"),
    ],
)
def test_sizes_that_do_not_go_together_are_refused(name, sizes, sentence, tmp_path):
    with pytest.raises(ValueError, match=sentence):
        training.main(name, out=tmp_path, **sizes, **TINY)


def test_a_run_of_another_kind_is_not_exported_and_its_notes_are_its_own(runs, tmp_path):
    start = {"latent": runs["latent"], "clip": runs["clip"], "pool": 16}
    out = runs["exemplar"].parent
    with pytest.raises(ValueError, match="holds a run with rung full, not tokens"):
        training.main("exemplar", out=out, export_to=tmp_path, rung="tokens", **start, **TINY)
    with pytest.raises(ValueError, match="it began with other frozen networks: name those"):
        training.main("exemplar", out=out, pool=16, latent=runs["latent"], **TINY)
    sizes = {"widths": (8, 16, 32), "prediction": "v_prediction", "pool": 16}
    with pytest.raises(ValueError, match="a run with prediction sample, not v_prediction"):
        training.main("pixel", out=runs["pixel"].parent, **sizes, **TINY)
    here = training.main("exemplar", out=out, export_to=tmp_path, lr=1e-4, **start, **TINY)
    notes = json.loads((here / "training-exemplar.json").read_text())
    assert notes["lr"] == 1e-3 and notes["step"] == 2


def test_an_autoencoder_with_torn_or_infinite_weights_is_refused_by_name(runs, tmp_path):
    shutil.copytree(runs["autoencoder"], tmp_path / "vae")
    file = tmp_path / "vae" / "diffusion_pytorch_model.safetensors"
    whole = load_file(file)
    save_file({k: v for k, v in whole.items() if not k.startswith("decoder")}, file)
    with pytest.raises(ValueError, match="vae"):
        harness.find_autoencoder(tmp_path / "vae", torch.device("cpu"))
    save_file({k: v * float("inf") for k, v in whole.items()}, file)
    with pytest.raises(ValueError, match="finite"):
        harness.find_autoencoder(tmp_path / "vae", torch.device("cpu"))


def test_every_seed_and_process_has_noise_of_its_own():
    jobs = [harness.Job(seed=seed, rank=rank) for seed in (0, 1, 7) for rank in (0, 1, 3)]
    drawn = {torch.rand(1, generator=job.generator(step)).item() for job in jobs for step in (0, 5)}
    assert len(drawn) == 2 * len(jobs)


def test_no_seed_reaches_the_scenes_that_are_held_out():
    seeds = [
        harness.Job(seed=seed, rank=rank).world_seed()
        for seed in (0, 1, harness.SEEDS)
        for rank in (0, harness.PROCESSES - 1)
    ]
    assert len(set(seeds)) == 6 and max(seeds) < world.HELD_OUT
    assert (harness.SEEDS + 1) * harness.PROCESSES + harness.PROCESSES > world.HELD_OUT
    with pytest.raises(ValueError, match=f"seed is 15625; take a whole .* to {harness.SEEDS}"):
        harness.Job(seed=harness.SEEDS + 1)


@pytest.mark.parametrize("name", ["autoencoder", "judge", "pixel", "latent"])
def test_weights_that_are_incomplete_or_not_finite_are_no_start(runs, tmp_path, name):
    import shutil

    from safetensors.torch import load_file, save_file

    folder = tmp_path / "start"
    shutil.copytree(runs[name], folder)
    file = next(folder.glob("unet/*.safetensors"), None) or next(folder.glob("*.safetensors"))
    whole = load_file(file)
    sizes = {
        "autoencoder": {"widths": (8, 8, 8)},
        "judge": {"widths": (8, 8), "autoencoder": runs["autoencoder"]},
        "pixel": {},
        "latent": {"text_width": 16, "text_layers": 1, "autoencoder": runs["autoencoder"]},
    }[name]

    def refused(weights, sentence):
        save_file(weights, file, metadata={"format": "pt"})
        with pytest.raises(ValueError, match=sentence):
            training.main(name, out=tmp_path / "run", source=folder, pool=32, **sizes, **TINY)
        assert not (tmp_path / "run").exists()

    key = next(iter(whole))
    refused({k: v for k, v in whole.items() if k != key}, "start.* lacks 1 of the")
    refused(whole | {key: whole[key] * float("nan")}, "start.* has NaN")
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ValueError, match="incomplete or damaged, copy the|is torn"):
        training.main(name, out=tmp_path / "run", source=folder, pool=32, **sizes, **TINY)


def test_what_only_one_job_knows_is_set_by_name():
    assert training.settings(["rung=tokens", "pool=64", "kl=1e-5", "widths=8,16"]) == {
        "rung": "tokens",
        "pool": 64,
        "kl": 1e-5,
        "widths": (8, 16),
    }
    with pytest.raises(ValueError, match="steps is no setting: it is an option"):
        training.settings(["steps=3"])
    with pytest.raises(ValueError, match="'rung' is no setting; write NAME=VALUE"):
        training.settings(["rung"])


def test_weights_of_another_size_are_refused_with_a_sentence(runs, tmp_path):
    with pytest.raises(ValueError, match="of the shape .*; without --from it starts afresh"):
        training.main(
            "autoencoder", out=tmp_path, source=runs["autoencoder"], widths=(16, 16, 16), **TINY
        )


# The tokenizer


def test_every_known_word_is_one_token_and_captions_survive_the_round_trip():
    tokenizer = load_tokenizer(world.words())
    for word in world.words():
        assert len(tokenizer(word).input_ids) == 3, word  # start, word, end
    for caption in world.captions(world.sample(50), rich=0.5):
        assert (
            tokenizer.decode(tokenizer(caption).input_ids, skip_special_tokens=True).replace(
                " ,", ","
            )
            == caption
        )
    assert (
        len(tokenizer) < 500
        and tokenizer.pad_token_id == tokenizer.eos_token_id == len(tokenizer) - 1
    )


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


def test_a_start_that_is_not_there_is_named_before_anything_is_loaded(tmp_path):
    with pytest.raises(
        ValueError, match="there are no weights in .*nowhere to start from; give 'shipped' or"
    ):
        training.main("pixel", steps=1, out=tmp_path / "run", source=tmp_path / "nowhere")


def test_cells_are_named_by_what_covers_them_most():
    from blendlab import world
    from blendlab.training import dense

    scenes = world.scene(
        "grass",
        "day",
        [
            dict(kind="ball", colour="red", x=0.25, y=0.25, size=0.2),
            dict(kind="bus", colour="blue", x=0.7, y=0.7, size=0.25),
        ],
    )
    kept = dense.shown(world.render(scenes, 64))
    kind, colour = dense.labels(kept["planes"] / 255, kept["kind"], kept["colour"], 8)
    named = {
        (world.KINDS[k - 1], world.COLOURS[c - 1])
        for k, c in zip(kind[kind > 0], colour[kind > 0], strict=True)
    }
    assert named == {("ball", "red"), ("bus", "blue")} and (kind == 0).sum() > 32
    assert world.KINDS[kind[0, 2, 2] - 1] == "ball" and world.KINDS[kind[0, 5, 5] - 1] == "bus"

    right = torch.cat([torch.nn.functional.one_hot(x, n).movedim(-1, 1) for x, n in
                       ((kind, dense.KINDS), (colour, dense.COLOURS))], dim=1) * 50.0  # fmt: skip
    assert dense.dense_loss(right, kind, colour) < 1e-3 < 1 < dense.dense_loss(-right, kind, colour)


def test_the_second_task_is_not_shipped_and_leaves_no_hook():
    from blendlab.training.pixel import Pixel

    job = Pixel(widths=(8, 16, 32), pool=16, batch_size=4)
    job.fill(0)
    assert {"loss", "squares", "dense"} == set(job.loss(job.batch(0)))
    assert not job.net["unet"].unet.mid_block._forward_hooks


def test_the_inpainting_model_opens_in_diffusers_and_was_trained_on_their_order_of_channels(runs):
    from diffusers import StableDiffusionInpaintPipeline

    from blendlab.training.inpaint import Inpaint

    folder = runs["inpaint"]
    pipe = StableDiffusionInpaintPipeline.from_pretrained(folder, local_files_only=True)
    pipe.set_progress_bar_config(disable=True)
    size = pipe.unet.config.sample_size * pipe.vae_scale_factor
    image = world.render(world.sample(1, seed=world.HELD_OUT), size=size).image
    mask = torch.zeros(1, 1, size, size)
    mask[..., size // 4 : size // 2, size // 4 :] = 1
    shown = []
    pipe.unet.register_forward_pre_hook(lambda net, args: shown.append(args[0]))
    made = pipe("a red cat", image / 2 + 0.5, mask, num_inference_steps=2, output_type="pt").images
    assert made.shape == image.shape and made.isfinite().all()

    # What their pipeline shows the network beside the noise is what the job trains on.
    job = Inpaint(latent=runs["latent"], pool=16)
    job.load(folder)
    with torch.no_grad():
        holed = job.encode(image * (1 - mask))
    keep = torch.nn.functional.interpolate(1 - mask, holed.shape[-2:])
    z = torch.zeros_like(holed[:, :4])
    ours = job.joined(z, torch.cat([holed[:, :4], keep], dim=1))
    theirs = shown[0][:1]
    assert torch.equal(theirs[:, 4], ours[:, 4])
    away = (theirs[:, 5:] - ours[:, 5:]) / holed[:, 4:].clamp(min=1e-3)  # a sample, in deviations
    assert away.abs().max() < 6 and away.abs().mean() < 1.5

    # At first it does not look at them.
    plain = bl.load(runs["latent"], device="cpu").unet
    fresh, t = Inpaint(latent=runs["latent"], pool=16).net["unet"].eval(), torch.tensor([300])
    text = torch.randn(1, 8, plain.config.cross_attention_dim)
    with torch.no_grad():
        torch.testing.assert_close(fresh(ours, t, text).sample, plain(z, t, text).sample)


def test_the_comparison_of_methods_runs_the_inpainting_model(runs):
    from blendlab.measuring import methods, precision, tables

    pipe = bl.load(runs["inpaint"], device="cpu")
    method = methods.METHODS["inpaint"]
    ask = precision.draw("add", 0, tables.side(pipe)).ask(2, seed=0)
    with torch.no_grad():
        made = [precision.admitted(replace(method, keeps=False), method(ask, pipe), ask)
                for _ in range(2)]  # fmt: skip
    assert torch.equal(*made) and not torch.equal(*made[0])
