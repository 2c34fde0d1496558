"""Every scheduler that Stable Diffusion ships and that users swap in: outside the mask the source's
latent survives, and what is not honoured is said.
"""

import warnings
from dataclasses import replace
from functools import cache

import checkpoints
import colour_clip
import diffusers
import pytest
import torch
from test_exemplar import build

import blendlab as bl
from blendlab import masks, schedule
from blendlab.latents import encode
from blendlab.noise import Noise
from blendlab.papers.blended_latent import PRESETS
from blendlab.schedule import Schedule
from blendlab.walk import Drawing, Walk

# What the published files say beside their betas.
SD1 = dict(set_alpha_to_one=False, steps_offset=1)
SDXL = dict(timestep_spacing="leading", steps_offset=1)
ZERO = dict(rescale_betas_zero_snr=True, timestep_spacing="trailing")
CLEAR = ZERO | dict(clip_sample=False)  # of what has such an option
SCHEDULERS = {
    "SD 1.x, PNDM": ("PNDMScheduler", SD1 | dict(skip_prk_steps=True)),
    "SD 2.x, DDIM": ("DDIMScheduler", SD1 | dict(clip_sample=False)),
    "SDXL, Euler": ("EulerDiscreteScheduler", SDXL),
    "DDIM": ("DDIMScheduler", dict(clip_sample=False)),
    "DDPM": ("DDPMScheduler", dict(clip_sample=False)),
    "Euler, linspace": ("EulerDiscreteScheduler", {}),
    "Euler, sigma_min": ("EulerDiscreteScheduler", dict(final_sigmas_type="sigma_min")),
    "Euler ancestral": ("EulerAncestralDiscreteScheduler", {}),
    "DPM++ Karras": ("DPMSolverMultistepScheduler", dict(use_karras_sigmas=True)),
    "Euler Karras": ("EulerDiscreteScheduler", dict(use_karras_sigmas=True)),
    "LCM": ("LCMScheduler", {}),
    "LCM, from SD 1.x": ("LCMScheduler", SD1),
    "UniPC": ("UniPCMultistepScheduler", {}),
    "zero SNR, DDIM": ("DDIMScheduler", CLEAR | dict(prediction_type="v_prediction")),
    "zero SNR, DDIM, x0": ("DDIMScheduler", CLEAR | dict(prediction_type="sample")),
    "zero SNR, Euler": ("EulerDiscreteScheduler", ZERO | dict(prediction_type="v_prediction")),
}
HONOURED = ["SD 2.x, DDIM", "SDXL, Euler", "DDIM", "DDPM", "Euler, linspace", "Euler, sigma_min"]
HONOURED += [name for name in SCHEDULERS if "zero SNR" in name]
END_CLEAN = [None, *(name for name, how in PRESETS.items() if how.final == "clean")]

every = pytest.mark.parametrize("name", SCHEDULERS)


def scheduler(name):
    kind, config = SCHEDULERS[name]
    return getattr(diffusers, kind)(**checkpoints.BETAS, **config)


@cache
def pipeline():
    return checkpoints.sd1()


@pytest.fixture(scope="module")
def exemplar_pipe():
    return build()


@pytest.fixture
def pipe():
    """Stable Diffusion 1.x with random weights, to swap schedulers in."""
    return diffusers.StableDiffusionPipeline(
        **dict(pipeline().components), requires_safety_checker=False
    )


@pytest.fixture(scope="module")
def mask():
    mask = torch.zeros(1, 1, 64, 64)
    mask[..., 16:48, 8:40] = 1
    return mask


def kept(pipe, latents, image, mask, rule="centre"):
    """Whether latents are the source's outside the mask, bit for bit."""
    outside = masks.to_latent(mask, (8, 8), rule).expand(len(latents), 4, 8, 8) == 0
    source = encode(pipe.vae, image).expand(len(latents), -1, -1, -1)
    return torch.equal(latents[outside], source[outside])


# Outside the mask


@every
def test_level_minus_one_is_the_clean_picture(name, image):
    levels = Schedule.from_scheduler(scheduler(name))
    assert levels.levels(-1) == (1.0, 0.0)
    assert torch.equal(levels.add_noise(image, -1, torch.randn(image.shape)), image)


@every
def test_the_loop_of_the_readme_keeps_the_source(name, pipe, image, mask):
    pipe.scheduler = scheduler(name)
    levels = Schedule.from_scheduler(pipe.scheduler)
    net = bl.denoiser(pipe.unet, levels, pipe.scheduler.config.prediction_type)
    text = torch.zeros(1, 77, 32)
    source, small = encode(pipe.vae, image), masks.to_latent(mask, (8, 8))
    noise, timesteps = Noise(0, 1, "background"), levels.timesteps(3)
    for step in bl.sample(lambda x, t: net(x, t, text), noise((4, 8, 8)), levels, timesteps):
        keep = levels.add_noise(source, step.t_next, noise((4, 8, 8)))
        step.x = bl.blend(small, edit=step.x, keep=keep)
    assert step.x.isfinite().all()
    assert kept(pipe, step.x, image, mask)


