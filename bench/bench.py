"""How long an edit takes, as ratios: to its own network calls, and to diffusers' inpainting
pipeline.

    python bench/bench.py            # minutes; a table, and bench/results.json
    python bench/bench.py --large    # without a GPU too: one step of a network as large as SD 1.5
    python bench/bench.py --training # two training steps of the latent model, now and at first

Seconds depend on the machine and on what else it does. The ratio of two runs, one right after the
other, hardly does; so contestants take turns, and the table holds the median of the ratios. Next:
README.md, how to read it.
"""

import argparse
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import numpy as np
import torch

import blendlab as bl
from blendlab import cards
from blendlab.measuring import metrics, results
from blendlab.papers import decoder
from blendlab.papers.blended_latent import FALLBACK

HERE = Path(__file__).parent
PROMPT = "a red mushroom"
NETWORKS = (("text_encoder", "forward"), ("vae", "encode"), ("unet", "forward"), ("vae", "decode"))

# A row of the table for each of these that a contest has both contestants for: A, B, and what it is
# called.
RATIOS = (
    ("edit", "networks", "our edit / its network calls alone"),
    ("preset", "diffusers", "our edit like diffusers / diffusers' inpainting"),
    ("guided", "twice", "guided edit in pixels / the same with two network passes a step"),
    ("tuned", "plain", "decoder tuning / the plain loop, to the same background"),
)


# The contests


@dataclass(frozen=True)
class Contest:
    """Networks, and what is to be compared on them: load() -> pipe, contestants(pipe, n, steps) ->
    {name: function}.
    """

    label: str
    load: Callable
    contestants: Callable
    counts: tuple[int, ...] = (1, 4)  # edits at once
    steps: int | None = None  # None: what the model recommends


def contests(quick: bool, large: bool) -> list[Contest]:
    """What is run here: tinyworld; the size of Stable Diffusion 1.5 on a GPU, or where it is asked
    for.
    """
    gpu = torch.cuda.is_available()
    if quick:
        chosen = [Contest("tinyworld", tinyworld, latent_edits, steps=2)]
    else:
        chosen = [
            Contest("tinyworld", tinyworld, latent_edits, (1, 4, 24)),
            Contest("tinyworld-pixel", tinyworld_pixel, guided_edits),
            Contest("tinyworld", tinyworld, tunings, (1,)),
        ]
    if large or gpu and not quick:
        size = ((1, 4), 50) if gpu else ((1,), 1)
        chosen.append(
            Contest("Stable Diffusion 1.5's size, random weights", sd15_sized, latent_edits, *size)
        )
    return chosen


def latent_edits(pipe, n, steps):
    """Edits of one picture: ours as recommended, its networks, ours with diffusers' rules,
    diffusers' own.
    """
    numbers = FALLBACK | cards.settings(pipe, "blended_latent")
    steps, w = steps or numbers["steps"], numbers["w"]
    size = pipe.unet.config.sample_size * pipe.vae_scale_factor
    image = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    mask = bl.masks.from_box((0.25, 0.25, 0.75, 0.75), (size, size))

    def edit(**how):
        return bl.blended_latent(pipe, image, mask, PROMPT, n=n, steps=steps, **how)

    runs = {
        "edit": edit,
        "networks": replay(pipe, network_calls(pipe, edit)),
        "preset": lambda: edit(preset="diffusers", w=w),
    }
    try:
        theirs = inpainting(pipe)
    except ImportError:
        return runs
    asked = dict(strength=1.0, num_inference_steps=steps, guidance_scale=w, num_images_per_prompt=n)
    runs["diffusers"] = lambda: theirs(PROMPT, image / 2 + 0.5, mask, output_type="pt", **asked)
    return runs


def guided_edits(model, n, steps):
    """Edits in pixels, and the same as the authors' code makes them (image_editor.py:150-235): one
    pass of the network for the gradient, and another one for the move.
    """
    clip = bl.load("tinyworld-clip", device=model.device)
    size, kind = model.unet.config.sample_size, type(model.unet)
    image = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    mask = bl.masks.from_box((0.25, 0.25, 0.75, 0.75), (size, size))
    how = dict(n=n, ranking=None) | ({"steps": steps} if steps else {})

    def guided():
        return bl.blended(model, clip, image, mask, PROMPT, **how)

    def twice():
        once = kind.forward

        def both(network, *args, **kwargs):
            with torch.no_grad():
                once(network, *args, **kwargs)
            return once(network, *args, **kwargs)

        with mock.patch.object(kind, "forward", both):
            return guided()

    return {"guided": guided, "twice": twice}


