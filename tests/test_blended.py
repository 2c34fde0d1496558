"""Blended Diffusion in pixels: what algorithm 2 promises, on a small network and a CLIP whose
answers are known.
"""

from dataclasses import replace

import checkpoints
import pytest
import torch
from colour_clip import COLOURS, ColourClip, ColourModel

import blendlab as bl
from blendlab import cards, clip_guidance
from blendlab.clip_guidance import PRESETS, Guiding, clip_distance, clip_loss, guided_steps
from blendlab.guidance import from_pipe
from blendlab.papers.blended import blended_steps
from blendlab.sampler import last
from blendlab.warps import warp, warped_twice, warps


@pytest.fixture
def clip():
    return ColourClip(ColourModel())


@pytest.fixture(scope="module")
def model():
    return checkpoints.pixel()


@pytest.fixture
def image():
    return torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.fixture
def mask():
    mask = torch.zeros(1, 1, 16, 16)
    mask[..., 4:12, 4:12] = 1
    return mask


QUICK = dict(scale=5.0, augmentations=2, steps=6, skip=0.25)


# What is promised


def test_outside_the_mask_is_the_source_bit_for_bit_and_inside_follows_the_words(
    model, clip, image, mask
):
    inside = []
    for colour in COLOURS:
        edit = bl.blended(model, clip, image, mask, colour, **(QUICK | dict(scale=100.0)), seed=3)
        outside = mask.expand_as(image) == 0
        assert torch.equal(edit.tensor[outside], image[outside]) and edit.latents is None
        # this network's states leave [-1,1] by far, pictures never do
        assert edit.tensor.abs().max() == 1
        inside.append((edit.tensor * mask).sum((0, 2, 3)) / mask.sum())
    assert torch.stack(inside).argmax(0).tolist() == [
        0,
        1,
        2,
    ]  # most of each colour where it was asked for


def test_without_guidance_it_is_plain_blending(clip, image, mask):
    model = checkpoints.gaussian()  # its pictures stay mostly within [-1,1]
    ours = bl.blended(model, clip, image, mask, "red", **(QUICK | dict(scale=0.0)), seed=3)
    other = bl.blended(model, clip, image, mask, "blue", **(QUICK | dict(scale=0.0)), seed=3)
    assert torch.equal(ours.tensor, other.tensor) and not clip.model.calls
    # By hand: the loop with nothing but its blending.
    schedule, ts, denoise = from_pipe(model, 6, 0.25)
    draw = {name: bl.Noise(3, 1, name) for name in ("initial", "step", "background")}
    shape = image.shape[1:]
    x = schedule.add_noise(image, ts[0], draw["initial"](shape))
    for step in bl.sample(denoise, x, schedule, ts, 1.0, lambda: draw["step"](shape)):
        keep = schedule.add_noise(image, step.t_next, draw["background"](shape))
        step.x = bl.blend(mask, edit=step.x, keep=keep)
    assert (step.x.abs() < 1).float().mean() > 0.8
    torch.testing.assert_close(ours.tensor, step.x.clamp(-1, 1), atol=1e-6, rtol=0)


def test_with_a_mask_of_ones_it_is_plain_guided_sampling(clip, image):
    model = checkpoints.gaussian()
    ones = torch.ones(1, 1, 16, 16)
    ours = bl.blended(model, clip, image, ones, "red", **QUICK, seed=3)
    schedule, ts, denoise = from_pipe(model, 6, 0.25)
    how = Guiding(scale=5.0, augmentations=2, shift="mean", eta=1.0)
    draw = {name: bl.Noise(3, 1, name) for name in ("initial", "step", "augment")}
    loss = clip_loss(torch.tensor([COLOURS["red"]]), ones, clip, how, schedule, draw["augment"])
    x = schedule.add_noise(image, ts[0], draw["initial"](image.shape[1:]))
    fresh = lambda: draw["step"](image.shape[1:])  # noqa: E731
    by_hand = last(guided_steps(denoise, loss, x, schedule, ts, how, fresh))
    assert (by_hand.abs() < 1).float().mean() > 0.8
    torch.testing.assert_close(ours.tensor, by_hand.clamp(-1, 1), atol=1e-5, rtol=0)