@every
@pytest.mark.parametrize("how", END_CLEAN)
def test_blended_latent_keeps_the_source(name, how, pipe, image, mask):
    pipe.scheduler = scheduler(name)
    chosen = dict(preset=how, posterior="mode", steps=2, w=2.0)
    edit = bl.blended_latent(pipe, image, mask, "a dog", **chosen)
    assert edit.latents.isfinite().all()
    assert kept(pipe, edit.latents, image, mask, edit.settings["mask_rule"])


@pytest.mark.parametrize("name", [name for name in SCHEDULERS if "zero SNR" in name])
@pytest.mark.parametrize("how", PRESETS)
def test_every_preset_is_finite_at_zero_snr(name, how, pipe, image, mask):
    pipe.scheduler = scheduler(name)
    edit = bl.blended_latent(pipe, image, mask, "a dog", preset=how, steps=2, w=2.0, skip=0.0)
    assert edit.latents.isfinite().all()


@every
def test_exemplar_keeps_the_source_where_it_pastes_latents(name, exemplar_pipe, image, mask):
    pipe = replace(exemplar_pipe, scheduler=scheduler(name))
    chosen = dict(blend=True, steps=3, w=2.0)
    edit = bl.exemplar(pipe, image, mask, image, **chosen)
    assert edit.latents.isfinite().all()
    assert kept(pipe, edit.latents, image, mask, "any")


# The edited half


def test_only_the_edited_half_ends_at_the_first_level():
    seen, x = [], torch.ones(1, 1, 2, 2)
    for name in ("SD 1.x, PNDM", "SD 2.x, DDIM", "LCM, from SD 1.x", "Euler, sigma_min"):
        levels = Schedule.from_scheduler(scheduler(name))
        for step in bl.sample(lambda x, t: bl.Prediction(0 * x), x, levels, [500, -1]):
            seen.append(step.x.mean().item())
        assert seen[-1] == pytest.approx(levels.levels(0)[1] / levels.levels(500)[1])
    assert len(seen) == 4


def test_euler_ends_clean_whatever_the_file_of_sdxl_carries_along():
    carried = diffusers.EulerDiscreteScheduler.from_config(
        dict(scheduler("SD 1.x, PNDM").config) | {"_class_name": "EulerDiscreteScheduler"}
    )
    assert carried.config["set_alpha_to_one"] is False  # as SDXL's published file
    assert Schedule.from_scheduler(carried).final == "clean"


def test_euler_without_fresh_noise_is_DDIM():
    theirs = scheduler("SDXL, Euler")
    levels = Schedule.from_scheduler(theirs)
    theirs.set_timesteps(10)
    timesteps = levels.timesteps(10)
    assert timesteps[:-1] == theirs.timesteps.int().tolist()
    (a, s), eps = levels.levels(timesteps[0]), torch.tanh
    z = Noise(0, 1, "initial")((4, 8, 8))
    x = s / a * z  # Euler's units: x0 + s/a * noise
    for t in theirs.timesteps:
        x = theirs.step(eps(theirs.scale_model_input(x, t)), t, x).prev_sample
    ours = bl.last(bl.sample(bl.denoiser(lambda x, t: eps(x), levels), s * z, levels, timesteps))
    # float32 sigmas up to 14, ten moves
    torch.testing.assert_close(ours, x, rtol=0, atol=1e-3)