TUNED = dict(preset="fast")


def tunings(pipe, n, steps):
    """Decoder tuning for an edit: by Muon, what comes before the tuned part computed once, as many
    steps as reach the background error of the plain loop (Adam, nothing reused).
    """
    numbers = decoder.FALLBACK["weights"] | cards.settings(pipe, "reconstruct").get("weights", {})
    steps = steps or numbers["steps"]
    size = pipe.unet.config.sample_size * pipe.vae_scale_factor
    image = bl.world.render(bl.world.sample(1, seed=bl.world.HELD_OUT), size).image
    mask = bl.masks.from_box((0.25, 0.25, 0.75, 0.75), (size, size))
    edit = bl.blended_latent(pipe, image, mask, PROMPT, n=n)

    def tune(**how):
        return bl.reconstruct(pipe, edit, image, mask, plateau=0.0, precision="float32", **how)

    slow = dict(steps=steps, lr=numbers["lr"], blocks="all", reuse=False)
    off = lambda edit: metrics.background_error(edit.tensor.cpu(), image, mask).item()  # noqa: E731
    target, counts = off(tune(**slow)), range(1, 4 * steps)
    enough = counts[bisect_left(counts, -target, key=lambda n: -off(tune(**TUNED, steps=n)))]
    return {"tuned": lambda: tune(**TUNED, steps=enough), "plain": lambda: tune(**slow)}


def inpainting(pipe):
    """diffusers' pipeline around the same networks, with the scheduler whose steps are ours
    (DDIM).
    """
    from diffusers import DDIMScheduler, StableDiffusionInpaintPipeline

    scheduler = DDIMScheduler.from_config(pipe.scheduler.config, clip_sample=False)
    theirs = StableDiffusionInpaintPipeline(
        **dict(pipe.components) | {"scheduler": scheduler}, requires_safety_checker=False
    )
    theirs.set_progress_bar_config(disable=True)
    return theirs


def network_calls(pipe, run) -> list[tuple]:
    """Run it, and return what it asked of the pipeline's networks, in order: (network, method,
    args, kwargs).
    """
    calls = []

    def noting(part, method):
        kind = type(getattr(pipe, part))  # not the network alone: an edit may work on a copy of it
        call = getattr(kind, method)

        def noted(network, *args, **kwargs):
            calls.append((part, method, args, kwargs))
            return call(network, *args, **kwargs)

        return mock.patch.object(kind, method, noted)

    with ExitStack() as stack:
        for part, method in NETWORKS:
            if hasattr(pipe, part):
                stack.enter_context(noting(part, method))
        run()
    return calls


def replay(pipe, calls):
    """The function that makes these calls again and nothing else, each network in its own
    precision.
    """

    def ready(value, part):
        floats = torch.is_tensor(value) and value.is_floating_point()
        return value.to(getattr(pipe, part).dtype) if floats else value

    calls = [
        (
            part,
            method,
            [ready(a, part) for a in args],
            {key: ready(a, part) for key, a in kwargs.items()},
        )
        for part, method, args, kwargs in calls
    ]

    @torch.no_grad()
    def networks():
        for part, method, args, kwargs in calls:
            getattr(getattr(pipe, part), method)(*args, **kwargs)

    return networks


# The networks


def tinyworld():
    """The model that ships, in float32."""
    return bl.load("tinyworld")


def tinyworld_pixel():
    return bl.load("tinyworld-pixel")


