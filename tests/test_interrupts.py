"""Interrupts: one at every line of the code that hooks, tunes or casts (of the front doors at each
fourth), and a second one while the first is on its way out.

A tracer raises KeyboardInterrupt before a line runs. After each, the networks are what they were,
bit for bit and object for object, and a later edit gives what it always gave.
"""

import contextlib
import gc
import random
import sys

import checkpoints
import colour_clip
import pytest
import test_exemplar
import torch

import blendlab as bl
from blendlab import attention, latents
from blendlab.papers.layout import attend
from blendlab.papers.reword import same_attention

CONTEXTS = {
    sys.modules[name].__file__
    for name in (
        "blendlab.attention",
        "blendlab.twins",
        "blendlab.latents",
        "blendlab.papers.decoder",
        "blendlab.papers.layout",
        "blendlab.papers.reword",
    )
}
STEPS = dict(steps=1, w=3.0, seed=3)
IMAGE = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
MASK = torch.zeros(1, 1, 16, 16)
MASK[..., 4:12, 2:10] = 1


@pytest.fixture(scope="module")
def pipe():
    """SDXL's autoencoder in float16, Stable Diffusion 1's UNet, both smaller still."""
    pipe = checkpoints.sd1()
    pipe.vae = checkpoints.autoencoder(0.13025, force_upcast=True).half().eval()
    pipe.vae.requires_grad_(False)
    pipe.vae.decoder.conv_out.requires_grad_(True)  # an odd flag, that has to stay
    pipe.encode_prompt = cached(pipe.encode_prompt)
    gc.collect()
    gc.freeze()  # so that collecting what an interrupt left behind takes no time
    yield pipe
    gc.unfreeze()


def cached(encode):
    """The same prompts come again and again, and what encodes them is not what is tested."""
    known = {}

    def look_up(prompts, **how):
        key = (*prompts, str(how))
        if key not in known:
            known[key] = encode(prompts, **how)
        return known[key]

    return look_up


def networks(pipe):
    return {part: getattr(pipe, part) for part in ("unet", "vae") if hasattr(pipe, part)}


def state(pipe):
    """All that code could leave in the networks, as objects and as values."""
    seen = {}
    for part, net in networks(pipe).items():
        for name, module in net.named_modules():
            hooks = [dict(held) for key, held in vars(module).items() if "_hooks" in key and held]
            own = [key for key in vars(module) if key in ("forward", "processor")]
            processor = getattr(module, "processor", None)
            seen[part, name] = id(module), module.training, hooks, own, id(processor)
        for name, x in [*net.named_parameters(), *net.named_buffers()]:
            seen[part, name, "tensor"] = id(x), x.dtype, x.requires_grad, x.grad, x.data_ptr()
    return seen


def values(pipe):
    return [
        x.detach().clone() for net in networks(pipe).values() for x in net.state_dict().values()
    ]


def later(pipe):
    """What other code gets from the two networks."""
    generator = torch.Generator().manual_seed(7)
    x = torch.randn(2, 4, 4, 4, generator=generator)
    text = torch.randn(2, 77, 32, generator=generator)
    with torch.no_grad():
        return pipe.unet(x, 500, text).sample, latents.decode(pipe.vae, x[:1, :, :2, :2])


# What is interrupted


def capturing(pipe):
    with torch.no_grad(), attention.capture(pipe.unet) as maps:
        pipe.unet(torch.zeros(1, 4, 4, 4), 10, torch.zeros(1, 77, 32))
    return maps


def two_hooks(pipe):
    """Both contexts that change what a network gives, on the network itself."""
    shapes = torch.ones(1, 4, 4)
    with torch.no_grad(), same_attention(pipe.unet, 1), attend(pipe.unet, 1, [[1]], shapes, 0.5):
        pipe.unet(torch.zeros(2, 4, 4, 4), 10, torch.zeros(2, 77, 32))


def rewording(pipe):
    noise = bl.Noise(0, 1, "initial")((4, 2, 2))
    return bl.reword(pipe, "a red car", "a red bus", noise=noise, **STEPS)


def laying_out(pipe):
    noise = bl.Noise(0, 1, "initial")((4, 2, 2))
    boxes = [("car", (0.0, 0.0, 0.5, 1.0))]
    return bl.layout(pipe, "a red car", boxes, guide="mask", noise=noise, **STEPS)


def tuning(method):
    def tune(pipe):
        z = torch.ones(1, 4, 2, 2)
        return bl.reconstruct(pipe, z, IMAGE, MASK, method=method, steps=2, lr=1e-3)

    return tune


def casting(pipe):
    return latents.decode(pipe.vae, latents.encode(pipe.vae, IMAGE))


TASKS = {
    "capture": capturing,
    "two hooks": two_hooks,
    "reword": rewording,
    "layout": laying_out,
    "weights": tuning("weights"),
    "latents": tuning("latents"),
    "float16": casting,
}


def editing(method, *what, model=None, **how):
    """An edit of the picture by a front door, or what makes pictures from noise or up to it.

    model: what builds it; None: the pipe of this module.
    """
    asked = {name: value for name, value in (STEPS | how).items() if value is not None}
    return lambda pipe: method(pipe, *what, **asked), model


def clip():
    return colour_clip.ColourClip(colour_clip.ColourModel())