@pytest.mark.parametrize("name", ["SD 1.x, PNDM", "DDIM"])
def test_an_inversion_goes_back_the_way_that_sampling_comes(name):
    levels, how = Schedule.from_scheduler(scheduler(name)), Drawing(1.0, 10, 0.0, refine=100)
    half = lambda x, t, _: bl.Prediction(x / 2)  # noqa: E731
    walk = Walk(None, half, None, None, levels, levels.timesteps(10), how)
    z = torch.randn(1, 4, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(walk.down(walk.up(z)), z, rtol=0, atol=1e-9)


# Zero terminal SNR


@pytest.mark.parametrize("kind", ["DDIMScheduler", "EulerDiscreteScheduler"])
def test_noise_cannot_be_predicted_where_all_is_noise(kind, pipe, image, mask):
    pipe.scheduler = getattr(diffusers, kind)(**checkpoints.BETAS, **ZERO)  # predicts epsilon
    with pytest.raises(ValueError, match="all noise.*skip=1/steps leaves that level out"):
        bl.blended_latent(pipe, image, mask, "a dog", steps=4, skip=0.0, w=2.0)
    edit = bl.blended_latent(pipe, image, mask, "a dog", steps=4, skip=1 / 4, w=2.0)
    assert edit.latents.isfinite().all()


@pytest.mark.parametrize("prediction", ["v_prediction", "sample"])
@pytest.mark.parametrize("kind", ["DDIMScheduler", "EulerDiscreteScheduler"])
def test_the_first_level_of_zero_snr_holds_nothing_of_the_picture(kind, prediction):
    config = dict(**checkpoints.BETAS, **ZERO, prediction_type=prediction)
    levels = Schedule.from_scheduler(getattr(diffusers, kind)(**config))
    assert levels.levels(999) == (0.0, 1.0)


def test_a_noise_held_constant_needs_some_of_the_picture():
    from blendlab.clip_guidance import Guiding, guided_steps

    levels = Schedule.from_scheduler(scheduler("zero SNR, DDIM"))
    how = Guiding(through_network=False, shift="mean", eta=1.0)
    steps = guided_steps(None, None, torch.zeros(1, 3, 4, 4), levels, [999, -1], how)
    with pytest.raises(ValueError, match="skip=1/steps"):
        next(steps)


# What is not honoured


@pytest.fixture
def anew():
    schedule._say_once.cache_clear()


@every
def test_a_solver_or_levels_of_its_own_are_said_once_to_be_left_out(name, anew):
    theirs = scheduler(name)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for _ in range(3):
            Schedule.from_scheduler(theirs)
    assert len(said) == (name not in HONOURED)
    for warning in said:
        assert SCHEDULERS[name][0] in str(warning.message) and "DDIM" in str(warning.message)


def test_each_cause_is_named(anew):
    with pytest.warns(UserWarning, match="solver of its own and has use_karras_sigmas=True"):
        Schedule.from_scheduler(scheduler("DPM\N{PLUS SIGN}+ Karras"))


def test_an_estimate_that_is_not_clipped_is_said(anew):
    with pytest.warns(
        UserWarning, match="has clip_sample=True and has variance_type='fixed_large'"
    ):
        Schedule.from_scheduler(diffusers.DDPMScheduler(variance_type="fixed_large"))


QUICK = dict(steps=2, eta=0.0)
METHODS = {
    "blended_latent": lambda pipe, place: bl.blended_latent(pipe, *place, "a dog", w=1.0, **QUICK),
    "layout": lambda pipe, place: bl.layout(pipe, "a dog", [("dog", (0, 0, 1, 1))], **QUICK),
    "repaint": lambda pipe, place: bl.repaint(pipe, "a dog", place[1], **QUICK),
    "reword": lambda pipe, place: bl.reword(pipe, "a dog", "a cat", **QUICK),
    "blended": lambda pipe, place: guided(bl.blended, pipe, place),
    "clip_guided": lambda pipe, place: guided(bl.clip_guided, pipe, place, background=0.0),
    "exemplar": lambda pipe, place: bl.exemplar(
        replace(build(), scheduler=pipe.scheduler), *place, place[0], w=1.0, **QUICK
    ),
}


def guided(method, pipe, place, **how):
    """An edit in pixels with the pipeline's scheduler."""
    model = diffusers.DDPMPipeline(checkpoints.pixel().unet, pipe.scheduler)
    clip = colour_clip.ColourClip(colour_clip.ColourModel())
    how |= dict(augmentations=1, scale=1.0, skip=0.0, steps=2, eta=1.0)
    return method(model, clip, *place, "red", **how)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["SDXL, Euler", "DPM++ Karras", "zero SNR, DDIM"])
def test_the_settings_record_the_scheduler_and_its_spacing(name, method, pipe, image, mask):
    pipe.scheduler = scheduler(name)
    edit = METHODS[method](pipe, (image, mask))
    assert edit.settings["scheduler"] == SCHEDULERS[name][0]
    assert edit.settings["spacing"] == pipe.scheduler.config.get("timestep_spacing", "leading")
    assert edit.tensor.isfinite().all()


@every
def test_every_scheduler_is_recorded(name, pipe, image, mask):
    pipe.scheduler = scheduler(name)
    settings = bl.blended_latent(pipe, image, mask, "a dog", steps=2, w=1.0, eta=0.0).settings
    assert settings["scheduler"] == SCHEDULERS[name][0]
    assert settings["spacing"] == pipe.scheduler.config.get("timestep_spacing", "leading")
    assert settings["eta"] == 0.0


@every
def test_blended_keeps_the_source(name, pipe, image, mask):
    pipe.scheduler = scheduler(name)
    edit = guided(bl.blended, pipe, (image, mask), paste=False)
    outside = mask.expand_as(image) == 0
    assert torch.equal(edit.tensor[outside], image[outside])


@every
@pytest.mark.parametrize("steps", [4, 7, 50])
def test_the_spacing_is_the_schedulers(name, steps):
    theirs = scheduler(name)
    spacing = theirs.config.get("timestep_spacing", "leading")
    offset = theirs.config.get("steps_offset", 0)
    like = diffusers.DDIMScheduler(timestep_spacing=spacing, steps_offset=offset)
    like.set_timesteps(steps)
    assert Schedule.from_scheduler(theirs).timesteps(steps) == [*like.timesteps.tolist(), -1]


@pytest.mark.parametrize(
    "build",
    [
        lambda: diffusers.FlowMatchEulerDiscreteScheduler(),
        lambda: diffusers.EDMEulerScheduler(),
        lambda: diffusers.DPMSolverMultistepScheduler(
            use_flow_sigmas=True, prediction_type="flow_prediction"
        ),
    ],
)
def test_schedulers_without_betas_are_refused(build):
    with pytest.raises(ValueError, match="has no betas"):
        Schedule.from_scheduler(build())