def sd15_sized():
    """A pipeline of Stable Diffusion 1.5's size with random weights: float16 on a GPU, float32 on
    the CPU.

    The tokenizer is tinyworld's, with 77 places; what words mean to random weights does not matter.
    """
    from diffusers import DDIMScheduler, StableDiffusionPipeline
    from transformers import CLIPTokenizer

    device, dtype = ("cuda", torch.float16) if torch.cuda.is_available() else ("cpu", torch.float32)
    betas = dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    pipe = StableDiffusionPipeline(
        **sd15_networks(device),
        tokenizer=CLIPTokenizer.from_pretrained(
            cards.WEIGHTS / "tinyworld/tokenizer", model_max_length=77
        ),
        scheduler=DDIMScheduler(**betas, clip_sample=False, set_alpha_to_one=False, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    return pipe.to(device, dtype)


def sd15_networks(device) -> dict:
    """UNet, autoencoder and text encoder as stable-diffusion-v1-5's config files say; the weights
    are random.
    """
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(0)
    with torch.device(device):
        networks = {
            "unet": UNet2DConditionModel(
                sample_size=64,
                down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
                up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
                block_out_channels=(320, 640, 1280, 1280),
                layers_per_block=2,
                cross_attention_dim=768,
                attention_head_dim=8,
            ),
            "vae": AutoencoderKL(
                sample_size=512,
                down_block_types=("DownEncoderBlock2D",) * 4,
                up_block_types=("UpDecoderBlock2D",) * 4,
                block_out_channels=(128, 256, 512, 512),
                layers_per_block=2,
                latent_channels=4,
                scaling_factor=0.18215,
            ),
            "text_encoder": CLIPTextModel(
                CLIPTextConfig(
                    vocab_size=49408,
                    hidden_size=768,
                    intermediate_size=3072,
                    projection_dim=768,
                    num_hidden_layers=12,
                    num_attention_heads=12,
                )
            ),
        }
    return {name: network.eval().requires_grad_(False) for name, network in networks.items()}


# Training


@contextmanager
def training_steps(names=("now", "before")):
    """{name: function}: two training steps each, in a process of its own that waits in between.

    They differ in what a whole process has, the allocator: see training_step.py.
    """
    runs = {}
    with ExitStack() as stack:
        for name in names:
            process = subprocess.Popen(
                [sys.executable, HERE / "training_step.py", name],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env=os.environ | {"PYTHONPATH": str(HERE.parent)},
            )
            stack.callback(end, process)
            runs[name] = lambda process=process: answer(process, "\n", "done")
            answer(process, "", "ready")
        yield runs


def answer(process, question, expected):
    """Ask a worker and read on until it says what is expected."""
    with suppress(BrokenPipeError):
        process.stdin.write(question)
        process.stdin.flush()
    for line in process.stdout:
        if line.startswith(expected):
            return
    raise RuntimeError(f"{process.args[1].name} ended before it said {expected!r}")


def end(process):
    """End a worker, whatever it is doing."""
    process.kill()
    process.wait()
    with suppress(BrokenPipeError):
        process.stdin.close()
    process.stdout.close()


def training_rows(pairs: int) -> list[dict]:
    """The row of training steps: B is the step of version 0.1, with the same network and data."""
    with training_steps() as runs:
        taken = take_turns(runs, pairs)
    return [ratio("two training steps of the latent model, now / before", taken, "now", "before")]


# Imports


def import_rows(pairs: int) -> list[dict]:
    """The row of import times, each in a process of its own; B imports PyTorch alone."""

    def importing(name):
        words = [sys.executable, "-c", f"import {name}"]
        return lambda: subprocess.run(
            words, check=True, env=os.environ | {"PYTHONPATH": str(HERE.parent)}
        )

    runs = {name: importing(name) for name in ("blendlab", "torch")}
    for run in runs.values():
        run()  # files are read from the disk once
    taken = take_turns(runs, pairs)
    return [ratio("import blendlab / import torch", taken, "blendlab", "torch")]


# Measuring


def seconds(run) -> float:
    """How long it takes, to the microsecond, until a GPU is done too."""
    wait()
    start = time.perf_counter()
    run()
    wait()
    return round(time.perf_counter() - start, 6)


def wait():
    """Let the GPU finish, if there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def take_turns(runs: dict[str, Callable], pairs: int) -> dict[str, list[float]]:
    """The seconds of each contestant in each round. Every other round is run backwards, against
    drifts.
    """
    taken = {name: [] for name in runs}
    for turn in range(pairs):
        for name in reversed(runs) if turn % 2 else runs:
            taken[name].append(seconds(runs[name]))
    return taken


def rows(label: str, taken: dict[str, list[float]], calls: dict[str, Counter]) -> list[dict]:
    """A row for each ratio that was measured; "seconds" and "calls" hold what A and B took and
    asked.
    """
    return [
        ratio(f"{label}, {_asked(calls[a])}{what}", taken, a, b)
        | {"calls": {"A": calls[a], "B": calls[b]}}
        for a, b, what in RATIOS
        if a in taken and b in taken
    ]


def _asked(calls):
    return f"{calls['unet.forward']} UNet calls: " if calls["unet.forward"] else ""


def ratio(label: str, taken: dict[str, list[float]], a: str, b: str) -> dict:
    """The row of two contestants: seconds of each, and their ratio round by round."""
    ratios = [x / y for x, y in zip(taken[a], taken[b], strict=True)]
    return {
        "label": label,
        "A (s)": median(taken[a]),
        "B (s)": median(taken[b]),
        "A/B (ratio)": median(ratios),
        "range": [short(min(ratios)), short(max(ratios))],
        "pairs": len(ratios),
        "seconds": {"A": taken[a], "B": taken[b]},
    }


def median(values: list[float]) -> list[float]:
    """The median and its 95% interval by bootstrap; the interval of one value is that value."""
    from scipy.stats import bootstrap

    middle, how = statistics.median(values), {"n_resamples": 4000, "method": "percentile"}
    if min(values) == max(values):
        return [short(middle)] * 3
    drawn = bootstrap((values,), np.median, **how, vectorized=True, random_state=0)
    return [short(x) for x in (middle, *drawn.confidence_interval)]


def short(x: float) -> float:
    return float(f"{x:.5g}")


def measure(chosen: list[Contest], pairs: int, command: str, training=False, imports=False) -> dict:
    """Run the contests and return the table with all that was measured, and notes on what one must
    know.
    """
    start, table, notes = time.perf_counter(), [], []
    for contest in chosen:
        pipe = contest.load()
        for n in contest.counts:
            label = f"{contest.label}, n={n}"
            print(f"{label} ...", file=sys.stderr)
            runs = contest.contestants(pipe, n, contest.steps)
            calls = {  # and all of them are warm
                name: Counter(f"{part}.{method}" for part, method, *_ in network_calls(pipe, run))
                for name, run in runs.items()
            }
            table += rows(label, take_turns(runs, pairs), calls)
        if "preset" in runs and "diffusers" not in runs:
            notes.append(
                f"{contest.label}: diffusers has no StableDiffusionInpaintPipeline, so its "
                "row is left out."
            )
        if "random" in contest.label:
            notes.append(f"{contest.label}: good for seconds, not for pictures.")
    if imports:
        print("imports ...", file=sys.stderr)
        table += import_rows(pairs)
    if training:
        print("training steps ...", file=sys.stderr)
        table += training_rows(pairs)
    return {
        "what": "Edits of one picture, n at once. A / B run in turn; medians over the pairs.",
        "command": command,
        "seconds": round(time.perf_counter() - start, 1),
        "n": pairs,
        "device": machine(),
        "versions": results.machine()["versions"],
        "notes": notes,
        "rows": table,
    }


def machine() -> str:
    """The GPU's name, or the CPU's and how much of it is used."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    linux = Path("/proc/cpuinfo")
    named = re.search(r"model name\s*: (.+)", linux.read_text()) if linux.is_file() else None
    name = named[1] if named else platform.processor() or platform.machine()
    return f"{name}, threads: {torch.get_num_threads()} of {os.cpu_count()}"


# Showing, saving


def markdown(result: dict) -> str:
    """The table as Markdown, and the notes below it."""
    shown = [
        {key: row[key] for key in ("label", "A (s)", "B (s)", "A/B (ratio)")}
        for row in result["rows"]
    ]
    return "\n\n".join([repr(results.Table(result | {"rows": shown})), *result["notes"]])


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--pairs", type=int, help="runs of each contestant; 10, or 2 with --quick")
    parser.add_argument(
        "--large", action="store_true", help="Stable Diffusion 1.5's size also on a CPU, one step"
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="does it run? 2 pairs of 2 steps; the ratios say little",
    )
    parser.add_argument(
        "--training", action="store_true", help="also two training steps, now and at first"
    )
    parser.add_argument(
        "--out", type=Path, default=HERE / "results.json", help="where to save what was measured"
    )
    asked = parser.parse_args(argv)
    pairs = (2 if asked.quick else 10) if asked.pairs is None else asked.pairs
    if pairs < 1:
        parser.error(f"--pairs is {pairs}; take 1 or more")

    flags = [f"--{name}" for name in ("quick", "large", "training") if getattr(asked, name)]
    command = " ".join(["python bench/bench.py", f"--pairs {pairs}", *flags])
    chosen = contests(asked.quick, asked.large)
    result = measure(chosen, pairs, command, asked.training, imports=not asked.quick)
    results.save(result, asked.out)
    print(markdown(result))


if __name__ == "__main__":
    main()