PLACE = IMAGE, MASK
GUIDED = dict(scale=1.0, augmentations=1, skip=0.0, eta=1.0, model=checkpoints.pixel, w=None)
OTHERS = {
    "blended_latent": editing(bl.blended_latent, *PLACE, "a red car", noises=2, skip=0.0),
    "repaint": editing(bl.repaint, "a red car", (0.0, 0.0, 0.5, 1.0)),
    "invert": editing(bl.invert, IMAGE, "a red car", seed=None),
    "paint_by_word": editing(bl.paint_by_word, clip(), *PLACE, "red", w=None),
    "exemplar": editing(bl.exemplar, *PLACE, IMAGE, model=test_exemplar.build, skip=0.0),
    "blended": editing(bl.blended, clip(), *PLACE, "red", **GUIDED),
    "clip_guided": editing(bl.clip_guided, clip(), *PLACE, "red", background=0.0, **GUIDED),
}
FRONT_DOORS = [TASKS[name] for name in ("reword", "layout", "weights", "latents")]


# How


class Tracer:
    """Counts the lines of the contexts from when it is armed, or interrupts at one of them."""

    def __init__(self, files, at=None, armed=True):
        self.files, self.at, self.armed, self.lines = files, at, armed, []

    def __call__(self, frame, event, _):
        if frame.f_code.co_filename not in self.files:
            return None
        if event == "line" and self.armed:
            self.lines.append((frame.f_code.co_qualname, frame.f_lineno))
            if len(self.lines) - 1 == self.at:
                raise KeyboardInterrupt
        return self

    def run(self, task, pipe):
        """Whether the task was interrupted."""
        before = sys.gettrace()
        sys.settrace(self)
        try:
            task(pipe)
        except KeyboardInterrupt:
            return True
        finally:
            sys.settrace(before)
        return False


def first_runs(lines):
    """The number of each line's first run."""
    return sorted({line: i for i, line in reversed(list(enumerate(lines)))}.values())


@contextlib.contextmanager
def interrupted_inside(pipe, tracer):
    """The networks themselves raise the first interrupt, and then the tracer is armed."""

    def stop(*_):
        if not tracer.armed:
            tracer.armed = True
            raise KeyboardInterrupt

    handles = [
        pipe.unet.mid_block.register_forward_pre_hook(stop),
        pipe.vae.decoder.mid_block.register_forward_pre_hook(stop),
        pipe.vae.encoder.mid_block.register_forward_pre_hook(stop),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def unchanged(pipe, before, weights):
    gc.collect()
    if state(pipe) != before:
        return False
    return all(torch.equal(x, y) for x, y in zip(weights, values(pipe), strict=True))


def failures(pipe, task, inside, every=1):
    """The lines at which an interrupt leaves something, and how many were tried.

    every: of a front door's lines, which are many, one in so many.
    """
    before, weights, reference = state(pipe), values(pipe), later(pipe)
    files = CONTEXTS | ({contextlib.__file__} if task in (capturing, two_hooks) else set())

    def tried(at):
        tracer = Tracer(files, at, armed=not inside)
        if not inside:
            return tracer, tracer.run(task, pipe)
        with interrupted_inside(pipe, tracer):
            return tracer, tracer.run(task, pipe)

    tracer, _ = tried(None)
    left, numbers = [], first_runs(tracer.lines)
    if task in FRONT_DOORS and not inside:  # they work on twins and install nothing themselves
        numbers = numbers[::every]
    for at in numbers:
        tracer, stopped = tried(at)
        assert stopped, tracer.lines[at]
        if not unchanged(pipe, before, weights):
            left.append(tracer.lines[at])
        elif at in numbers[::20] and not all(map(torch.equal, reference, later(pipe))):
            left.append(tracer.lines[at])
    assert left or all(map(torch.equal, reference, later(pipe)))
    return left, len(numbers)


@pytest.mark.parametrize("inside", [False, True], ids=["once", "twice"])
@pytest.mark.parametrize("name", TASKS)
def test_an_interrupt_at_any_line_leaves_nothing(pipe, name, inside):
    left, tried = failures(pipe, TASKS[name], inside, every=4)
    assert (tried or inside) and not left, f"{len(left)} of {tried} leave something: {left}"


@pytest.mark.slow
@pytest.mark.parametrize("task", FRONT_DOORS)
def test_an_interrupt_at_every_line_of_a_front_door_leaves_nothing(pipe, task, record_property):
    left, tried = failures(pipe, task, inside=False)
    record_property("lines", tried)
    print(f"{tried} lines")
    assert tried > 50 and not left, f"{len(left)} of {tried} leave something: {left}"


@pytest.mark.slow
def test_a_thousand_interrupts_anywhere_leave_nothing(pipe):
    """In any line of blendlab, of any function that runs a network."""
    files = {vars(m).get("__file__") for n, m in sys.modules.items() if n.startswith("blendlab.")}
    cases, draw, left = [], random.Random(0), []
    for name, (task, build) in ({n: (task, None) for n, task in TASKS.items()} | OTHERS).items():
        model, tracer = build() if build else pipe, Tracer(files)
        tracer.run(task, model)
        cases.append((name, task, model, len(tracer.lines), state(model), values(model)))
    for _ in range(1000):
        name, task, model, lines, before, weights = draw.choice(cases)
        tracer = Tracer(files, at=draw.randrange(lines))
        assert tracer.run(task, model), name
        if not unchanged(model, before, weights):
            left.append((name, tracer.lines[-1]))
    assert not left, f"{len(left)} of 1000 leave something: {left}"