def test_results_come_ranked_by_the_clip_that_guided(model, clip, image, mask):
    edit = bl.blended(model, clip, image, mask, "red", **QUICK, n=3, seed=5)
    plain = bl.blended(model, clip, image, mask, "red", **QUICK, n=3, seed=5, ranking=None)
    assert edit.scores == sorted(edit.scores) and sorted(edit.settings["order"]) == [0, 1, 2]
    torch.testing.assert_close(edit.tensor, plain.tensor[edit.settings["order"]])


def test_every_guided_step_runs_the_network_once(clip, image, mask):
    model = checkpoints.pixel()
    calls = []
    model.unet.register_forward_pre_hook(lambda *_: calls.append(1))
    bl.blended(model, clip, image, mask, "red", **QUICK)
    assert len(calls) == 5  # six steps, int(6 * 0.25) = 1 of them skipped
    assert clip.model.calls == 5


def test_a_little_fresh_noise_leaves_the_guidance_as_strong(model, clip, image, mask):
    moved = {}
    for eta in (0.0, 0.05):
        how = dict(steps=10, skip=0.25, augmentations=1, eta=eta, seed=2)
        with_, without = (
            bl.blended(model, clip, image, mask, "red", scale=scale, **how).tensor
            for scale in (20.0, 0.0)
        )
        moved[eta] = (with_ - without).square().mean().sqrt().item()
    assert moved[0.05] == pytest.approx(moved[0.0], rel=0.2) and moved[0.0] > 0


@pytest.mark.parametrize("through", [True, False])
@pytest.mark.parametrize("shift", ["mean", "epsilon"])
def test_each_way_to_guide_comes_closer_to_the_words(model, clip, image, mask, shift, through):
    how = dict(
        steps=10, skip=0.25, augmentations=2, shift=shift, through_network=through, eta=1.0, seed=2
    )
    inside = {}
    for scale in (0.0, 100.0):
        edit = bl.blended(model, clip, image, mask, "green", scale=scale, **how)
        text = torch.tensor([COLOURS["green"]])
        inside[scale] = clip_distance(edit.tensor.clamp(-1, 1), text, mask, clip, Guiding()).item()
    assert inside[100.0] < inside[0.0] - 0.02, inside


