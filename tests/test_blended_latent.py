from dataclasses import fields, replace
from itertools import pairwise
from types import SimpleNamespace

import checkpoints
import pytest
import torch
from colour_clip import ColourClip, ColourModel
from diffusers import (
    AutoencoderTiny,
    DDIMScheduler,
    StableDiffusionInpaintPipeline,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

from blendlab import attention, cards, door, masks, prompts
from blendlab.guidance import from_pipe
from blendlab.latents import encode
from blendlab.noise import Noise
from blendlab.options import settle as choose
from blendlab.papers.blended_latent import (
    FALLBACK,
    PRESETS,
    Blending,
    _run,
    blended_latent,
    blended_steps,
)
from blendlab.rank import rank
from blendlab.sampler import Prediction
from blendlab.schedule import Schedule


def settle(pipe, preset, options):
    return choose(Blending, blended_latent, pipe, PRESETS, FALLBACK, preset, options)


def run(denoise, source, masks_small, schedule, timesteps, how, seed, rows):
    """The loop alone, without a picture."""
    one, shape = torch.ones(1, 1, 1, 1), tuple(source.shape[1:])
    request = door.Request(source, one, one, [""], len(rows), seed, shape, len(rows), source.device)
    initial = request.noise("initial", rows)()
    part = SimpleNamespace(source=source, masks_small=masks_small)
    return _run(request, rows, part, denoise, schedule, timesteps, how, initial)


@pytest.fixture(scope="module")
def pipe():
    """Stable Diffusion 1.x with random weights: good for arithmetic, not for pictures."""
    return checkpoints.sd1()


@pytest.fixture(scope="module")
def image():
    return torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.fixture(scope="module")
def mask():
    mask = torch.zeros(1, 1, 64, 64)
    mask[..., 16:48, 8:40] = 1
    return mask


QUICK = dict(steps=4, w=3.0)


class Counted:
    """Counts the calls of a network, and what it was given."""

    def __init__(self, monkeypatch, network):
        self.calls, self.dtypes = 0, set()
        forward = network.forward

        def counting(*args, **kwargs):
            self.calls += 1
            self.dtypes |= {args[0].dtype}
            return forward(*args, **kwargs)

        monkeypatch.setattr(network, "forward", counting)


# The algorithm


def test_equals_the_diffusers_inpaint_pipeline(pipe, image, mask, monkeypatch):
    scheduler = DDIMScheduler(
        **checkpoints.BETAS, clip_sample=False, set_alpha_to_one=True, steps_offset=1
    )
    parts = dict(pipe.components) | {"scheduler": scheduler}
    theirs = StableDiffusionInpaintPipeline(**parts, requires_safety_checker=False)
    theirs.set_progress_bar_config(disable=True)
    monkeypatch.setattr(
        DiagonalGaussianDistribution, "sample", lambda self, generator=None: self.mode()
    )

    noise = Noise(7, 2, "initial")((4, 8, 8))
    wanted = theirs(
        "a red mushroom",
        image / 2 + 0.5,
        mask,
        strength=1.0,
        num_inference_steps=10,
        guidance_scale=7.5,
        height=64,
        width=64,
        num_images_per_prompt=2,
        latents=noise,
        output_type="latent",
        masked_image_latents=torch.zeros(2, 4, 8, 8),
    ).images
    ours = blended_latent(
        theirs,
        image,
        mask,
        "a red mushroom",
        preset="diffusers",
        posterior="mode",
        steps=10,
        n=2,
        seed=7,
    )
    # float32: ten steps, a guidance of 7.5 and the division by a = 0.08 magnify the networks'
    # rounding.
    # Measured: 2.5e-5, on latents that reach 25, as the networks are random.
    torch.testing.assert_close(ours.latents, wanted, rtol=0, atol=1e-4)
    assert wanted.std() > 0.1


def test_the_final_latent_outside_the_mask_is_exactly_the_source(pipe, image, mask):
    edit = blended_latent(pipe, image, mask, "a red mushroom", n=2, **QUICK)
    source, inside = encode(pipe.vae, image), masks.to_latent(mask, (8, 8)).bool()
    outside = ~inside.expand(2, 4, 8, 8)
    assert torch.equal(edit.latents[outside], source.expand(2, -1, -1, -1)[outside])
    assert not torch.isclose(edit.latents[~outside], source.expand(2, -1, -1, -1)[~outside]).any()


@pytest.mark.parametrize("preset", ["comfyui", "invokeai", "a1111", "diffusers"])
def test_presets_that_end_clean_keep_the_source_too(pipe, image, mask, preset):
    edit = blended_latent(pipe, image, mask, "a dog", preset=preset, posterior="mode", **QUICK)
    outside = masks.to_latent(mask, (8, 8), "corner").expand(1, 4, 8, 8) == 0
    assert torch.equal(edit.latents[outside], encode(pipe.vae, image)[outside])


def test_the_last_step_of_the_published_scripts_leaves_noise_outside_the_mask(pipe, image, mask):
    edit = blended_latent(pipe, image, mask, "a dog", preset="official-sd2", steps=10, w=1.0, n=16)
    schedule = Schedule.from_scheduler(pipe.scheduler)
    a, s = schedule.levels(0)
    outside = masks.to_latent(mask, (8, 8)).expand(16, 4, 8, 8) == 0
    left = edit.latents - a * encode(pipe.vae, image)
    assert s == pytest.approx(
        0.029, abs=5e-4
    )  # sqrt(1 - abar_0), the level at which text_editing_SD2.py stops
    assert left[outside].std().item() == pytest.approx(
        s, rel=0.05
    )  # 3072 draws: one standard error is 1.3%


def test_the_sdxl_script_keeps_the_ratio_of_noise_to_picture_that_euler_noises_with():
    schedule, noise = Schedule.scaled_linear(), torch.randn(4, 4, 8, 8)
    source, none = torch.randn(1, 4, 8, 8), torch.zeros(1, 1, 8, 8)
    steps = blended_steps(
        lambda x, t: Prediction(0 * x), noise, source, [none] * 2, schedule, [980, 500, -1],
        PRESETS["official-sdxl"], lambda: noise,
    )  # fmt: skip
    for step in steps:  # EulerDiscreteScheduler.add_noise, then scale_model_input's 1/sqrt(1+s^2)
        (a, s), (a_next, _) = schedule.levels(step.t), schedule.levels(step.t_next)
        torch.testing.assert_close(step.x, a_next * (source + s / a * noise))


def test_the_level_t_is_one_move_too_noisy():
    # A denoiser that answers 0 and a source of 0: what is outside the mask is the background's
    # noise alone.
    schedule = Schedule.scaled_linear()
    source, mask_small, ts = torch.zeros(1, 4, 32, 32), torch.zeros(1, 1, 32, 32), [980, 500, 20]
    for level, t in [("t_next", 20), ("t", 500)]:
        how = Blending(level=level)
        z = run(
            lambda x, t: Prediction(0 * x), source, [mask_small] * 2, schedule, ts, how, 0, range(4)
        )
        assert z.std().item() == pytest.approx(schedule.levels(t)[1], rel=0.05)  # 16384 draws: 0.6%


def test_before_is_after_without_the_last_blend():
    # Blending before a move at its level is blending after the move before it, at the level it went
    # to.
    schedule, g = Schedule.scaled_linear(), torch.Generator().manual_seed(0)
    source = torch.randn(1, 4, 8, 8, generator=g)
    mask_small = (torch.rand(1, 1, 8, 8, generator=g) > 0.5).float()
    args = (
        lambda x, t: Prediction(torch.tanh(x)),
        source,
        [mask_small] * 3,
        schedule,
        [900, 600, 300, -1],
    )
    before = run(*args, Blending(when="before", noise="initial"), 0, range(2))
    after = run(*args, Blending(when="after", noise="initial"), 0, range(2))
    # the start is already the source noised by that noise, so the first blend changes nothing
    torch.testing.assert_close(before, after, rtol=0, atol=1e-6)
    left_to_the_network = run(
        *args, Blending(when="before", noise="initial", final="none"), 0, range(2)
    )
    outside = mask_small.expand_as(before) == 0
    assert torch.equal(before[~outside], left_to_the_network[~outside])
    assert not torch.isclose(before[outside], left_to_the_network[outside]).any()


def test_before_each_move_its_own_mask_is_used():
    schedule, ts, source = (
        Schedule.scaled_linear(),
        [900, 600, 300, -1],
        torch.full((1, 4, 8, 8), 5.0),
    )
    shrinking = [(torch.arange(8) < columns).float().expand(1, 1, 8, 8) for columns in (6, 4, 2)]
    noise, seen = Noise(0, 1, "initial")((4, 8, 8)), []

    def denoise(x, t):
        seen.append(x)
        return Prediction(0 * x)

    run(
        denoise,
        source,
        shrinking,
        schedule,
        ts,
        Blending(when="before", noise="initial"),
        0,
        range(1),
    )
    for i in (1, 2):  # at 0 everything is the noised source
        kept = (seen[i] == schedule.add_noise(source, ts[i], noise)).all(1, keepdim=True)
        assert torch.equal(kept, shrinking[i] == 0)


def test_a_clean_estimate_outside_carries_the_first_noise_along():
    # x0_hat = source and eta 0: the state outside stays the source plus the noise that it started
    # with.
    schedule, seen = Schedule.scaled_linear(), {}

    def denoise(x, t):
        seen[t] = x
        return Prediction(torch.tanh(x))

    source, mask_small = torch.rand(1, 4, 8, 8), torch.zeros(1, 1, 8, 8)
    run(
        denoise,
        source,
        [mask_small] * 3,
        schedule,
        [900, 600, 300, -1],
        Blending(when="x0"),
        5,
        range(1),
    )
    expected = schedule.add_noise(source, 300, Noise(5, 1, "initial")((4, 8, 8)))
    torch.testing.assert_close(seen[300], expected, rtol=0, atol=1e-5)


def test_fixed_noise_is_drawn_once_and_shared_noise_for_all():
    schedule, mask_small = Schedule.scaled_linear(), torch.zeros(1, 1, 8, 8)
    source, ts = torch.zeros(1, 4, 8, 8), [900, 600, 300]

    def backgrounds(**options):
        seen = []

        def denoise(x, t):
            seen.append(x / schedule.levels(t)[1])
            return Prediction(0 * x)

        seen.append(
            run(denoise, source, [mask_small] * 2, schedule, ts, Blending(**options), 0, range(2))
        )
        return seen[1], seen[2] / schedule.levels(300)[1]

    first, second = backgrounds(noise="fixed")
    torch.testing.assert_close(first, second)
    assert not torch.isclose(first[0], first[1]).all()
    first, second = backgrounds(batch_noise="shared")
    torch.testing.assert_close(first[0], first[1])
    assert not torch.isclose(first, second).all()
    first, second = backgrounds(noise="initial")
    torch.testing.assert_close(first, Noise(0, 2, "initial")((4, 8, 8)))


# The front door


@pytest.mark.parametrize("preset", [None, *PRESETS])
def test_each_preset_runs(pipe, image, mask, preset):
    edit = blended_latent(pipe, image, mask, "a dog", preset=preset, n=2, **QUICK)
    assert edit.tensor.shape == (2, 3, 64, 64) and edit.tensor.isfinite().all()
    assert edit.tensor.abs().max() <= 1 and edit.latents.shape == (2, 4, 8, 8)


@pytest.mark.parametrize("layout", [checkpoints.sd2, checkpoints.sdxl])
def test_other_layouts_run_and_keep_the_source(layout, image, mask):
    pipe = layout()
    edit = blended_latent(pipe, image, mask, "a dog", negative="blurry", **QUICK)
    outside = masks.to_latent(mask, (8, 8)).expand(1, 4, 8, 8) == 0
    assert torch.equal(edit.latents[outside], encode(pipe.vae, image)[outside])


def test_the_prediction_type_comes_from_the_scheduler(image, mask):
    by_v, by_eps = checkpoints.sd2(), checkpoints.sd2(prediction="epsilon")
    v, eps = (
        blended_latent(pipe, image, mask, "a dog", **QUICK).latents for pipe in (by_v, by_eps)
    )
    assert not torch.isclose(v, eps).all()


def test_sdxl_hears_the_size_and_both_prompts(image, mask, monkeypatch):
    pipe, heard = checkpoints.sdxl(), []
    forward = pipe.unet.forward
    monkeypatch.setattr(pipe.unet, "forward", lambda *a, **k: heard.append(k) or forward(*a, **k))
    blended_latent(pipe, image, mask, "a dog", n=2, **QUICK)
    assert heard[0]["added_cond_kwargs"]["time_ids"].tolist() == [[64, 64, 0, 0, 64, 64]] * 4
    assert heard[0]["encoder_hidden_states"].shape == (4, 77, 64)  # null twice, text twice
    assert (heard[0]["encoder_hidden_states"][:2] == 0).all()  # SDXL's null is zeros


def test_every_draw_is_the_same_exactly_for_any_n():
    schedule, source, ts = Schedule.scaled_linear(), torch.zeros(1, 4, 8, 8), [900, 600, 300, -1]

    def states(n):
        seen, half = [], torch.ones(1, 1, 8, 8).tril()

        def denoise(x, t):
            seen.append(x[0])
            return Prediction(0 * x)  # no network and no picture: what is left is the noise

        run(denoise, source, [half] * 3, schedule, ts, Blending(eta=1.0), 0, range(n))
        return torch.stack(seen)

    assert torch.equal(states(1), states(8))


def test_one_network_call_per_step(pipe, image, mask, monkeypatch):
    unet = Counted(monkeypatch, pipe.unet)
    blended_latent(pipe, image, mask, "a dog", n=2, steps=8, skip=0.25, w=3.0)
    assert unet.calls == 6


def test_half_precision_networks_keep_a_float32_state(image, mask, monkeypatch):
    pipe = checkpoints.sd1().to(torch.bfloat16)
    unet = Counted(monkeypatch, pipe.unet)
    edit = blended_latent(pipe, image, mask, "a dog", n=2, **QUICK)
    assert unet.dtypes == {torch.bfloat16}
    assert edit.latents.dtype == edit.tensor.dtype == torch.float32
    assert not torch.equal(
        edit.latents, edit.latents.bfloat16().float()
    )  # not a bfloat16 state in disguise


def test_paste_puts_back_the_source_bit_for_bit(pipe, image, mask):
    edit = blended_latent(pipe, image, mask, "a dog", paste=True, **QUICK)
    outside = mask.expand(1, 3, 64, 64) == 0
    assert torch.equal(edit.tensor[outside], image[outside])
    assert not torch.isclose(edit.tensor[~outside], image[~outside]).all()


def test_a_mask_of_ones_is_no_blending(pipe, image):
    everything = torch.ones(1, 1, 64, 64)
    fresh = blended_latent(pipe, image, everything, "a dog", noise="fresh", **QUICK)
    fixed = blended_latent(pipe, image, everything, "a dog", noise="fixed", **QUICK)
    assert torch.equal(fresh.latents, fixed.latents)


def test_shrinking_starts_wider_and_ends_with_the_mask_itself(pipe, image):
    thin = torch.zeros(1, 1, 64, 64)
    thin[..., 28:36] = 1
    plain = blended_latent(pipe, image, thin, "a dog", skip=0.0, **QUICK)
    shrunk = blended_latent(pipe, image, thin, "a dog", skip=0.0, shrink=3, **QUICK)
    inside = masks.to_latent(thin, (8, 8)).expand(1, 4, 8, 8) == 1
    assert torch.equal(plain.latents[~inside], shrunk.latents[~inside])
    assert not torch.isclose(plain.latents[inside], shrunk.latents[inside]).any()


def test_several_pictures_masks_and_prompts_go_in_one_batch(pipe, image, mask):
    pictures, several = torch.cat([image, image.flip(-1)]), torch.cat([mask, mask.flip(-1)])
    both = blended_latent(pipe, pictures, several, ["a dog", "a cat"], n=2, **QUICK)
    first = blended_latent(pipe, pictures[:1], several[:1], "a dog", **QUICK)
    torch.testing.assert_close(both.latents[:1], first.latents, rtol=0, atol=1e-4)


def test_numbers_come_from_the_caller_then_the_preset_then_the_model_then_BLD(pipe, monkeypatch):
    def used(preset=None, **options):
        how = settle(pipe, preset, options)
        return how.w, how.steps, how.skip

    assert used() == (7.5, 50, 0.25)
    monkeypatch.setattr(cards, "settings", lambda pipe, method: {"w": 4.0, "steps": 2})
    assert used() == (4.0, 2, 0.25)
    assert used("official-ldm") == (5.0, 50, 0.0)
    assert used(Blending(w=2.0)) == (2.0, 2, 0.25)
    assert used(Blending(w=2.0), w=1.5, skip=0.0, steps=None) == (1.5, 2, 0.0)
    assert settle(pipe, "diffusers", {"noise": "fixed"}) == replace(
        PRESETS["diffusers"], noise="fixed"
    )


def test_the_edit_tells_all_that_was_used(pipe, image, mask):
    edit = blended_latent(pipe, image, mask, "a dog", n=2, seed=5, **QUICK)
    assert {f.name for f in fields(Blending)} <= edit.settings.keys()
    assert (
        edit.settings["seed"] == 5 and edit.settings["prompt"] == ["a dog"] and edit.scores is None
    )
    assert [picture.size for picture in edit.images] == [(64, 64)] * 2


def test_ranking_puts_the_best_first(pipe, image, mask, monkeypatch):
    ranked_so = lambda tensor, *rest: ([2, 0, 1], [0.1, 0.2, 0.3])  # noqa: E731
    monkeypatch.setattr(door, "rank", ranked_so)
    clip = ColourClip(ColourModel())
    plain = blended_latent(pipe, image, mask, "red", n=3, **QUICK)
    ranked = blended_latent(pipe, image, mask, "red", n=3, clip=clip, **QUICK)
    assert torch.equal(ranked.latents, plain.latents[[2, 0, 1]])
    assert torch.equal(ranked.tensor, plain.tensor[[2, 0, 1]])
    assert ranked.scores == [0.1, 0.2, 0.3] and ranked.settings["order"] == [2, 0, 1]
    one = blended_latent(pipe, image, mask, "red", clip=clip, **QUICK)
    assert one.scores is None  # nothing to order: CLIP is not asked, as in the other methods


def test_an_overflowing_autoencoder_is_put_back_in_half_precision():
    vae = checkpoints.autoencoder(0.13025, force_upcast=True).half()
    z = encode(vae, torch.zeros(1, 3, 64, 64))
    assert z.dtype == torch.float32 and vae.dtype == torch.float16
    vae.quant_conv = torch.nn.Conv2d(1, 1, 1).half()  # which fits nothing
    with pytest.raises(RuntimeError):
        encode(vae, torch.zeros(1, 3, 64, 64))
    assert vae.dtype == torch.float16


# Bad input: a sentence that names the fix, before any network runs

THIN = torch.zeros(1, 1, 64, 64)
THIN[..., 1] = 1
# The levels that each script's own scheduler visits: ldm/models/diffusion/ddim.py and
# util.py:make_ddim_timesteps, text_editing_SD2.py:58-64, SDXL's scheduler_config.json, labml's
# sampler/ddim.py.
SPACED = {"official-ldm": (981, 1), "official-sd2": (740, 0), "official-sdxl": (741, 1)}
SPACED |= {"labml": (741, 1)}


@pytest.mark.parametrize("spacing", ["leading", "trailing"])
@pytest.mark.parametrize("preset", SPACED)
def test_presets_visit_the_levels_of_their_script(pipe, image, mask, preset, spacing, monkeypatch):
    pipe.scheduler = type(pipe.scheduler).from_config(
        pipe.scheduler.config, timestep_spacing=spacing, set_alpha_to_one=False
    )
    levels, forward = [], pipe.unet.forward

    def seen(x, t, *args, **kwargs):
        levels.append(int(t[0]))
        return forward(x, t, *args, **kwargs)

    monkeypatch.setattr(pipe.unet, "forward", seen)
    numbers = dict(w=1.0, steps=50) | ({"skip": 0.25} if preset != "official-ldm" else {})
    edit = blended_latent(pipe, image, mask, "a dog", preset=preset, **numbers)
    assert (levels[0], levels[-1]) == SPACED[preset]
    assert {a - b for a, b in pairwise(levels)} == {20}
    assert edit.settings["spacing"] == "leading"


BAD = [
    (dict(image=torch.zeros(1, 3, 60, 60)), "multiples of 8"),
    (dict(image=torch.zeros(1, 3, 64, 64) + 200), "not in"),
    (dict(mask=torch.ones(1, 1, 32, 32)), "fit_mask"),
    (dict(mask=torch.zeros(1, 1, 64, 64)), "black everywhere"),
    (dict(mask=THIN), "'any'"),
    (dict(mask=THIN, mask_rule="corner"), "'any'"),
    (dict(prompt="a dog " * 50), "room for 75"),
    (dict(negative="a dog " * 50), "room for 75"),
    (dict(prompt=["a dog", "a cat"]), "prompt holds 2 for n=1"),
    (dict(image=torch.zeros(3, 3, 64, 64), n=2), "image holds 3 for n=2"),
    (dict(prompt=["a dog", "a cat"], n=2, clip=ColourClip(ColourModel())), "pass one prompt"),
    (dict(prompt="a dog", n=2, clip=ColourClip(ColourModel())), "this CLIP does not know 'a'"),
    (dict(prompt="", noises=2), "a prompt is empty"),
    (dict(mask=torch.eye(64)[None, None] * 0.2, soft=True, steps=4), "4 moves edit nothing below"),
    (dict(offset=-1), "offset is -1"),
    (dict(offset=250, steps=4, spacing="leading"), "249 or less"),
    (dict(offset=1, spacing="trailing"), "or spacing='leading'"),
    (dict(noise="initial", batch_noise="shared"), "each sample's own"),
    (dict(preset="oficial"), "official-sd2"),
    (dict(level="t_prev"), "'t_next' or 't'"),
    (dict(steps=0), "1 to 1000"),
    (dict(skip=1), "0.25 leaves out a quarter"),
    (dict(skip=25), "0.25 leaves out a quarter"),
    (dict(n=0), "1 or more"),
    (dict(steps=4, shrink=5), "at least 6 steps"),
]


@pytest.mark.parametrize("given, sentence", BAD, ids=[sentence for _, sentence in BAD])
def test_bad_input_is_refused_before_any_network_runs(
    pipe, image, mask, monkeypatch, given, sentence
):
    networks = [
        Counted(monkeypatch, part) for part in (pipe.unet, pipe.vae.encoder, pipe.text_encoder)
    ]
    given = dict(image=image, mask=mask, prompt="a dog", skip=0.0) | given
    with pytest.raises(ValueError, match=sentence):
        blended_latent(pipe, **given)
    assert [network.calls for network in networks] == [0, 0, 0]


def test_too_long_a_prompt_names_the_words_that_would_be_dropped(pipe, image, mask):
    long = "dog " * 74 + "under a yellow umbrella"
    with pytest.raises(ValueError, match="would drop 'a yellow umbrella'"):
        blended_latent(pipe, image, mask, long)


def test_an_inpainting_unet_is_refused(image, mask):
    pipe = checkpoints.sd1()
    pipe.unet = checkpoints.unet(attention_head_dim=8, in_channels=9)
    with pytest.raises(ValueError, match="9 channels.*text-to-image"):
        blended_latent(pipe, image, mask, "a dog")


def test_out_of_memory_says_which_option_halves_it(pipe, image, mask, monkeypatch):
    def full(*args, **kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(pipe.unet, "forward", full)
    with pytest.raises(MemoryError, match="batch=4 halves it"):
        blended_latent(pipe, image, mask, "a dog", n=8, **QUICK)
    with pytest.raises(MemoryError, match="float16"):
        blended_latent(pipe, image, mask, "a dog", n=8, batch=1, **QUICK)


# Passes, greys and a closer look


def test_one_pass_is_the_plain_method_and_more_keep_the_source(pipe, image, mask, monkeypatch):
    plain = blended_latent(pipe, image, mask, "a dog", **QUICK)
    one = blended_latent(pipe, image, mask, "a dog", resamplings=1, resample_above=5, **QUICK)
    assert torch.equal(plain.latents, one.latents)
    unet = Counted(monkeypatch, pipe.unet)
    three = blended_latent(pipe, image, mask, "a dog", resamplings=3, skip=0.0, **QUICK)
    assert unet.calls == 3 * 3 + 1  # the last move is made once
    outside = masks.to_latent(mask, (8, 8)).expand(1, 4, 8, 8) == 0
    assert torch.equal(three.latents[outside], encode(pipe.vae, image)[outside])
    assert not torch.isclose(three.latents[~outside], plain.latents[~outside]).all()


def test_passes_are_repeated_above_a_level_only(pipe, image, mask, monkeypatch):
    unet = Counted(monkeypatch, pipe.unet)
    options = dict(resamplings=3, skip=0.0, resample_above=500)
    blended_latent(pipe, image, mask, "a dog", **options, **QUICK)  # levels 751, 501, 251, 1
    assert unet.calls == 3 + 3 + 1 + 1


def test_black_and_white_is_the_same_with_soft(pipe, image, mask):
    hard, soft = (
        blended_latent(pipe, image, mask, "a dog", soft=soft, **QUICK) for soft in (False, True)
    )
    assert torch.equal(hard.latents, soft.latents) and torch.equal(hard.tensor, soft.tensor)


def test_greys_need_soft_and_darker_ones_change_less(pipe, image):
    grey = torch.linspace(0, 1, 64).expand(1, 1, 64, 64).clone()
    grey[..., :16] = 0
    with pytest.raises(ValueError, match="grey|0 or 1") as refused:
        blended_latent(pipe, image, grey, "a dog", **QUICK)
    assert "pass soft=True" in str(refused.value)
    edit = blended_latent(pipe, image, grey, "a dog", soft=True, paste=True, **QUICK)
    source = encode(pipe.vae, image)
    assert torch.equal(edit.latents[..., :2], source[..., :2])
    assert torch.equal(edit.tensor[..., :16], image[..., :16])
    assert not torch.isclose(edit.latents[..., 6:], source[..., 6:]).any()
    with pytest.raises(ValueError, match="choose one"):
        blended_latent(pipe, image, grey, "a dog", soft=True, shrink=1, **QUICK)


@pytest.mark.parametrize("how", [dict(paste=True), dict(around=1.5)])
def test_a_grey_that_no_move_may_change_is_the_source(pipe, image, how):
    grey = torch.zeros(1, 1, 64, 64)
    grey[..., 8:56, 8:56], grey[..., 24:40, 24:40] = 0.01, 1.0
    edit = blended_latent(pipe, image, grey, "a dog", soft=True, **how, **QUICK)
    dark = (grey < 1).expand_as(image)
    assert torch.equal(edit.tensor[dark], image[dark])


def test_with_around_the_pictures_that_come_back_are_ranked(pipe, image, mask):
    clip = ColourClip(ColourModel())
    how = dict(n=3, around=1.5, clip=clip, ranking="both")
    edit = blended_latent(pipe, image, mask, "red", **how, **QUICK)
    order, scores = rank(edit, "red", clip, mask, "both")
    assert order == [0, 1, 2] and scores == pytest.approx(edit.scores, abs=1e-5)


def test_an_autoencoder_without_a_posterior_is_named(pipe, image, mask):
    tiny = AutoencoderTiny(encoder_block_out_channels=(8,) * 4, decoder_block_out_channels=(8,) * 4)
    parts = dict(pipe.components) | {"vae": tiny}
    other = StableDiffusionPipeline(**parts, requires_safety_checker=False)
    with pytest.raises(ValueError, match="AutoencoderTiny gives no posterior"):
        blended_latent(other, image, mask, "a dog", **QUICK)


def test_a_latent_consistency_model_is_refused(pipe, image, mask):
    config = {k: v for k, v in pipe.unet.config.items() if not k.startswith("_")}
    told = UNet2DConditionModel(**config | {"time_cond_proj_dim": 16})
    parts = dict(pipe.components) | {"unet": told}
    lcm = StableDiffusionPipeline(**parts, requires_safety_checker=False)
    with pytest.raises(ValueError, match="load the model that it was distilled from"):
        blended_latent(lcm, image, mask, "a dog", **QUICK)


def test_a_closer_look_leaves_all_outside_the_mask_bit_for_bit(pipe, monkeypatch):
    g = torch.Generator().manual_seed(3)
    picture = torch.rand(1, 3, 90, 130, generator=g) * 2 - 1  # no multiple of anything
    mask = torch.zeros(1, 1, 90, 130)
    mask[..., 60:80, 100:125] = 1
    edit = blended_latent(pipe, picture, mask, "a dog", n=2, around=1.5, **QUICK)
    outside = mask.expand(2, 3, -1, -1) == 0
    assert edit.tensor.shape == (2, 3, 90, 130)
    assert torch.equal(edit.tensor[outside], picture.expand(2, -1, -1, -1)[outside])
    assert not torch.isclose(edit.tensor[~outside], picture.expand(2, -1, -1, -1)[~outside]).all()
    assert edit.settings["around"] == 1.5 and edit.settings["square"] == [(92, 51, 130, 89)]


def test_a_closer_look_keeps_thin_lines_of_the_mask(pipe):
    picture, mask = torch.zeros(1, 3, 400, 400), torch.zeros(1, 1, 400, 400)
    mask[..., 100:160, 100:160] = 1
    mask[..., 301, 100:300] = 1  # a crop of 302 pixels, which is shown at 64
    shown = door.closer(pipe, picture, mask, 1.5, False).crop_strength
    assert shown.shape[-2:] == (64, 64) and shown[..., 50:, :].sum() >= 200 * 64 / 302


def test_a_closer_look_does_not_warn_of_its_own_bright_crop(pipe, recwarn):
    picture, mask = torch.full((1, 3, 200, 200), -1.0), torch.zeros(1, 1, 200, 200)
    picture[..., 100:, 100:] = torch.linspace(0.05, 0.95, 100)[:, None]
    mask[..., 120:180, 120:180] = 1
    blended_latent(pipe, picture, mask, "a dog", around=1.1, **QUICK)
    assert not [w for w in recwarn if "black is -1" in str(w.message)]


@pytest.mark.parametrize("how", [{}, {"preset": "official-ldm"}, {"posterior": "sample"}])
def test_a_picture_has_its_edit_whatever_other_pictures_are_edited_with_it(pipe, mask, how):
    pictures = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(7)) * 2 - 1
    together = blended_latent(pipe, pictures, mask, "a dog", n=3, **(QUICK | how))
    alone = blended_latent(pipe, pictures[2:], mask, "a dog", first=2, **(QUICK | how))
    torch.testing.assert_close(alone.latents, together.latents[2:], rtol=0, atol=1e-4)


def test_a_noise_is_chosen_also_where_blocks_do_not_tile_the_latents(pipe):
    picture, mask = torch.zeros(1, 3, 72, 72), torch.zeros(1, 1, 72, 72)
    mask[..., 16:48, 8:40] = 1
    edit = blended_latent(pipe, picture, mask, "a dog", noises=2, **QUICK)
    assert edit.tensor.shape == (1, 3, 72, 72)


# Editing in a window


@pytest.fixture(scope="module")
def wide():
    """Four pictures of 96x128, and masks of which the last needs the whole of its picture."""
    pictures = torch.rand(4, 3, 96, 128, generator=torch.Generator().manual_seed(5)) * 2 - 1
    masks_ = torch.zeros(4, 1, 96, 128)
    masks_[0, :, 8:24, 96:128] = 1
    masks_[1, :, 72:96, 0:16] = 1
    masks_[2, :, 30:50, 40:60] = 1
    masks_[3, :, 8:90, 8:120] = 1
    return pictures, masks_


@pytest.mark.parametrize("window", [96, 1000])
def test_a_window_as_large_as_the_picture_is_the_whole_picture(pipe, image, mask, window):
    whole, edit = (
        blended_latent(pipe, image, mask, "a dog", n=2, window=w, **QUICK) for w in (0, window)
    )
    assert torch.equal(edit.latents, whole.latents) and torch.equal(edit.tensor, whole.tensor)


def test_in_a_window_the_latent_outside_the_mask_is_exactly_the_source(pipe, wide):
    pictures, masks_ = wide
    how = dict(window=32, shrink=1, paste=True, mask_rule="any")
    edit = blended_latent(pipe, pictures, masks_, "a dog", n=4, **how, **QUICK)
    source = encode(pipe.vae, pictures)
    outside = masks.to_latent(masks_, source.shape[-2:], "any").expand_as(source) == 0
    assert torch.equal(edit.latents[outside], source[outside])
    assert not torch.isclose(edit.latents[~outside], source[~outside]).any()
    kept = masks_.expand_as(pictures) == 0
    assert torch.equal(edit.tensor[kept], pictures[kept])


@pytest.mark.parametrize("more", [{}, {"noises": 2}, {"resamplings": 2, "noise": "fixed"}])
def test_a_sample_is_the_same_beside_a_mask_that_needs_the_whole_picture(pipe, wide, more):
    pictures, masks_ = wide
    how = dict(window=32, seed=4) | more | QUICK
    together = blended_latent(pipe, pictures, masks_, "a dog", n=4, **how)
    for i in range(4):
        alone = blended_latent(pipe, pictures[[i]], masks_[[i]], "a dog", n=1, first=i, **how)
        torch.testing.assert_close(together.latents[[i]], alone.latents, atol=1e-5, rtol=1e-4)
    whole = blended_latent(
        pipe, pictures[[3]], masks_[[3]], "a dog", first=3, **how | {"window": 0}
    )
    assert torch.equal(alone.latents, whole.latents)


def test_the_network_sees_the_square_alone_and_the_edit_says_which(pipe, wide, monkeypatch):
    pictures, masks_ = wide
    sizes = []
    forward = pipe.unet.forward
    monkeypatch.setattr(
        pipe.unet, "forward", lambda x, *a, **k: sizes.append(tuple(x.shape)) or forward(x, *a, **k)
    )
    edit = blended_latent(pipe, pictures[:1], masks_[:1], "a dog", n=2, window=32, **QUICK)
    (x0, y0, x1, y1), *more = edit.settings["square"]
    assert edit.settings["window"] == 32 and not more
    assert y1 - y0 == x1 - x0 == 48  # a third more than the 32 of the mask, in steps of 16
    assert (y0, x1) == (0, 128) and set(sizes) == {(4, 4, 6, 6)}


def test_presets_edit_the_whole_picture_whatever_the_model_recommends(
    pipe, image, mask, monkeypatch
):
    recommended = {"w": 2.0, "steps": 4, "skip": 0.0, "eta": 0.0, "window": 32}
    monkeypatch.setattr(cards, "settings", lambda *_: recommended)
    assert blended_latent(pipe, image, mask, "a dog").settings["window"] == 32
    for how in ({"preset": "paper"}, {"window": 0}, {"around": 1.5}):
        assert blended_latent(pipe, image, mask, "a dog", **how).settings["window"] == 0


def test_a_crop_and_a_window_are_not_taken_together(pipe, image, mask):
    with pytest.raises(ValueError, match="around= and window=.*choose one"):
        blended_latent(pipe, image, mask, "a dog", around=1.5, window=32, **QUICK)


@pytest.mark.parametrize("start", ["noised source", "noise"])
def test_of_several_noises_that_one_is_taken_under_which_the_words_look_inside(
    pipe, image, mask, start
):
    chosen = blended_latent(pipe, image, mask, "a dog", noises=5, start=start, seed=2, **QUICK)
    schedule, timesteps, net = from_pipe(pipe, QUICK["steps"], chosen.settings["skip"])
    draw = Noise(2, 1, "initial", shape=(4, 8, 8))
    draws = torch.cat([draw() for _ in range(5)])
    t, source = timesteps[0], encode(pipe.vae, image)
    x = draws if start == "noise" else schedule.add_noise(source, t, draws)
    text, _ = prompts.encode(pipe, ["a dog"])
    with attention.capture(pipe.unet, "down_blocks", branch="both") as maps:
        net(x, t, text)
    heat = maps[-1].weights.mean(1)[..., 1:3].mean(-1)  # (5,h,w), of "a" and of "dog"
    heat = heat / heat.mean((1, 2), keepdim=True)
    where = torch.nn.functional.adaptive_avg_pool2d(mask, heat.shape[1:])[0, 0]
    best = ((heat / heat.mean(0)) * where).sum((1, 2)).argmax().item()
    assert best != 0  # else the test would not see a method that takes the first
    given = {"initial": draws[best : best + 1]}
    alone = edit_from(pipe, image, mask, given, start=start, seed=2)
    assert torch.equal(chosen.latents, alone.latents)

    # A soft mask without white changes nothing in its first move; its greys count all the same.
    grey = blended_latent(
        pipe, image, mask * 0.6, "a dog", noises=5, start=start, seed=2, soft=True, **QUICK
    )
    alone = edit_from(pipe, image, mask * 0.6, given, start=start, seed=2, soft=True)
    assert torch.equal(grey.latents, alone.latents)


def edit_from(pipe, image, mask, given, **options):
    """An edit with the initial noise given."""
    real = door.Request.noise
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            door.Request,
            "noise",
            lambda self, purpose, *args, **how: (
                (lambda: given[purpose]) if purpose in given else real(self, purpose, *args, **how)
            ),
        )
        return blended_latent(pipe, image, mask, "a dog", **options, **QUICK)


def test_choosing_a_noise_costs_a_row_of_the_network_for_each(pipe, image, mask, monkeypatch):
    unet = Counted(monkeypatch, pipe.unet)
    blended_latent(pipe, image, mask, "a dog", noises=5, skip=0.0, **QUICK)
    assert unet.calls == 1 + 4


def test_negative_words_that_are_not_honoured_are_said(pipe, image, mask):
    with pytest.warns(UserWarning, match="negative= is not honoured at w=1"):
        blended_latent(pipe, image, mask, "a dog", negative="a cat", w=1.0, steps=2)


def test_a_result_that_is_not_finite_names_the_likely_option(pipe, image, mask, monkeypatch):
    forward = pipe.unet.forward
    monkeypatch.setattr(
        pipe.unet, "forward", lambda *a, **k: type("", (), {"sample": forward(*a, **k)[0] * 1e38})
    )
    with pytest.raises(ValueError, match="NaN or infinite values: take a smaller w=3"):
        blended_latent(pipe, image, mask, "a dog", **QUICK)