def test_the_gradient_is_that_of_finite_differences(clip, image, mask):
    model = checkpoints.pixel()
    model.unet.double()
    schedule, ts, denoise = from_pipe(model, 6, 0.25)
    how = Guiding(scale=2.0, augmentations=2, shift="mean", eta=1.0)
    u = torch.randn(1, 2, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    text, x = torch.tensor([COLOURS["red"]], dtype=torch.float64), image.double()
    loss = clip_loss(text, mask.double(), clip, how, schedule, lambda shape: u)
    step = next(guided_steps(denoise, loss, x, schedule, ts, how, lambda: torch.zeros_like(x)))
    value = lambda x: loss(denoise(x, ts[0]).x0_hat, x, ts[0]).item()  # noqa: E731
    for place in [(0, 0, 5, 5), (0, 1, 10, 7), (0, 2, 0, 0)]:
        nudge = torch.zeros_like(x)
        nudge[place] = 1e-5
        slope = (value(x + nudge) - value(x - nudge)) / 2e-5
        assert slope == pytest.approx(step.grad[place].item(), rel=1e-4, abs=1e-9)


def test_a_learned_variance_is_used(clip, image, mask):
    model = checkpoints.pixel(learned_variance=True)
    edit = bl.blended(model, clip, image, mask, "red", **QUICK)
    assert edit.tensor.shape == (1, 3, 16, 16) and edit.tensor.isfinite().all()


def test_the_presets_run_and_differ(model, clip, image, mask):
    results = [
        bl.blended(
            model, clip, image, mask, "red", preset=name, scale=5.0, steps=6, n=2, ranking=None
        ).tensor
        for name in PRESETS
    ]
    assert (results[0] - results[1]).abs().max() > 0.01
    assert PRESETS["official"].augmentations == 8 and PRESETS["official"].scale == 1000


def test_every_number_that_the_model_recommends_is_used(model, clip, image, mask, monkeypatch):
    used = lambda: bl.blended(model, clip, image, mask, "red", scale=0.0, steps=2).settings  # noqa: E731
    assert used()["augmentations"] == PRESETS["paper"].augmentations == 16
    monkeypatch.setattr(cards, "settings", lambda *_: {"augmentations": 3, "skip": 0.5, "eta": 0.0})
    assert [used()[name] for name in ("augmentations", "skip", "eta")] == [3, 0.5, 0.0]


# Distances and augmentations


def test_the_spherical_distance_is_half_the_angle_squared(clip):
    picture = torch.zeros(1, 3, 16, 16)
    picture[:, 0] = 0.5
    text = torch.nn.functional.normalize(torch.tensor([[0.2, 0.9, 0.1]]), dim=-1)
    ones = torch.ones(1, 1, 16, 16)
    cosine = clip_distance(picture, text, ones, clip, Guiding())
    spherical = clip_distance(picture, text, ones, clip, Guiding(distance="spherical"))
    assert spherical.item() == pytest.approx((1 - cosine).acos().item() ** 2 / 2, rel=1e-4)


def test_clip_sees_grey_outside_the_mask(clip, image, mask):
    clip_distance(image, torch.tensor([COLOURS["red"]]), mask, clip, Guiding())
    assert torch.equal(clip.model.shown[:, :, 0, 0], torch.full((1, 3), 0.5))
    torch.testing.assert_close(clip.model.shown[..., 4:12, 4:12], (image[..., 4:12, 4:12] + 1) / 2)


def test_warps_leave_the_first_copies_alone_and_follow_their_numbers():
    u = torch.rand(2, 3, 12, generator=torch.Generator().manual_seed(0))
    maps = warps(u, unwarped=1)
    assert maps.shape == (6, 3, 3)
    for row in (0, 3):
        torch.testing.assert_close(maps[row], torch.eye(3), atol=1e-6, rtol=0)
    assert (
        (maps[[1, 2, 4, 5]] - torch.eye(3)).abs().amax((1, 2)) > 1e-3
    ).sum() >= 3  # nine in ten are warped
    picture = torch.rand(6, 3, 16, 16)
    torch.testing.assert_close(warp(picture, maps)[[0, 3]], picture[[0, 3]], atol=1e-5, rtol=0)


def test_a_warp_puts_the_corners_where_it_was_told():
    u = torch.zeros(1, 1, 12)
    u[..., 0] = 0.9  # not turned
    u[..., 4:] = 1.0  # every corner pulled in by 0.7 of half the side
    (place,) = warps(u) @ torch.tensor([0.3, 0.3, 1.0])  # where the pulled-in corner comes from
    torch.testing.assert_close(place[:2] / place[2], torch.tensor([1.0, 1.0]), atol=1e-5, rtol=0)
    shrunk = warp(torch.ones(1, 3, 20, 20), warps(u))
    assert shrunk[0, 0, 10, 10] == 1 and shrunk[0, 0, 2, 2] == 0  # grey comes in around it


def test_augmentations_change_no_other_noise(model, clip, image, mask):
    how = dict(steps=6, skip=0.25, scale=0.0, seed=4)
    a = bl.blended(model, clip, image, mask, "red", augmentations=1, unwarped=1, **how)
    b = bl.blended(model, clip, image, mask, "red", augmentations=8, **how)
    assert torch.equal(a.tensor, b.tensor)


# Bad input


@pytest.mark.parametrize(
    ("bad", "sentence"),
    [
        ({"prompt": "a dragon"}, "does not know 'a', 'dragon'; it knows blue, green, red"),
        ({"n": 0}, "n is 0"),
        ({"prompt": ["red", "blue"]}, "prompt holds 2 for n=1"),
        ({"preset": "best"}, "no preset 'best'; choose paper, official"),
        ({"distance": "taxi"}, "distance is 'taxi'; choose 'cosine' or 'spherical'"),
        ({"shift": "sideways"}, "shift is 'sideways'; choose 'mean' or 'epsilon'"),
        ({"augmentations": 0}, "augmentations is 0; take 1 with unwarped=1 for none"),
        (
            {"eta": 0.0, "shift": "mean"},
            "shift='mean' moves by the variance, which is 0 with eta=0",
        ),
        ({"image": torch.zeros(1, 3, 17, 16)}, "multiple"),
        ({"skip": 1.0}, "skip is 1.0"),
        ({"steps": 1001}, "1 to 1000"),
        ({"mask": torch.eye(16)[None, None] * 0.1, "soft": True}, "moves edit nothing below"),
    ],
)
def test_bad_input_gets_a_sentence_before_any_network_runs(
    clip, image, mask, bad, sentence, monkeypatch
):
    model = checkpoints.pixel()
    model.unet.register_forward_pre_hook(lambda *_: pytest.fail("a network ran"))
    monkeypatch.setattr(clip.model, "encode_text", lambda *_: pytest.fail("CLIP read"))
    good = dict(image=image, mask=mask, prompt="red") | QUICK
    with pytest.raises(ValueError, match=sentence):
        bl.blended(model, clip, **(good | bad))


def test_a_latent_model_is_refused(clip, image, mask):
    with pytest.raises(ValueError, match="pass a model of pixels.*blended_latent is for latents"):
        bl.blended(checkpoints.sd1(), clip, image, mask, "red", **QUICK)


def test_the_algorithm_is_a_generator_that_can_be_steered(model, clip, image, mask):
    schedule, ts, denoise = from_pipe(model, 4)
    how = Guiding(scale=0.0, augmentations=1, unwarped=1, shift="mean", eta=1.0)
    loss = clip_loss(torch.tensor([COLOURS["red"]]), mask, clip, how, schedule)
    noise = lambda: torch.zeros_like(image)  # noqa: E731
    guided = guided_steps(denoise, loss, torch.randn_like(image), schedule, ts, how, noise)
    given = [mask] * 4, schedule, replace(how, level="t"), noise
    for step in blended_steps(guided, image, *given):
        keep = schedule.add_noise(image, step.t, noise())
        assert torch.equal(
            step.x[..., 0, 0], keep[..., 0, 0]
        )  # what the published code does: one level too noisy


def test_ddim_from_pure_noise_is_refused_where_its_shift_would_explode(clip, image, mask):
    from diffusers import DDIMScheduler

    model = checkpoints.pixel()
    model.scheduler = DDIMScheduler(
        beta_schedule="squaredcos_cap_v2", timestep_spacing="trailing"
    )  # first a = 5e-5
    with pytest.raises(ValueError, match="holds 5e-05 of a picture.*take skip=0.1, or eta=1"):
        bl.blended(model, clip, image, mask, "red", scale=1.0, steps=4, skip=0.0, eta=0.0)


def test_the_official_copies_never_move_in_x_and_repeat_the_border(clip):
    u = torch.full((1, 1, 13), 0.5)
    u[..., :2] = torch.tensor([0.0, 0.9])  # affine, without perspective
    u[..., 3:5] = torch.tensor([1.0, 1.0])  # the largest move in x and in y
    columns = torch.linspace(-1, 1, 32).expand(1, 3, 32, 32)
    torch.testing.assert_close(warped_twice(columns, u), columns)
    rows = columns.mT.contiguous()
    moved = warped_twice(rows, u)
    torch.testing.assert_close(moved[..., -3:, :], rows[..., -1:, :].expand(1, 3, 3, 32))
    assert (moved[..., 4:20, :] > rows[..., 4:20, :] + 0.1).all()


def test_the_official_copies_have_a_number_for_each_draw():
    u = torch.full((1, 1, 13), 0.5)
    one = warped_twice(torch.randn(1, 3, 16, 16), u)
    assert one.shape == (1, 3, 16, 16)
    base = torch.eye(13)[None] * 0.3 + 0.2  # one copy for each number, 0.3 larger in that one
    turns = warps(base).reshape(13, 9)
    assert len({tuple(row.tolist()) for row in turns[2:]}) == 11
    assert torch.equal(warps(torch.full((1, 1, 13), 0.0)), warps(torch.full((1, 1, 12), 0.0)))


def test_the_official_copies_are_pooled_to_the_size_of_clip(clip, image, mask, monkeypatch):
    how, shown = PRESETS["official"], []
    monkeypatch.setattr(clip, "size", 8)
    monkeypatch.setattr(
        clip_guidance, "look", lambda clip, x: shown.append(x) or torch.ones(len(x), 3)
    )
    clip_distance(image, torch.ones(1, 3), mask, clip, how)
    pooled = torch.nn.functional.adaptive_avg_pool2d(image * mask, 8)
    assert torch.equal(shown[0], (pooled + 1) / 2)


# Passes and greys


def test_more_passes_keep_the_source_and_one_is_the_plain_method(model, clip, image, mask):
    plain, one, three = (
        bl.blended(model, clip, image, mask, "red", resamplings=passes, **QUICK)
        for passes in (1, 1, 3)
    )
    assert torch.equal(plain.tensor, one.tensor)
    assert clip.model.calls == 5 + 5 + 3 * 4 + 1  # the last move is made once
    outside = mask.expand_as(image) == 0
    assert torch.equal(three.tensor[outside], image[outside])
    assert not torch.equal(three.tensor, plain.tensor)


def test_a_model_may_recommend_passes_and_presets_make_one(model, clip, image, mask, monkeypatch):
    monkeypatch.setattr(cards, "settings", lambda model, method: dict(scale=9.0, resamplings=2))

    def passes(**how):
        edit = bl.blended(model, clip, image, mask, "red", **(QUICK | {"scale": None} | how))
        return edit.settings["resamplings"]

    assert (passes(), passes(resamplings=3)) == (2, 3)
    assert (passes(preset="paper"), passes(preset="official", paste=False)) == (1, 1)


@pytest.mark.parametrize(
    "method, option, usual",
    [
        (bl.blended, {"background_loss": "official"}, {"background_loss": "paper"}),
        (bl.clip_guided, {"level": "t"}, {"level": "t_next"}),
        (bl.clip_guided, {"batch_noise": "shared"}, {"batch_noise": "independent"}),
        (bl.clip_guided, {"preset": Guiding(soft=True)}, {"preset": "official"}),
    ],
)
def test_an_option_of_the_other_method_is_refused_where_it_would_be_ignored(
    model, clip, image, mask, method, option, usual
):
    same = dict(background=1.0, perceptual=lambda a, b: (a - b).square().mean((1, 2, 3)))
    how = QUICK | (same if method is bl.clip_guided else {})
    with pytest.raises(ValueError, match="is not for .*; leave it out"):
        method(model, clip, image, mask, "red", **how | option)
    assert method(model, clip, image, mask, "red", **how | usual).tensor.isfinite().all()


def test_greys_need_soft_and_black_and_white_is_the_same_with_it(model, clip, image, mask):
    hard, soft = (
        bl.blended(model, clip, image, mask, "red", soft=soft, **QUICK) for soft in (False, True)
    )
    assert torch.equal(hard.tensor, soft.tensor)
    with pytest.raises(ValueError, match="or pass soft=True"):
        bl.blended(model, clip, image, mask / 2, "red", **QUICK)
    with pytest.raises(ValueError, match="soft=True is not for clip_guided: .* which blended puts"):
        bl.clip_guided(model, clip, image, mask / 2, "red", soft=True, **QUICK)
    grey = bl.blended(model, clip, image, mask / 2, "red", soft=True, **QUICK)
    outside = mask.expand_as(image) == 0
    assert torch.equal(grey.tensor[outside], image[outside])


@pytest.mark.parametrize("how", [{}, {"result": "x0_hat"}, {"level": "t"}])
def test_a_grey_that_no_move_may_change_is_the_source(model, clip, image, mask, how):
    grey = mask.clone()
    grey[..., :2, :] = 0.05  # of less than 1 / moves
    edit = bl.blended(model, clip, image, grey, "red", soft=True, **QUICK | how)
    assert torch.equal(edit.tensor[..., :2, :], image[..., :2, :])
