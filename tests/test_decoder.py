"""Background reconstruction, on small random autoencoders, and gradient-domain blending, by its
equation.
"""

from dataclasses import replace
from types import SimpleNamespace

import checkpoints
import pytest
import torch

from blendlab import cards, masks, world
from blendlab.edit import Edit
from blendlab.joins import poisson
from blendlab.latents import decode, encode, tuned
from blendlab.measuring import metrics
from blendlab.networks.exemplar import ExemplarPipeline
from blendlab.papers import decoder
from blendlab.papers.decoder import METHODS, reconstruct, tune_weights

TUNED = ("latents", "weights", "weights and paste")
QUICK = dict(steps=4, lr=1e-3)


@pytest.fixture(scope="module")
def pipe():
    """What `reconstruct` needs of a pipeline: an autoencoder, with random weights."""
    torch.manual_seed(0)
    return pipeline(checkpoints.autoencoder(0.18215))


def pipeline(vae):
    vae.eval().requires_grad_(False)
    return SimpleNamespace(vae=vae, vae_scale_factor=8, _execution_device=torch.device("cpu"))


@pytest.fixture(scope="module")
def image():
    """A smooth picture, as a decoder with random weights can learn it."""
    x, y = torch.linspace(-1, 1, 64), torch.linspace(-1, 1, 64)[:, None]
    return torch.stack([x + 0 * y, y + 0 * x, x * y])[None] * 0.8


@pytest.fixture(scope="module")
def mask():
    mask = torch.zeros(1, 1, 64, 64)
    mask[..., 16:48, 8:40] = 1
    return mask


@pytest.fixture(scope="module")
def z(pipe, image):
    """Two edits: other latents in the middle."""
    z = encode(pipe.vae, image).repeat(2, 1, 1, 1)
    z[:, :, 2:6, 1:5] = torch.randn(2, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    return z


@pytest.fixture(scope="module")
def edit(pipe, z):
    return Edit(decode(pipe.vae, z), z, [0.1, 0.2], {"prompt": ["a dog"], "steps": 25})


def background(result, image, mask):
    return metrics.decibels(metrics.background_error(result, image, mask))  # dB


# The loss


def test_the_loss_by_hand():
    picture, edit, image, mask = (
        torch.zeros(1, 3, 2, 2),
        torch.ones(1, 3, 2, 2),
        torch.ones(1, 3, 2, 2),
        None,
    )
    mask = torch.tensor([[1.0, 0.0], [0.0, 0.0]])[None, None]
    # a quarter of the pixels is 1 off the edit, three quarters 1 off the source
    assert decoder.background_loss(picture, edit, image, mask, lam=100).item() == pytest.approx(
        0.25 + 100 * 0.75
    )


@pytest.mark.parametrize("method", TUNED[:2])
def test_lam_0_keeps_the_edit(pipe, edit, image, mask, method):
    # the loss is 0 at the start, and so is its gradient
    kept = reconstruct(pipe, edit, image, mask, method=method, lam=0.0, steps=3, lr=0.01)
    assert kept.settings["loss"] == [0.0] * 3
    torch.testing.assert_close(kept.tensor, edit.tensor, rtol=0, atol=1e-5)


@pytest.mark.parametrize("method, lr, gain", [("weights", 3e-3, 6), ("latents", 0.1, 1)])
def test_a_huge_lam_reaches_the_source_outside(pipe, z, image, mask, method, lr, gain):
    before = background(decode(pipe.vae, z[:1]), image, mask)
    near = reconstruct(pipe, z[:1], image, mask, method=method, lam=1e6, steps=60, lr=lr)
    # the weights: measured 15 dB, in 60 steps
    assert background(near.tensor, image, mask) > before + gain
    assert near.settings["loss"][-1] < 0.8 * near.settings["loss"][0]


def test_the_first_term_holds_the_edit(pipe, z, image, mask):
    with_it, without = (
        reconstruct(pipe, z[:1], image, mask, lam=lam, steps=40, lr=3e-3).tensor
        for lam in (1.0, 1e6)
    )
    was = decode(pipe.vae, z[:1])
    assert metrics.rms(with_it - was, mask) < 0.7 * metrics.rms(without - was, mask)


# The tuned decoder


@pytest.mark.parametrize("blocks", [0, 1, 4, "all"])
def test_two_halves_are_the_whole_decoder(pipe, z, blocks):
    still, moving = decoder._halves(pipe.vae, blocks)
    whole = pipe.vae.decode(z / pipe.vae.config.scaling_factor).sample
    assert torch.equal(moving(still(z / pipe.vae.config.scaling_factor)), whole)


def test_only_the_tuned_part_is_kept(pipe, z, image, mask):
    delta, losses = tune_weights(pipe.vae, z, image, mask, blocks=1, **QUICK)
    parts = {"decoder.up_blocks.3", "decoder.conv_norm_out", "decoder.conv_out"}
    assert all(any(name.startswith(part) for part in parts) for name in delta) and losses.shape == (
        4,
    )
    assert all(
        value.dtype == torch.float32 and value.device.type == "cpu" for value in delta.values()
    )
    every, _ = tune_weights(pipe.vae, z, image, mask, blocks="all", **QUICK)
    assert every.keys() == {
        name for name, _ in pipe.vae.named_parameters() if name.startswith("decoder.")
    }


def test_the_delta_makes_the_result_again_and_decodes_other_things(pipe, edit, z, image, mask):
    result = reconstruct(pipe, edit, image, mask, **QUICK)
    for i, delta in enumerate(result.settings["delta"]):
        vae = tuned(pipe.vae, delta)
        torch.testing.assert_close(decode(vae, z[[i]]), result.tensor[[i]], rtol=0, atol=1e-6)
        assert not torch.equal(decode(vae, 0 * z[[i]]), decode(pipe.vae, 0 * z[[i]]))
    moved = reconstruct(pipe, edit, image, mask, method="latents", **QUICK)
    assert torch.equal(moved.latents, z)
    again = decode(pipe.vae, z + moved.settings["delta"])
    torch.testing.assert_close(again, moved.tensor, rtol=0, atol=1e-5)


def state(vae):
    """Everything that an autoencoder holds."""
    named = dict([*vae.named_parameters(), *vae.named_buffers()])
    tensors = {name: (x, x.dtype, x.requires_grad, x.detach().clone()) for name, x in named.items()}
    return (
        tensors,
        {name: x.grad for name, x in named.items()},
        [module.training for module in vae.modules()],
    )


def same(old, new):
    (tensors, grads, modes), (now, grads_now, modes_now) = old, new
    for name, (x, dtype, wanted, values) in tensors.items():
        y, dtype_now, wanted_now, values_now = now[name]
        assert x is y and (dtype, wanted) == (dtype_now, wanted_now), name
        assert torch.equal(values, values_now), name
    assert modes == modes_now and grads.keys() == grads_now.keys()
    assert all(grads[name] is grads_now[name] for name in grads)
    return True


def odd(dtype):
    """An autoencoder in an unusual state: training, some weights wanting gradients, one with a
    gradient, a buffer.
    """
    vae = checkpoints.autoencoder(0.13025, force_upcast=True).to(dtype).train()
    vae.encoder.requires_grad_(False)
    vae.decoder.conv_out.bias.grad = torch.ones_like(vae.decoder.conv_out.bias)
    vae.decoder.register_buffer("steps", torch.tensor(3))
    vae.decoder.register_buffer("scale", torch.tensor(0.1, dtype=dtype))
    return vae


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("error", [None, RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("method", ["latents", "weights"])
def test_the_autoencoder_is_put_back_bit_for_bit(z, image, mask, monkeypatch, method, error, dtype):
    vae = odd(dtype)
    before, step, calls = state(vae), torch.optim.Adam.step, []

    def interrupted(self, *args):
        step(self, *args)
        calls.append(1)
        if error and len(calls) == 3:  # in the middle: the weights have moved
            raise error("stop")

    monkeypatch.setattr(torch.optim.Adam, "step", interrupted)
    pipe = SimpleNamespace(vae=vae, vae_scale_factor=8, _execution_device=torch.device("cpu"))
    if error:
        with pytest.raises(error, match="stop"):
            reconstruct(pipe, z, image, mask, method=method, **QUICK)
    else:
        result = reconstruct(pipe, z, image, mask, method=method, **QUICK)
        assert result.tensor.isfinite().all() and result.tensor.dtype == torch.float32
    assert same(before, state(vae))


def test_the_copy_of_tuned_may_be_changed_at_will(z):
    vae = odd(torch.float16)
    before, copy = state(vae), tuned(vae)
    assert copy.dtype == torch.float32 and not copy.training and vae.dtype == torch.float16
    assert not any(x.requires_grad or x.grad is not None for x in copy.parameters())
    copy.decoder.requires_grad_(True)
    decode(copy, z)
    copy.decoder(z).sum().backward()
    copy.decoder.register_forward_hook(lambda *_: pytest.fail("a hook of the copy ran"))
    with torch.no_grad():
        for x in [*copy.parameters(), *copy.buffers()]:
            x.zero_()
    decode(vae, z)
    assert same(before, state(vae))


def test_an_autoencoder_that_overflows_is_read_in_float32_and_never_changed(z):
    vae = checkpoints.autoencoder(0.13025, force_upcast=True).half().eval()
    before, seen = state(vae), []
    vae.decoder.register_forward_hook(lambda net, args, out: seen.append((net, out.dtype)))
    wanted = decode(tuned(vae), z)
    assert torch.equal(decode(vae, z), wanted)
    assert all(net is not vae.decoder and dtype == torch.float32 for net, dtype in seen)
    assert same(before, state(vae))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_an_autoencoder_in_half_precision_is_tuned_in_float32(z, image, mask, dtype):
    torch.manual_seed(0)
    pipe = pipeline(checkpoints.autoencoder(0.13025, force_upcast=True).to(dtype))
    result = reconstruct(pipe, z[:1], image, mask, steps=20, lr=1e-4)
    (delta,) = result.settings["delta"]
    # Adam moves by at most about lr a step, which half precision would round away for most weights
    assert all(d.dtype == torch.float32 and 0 < d.abs().max() < 3e-3 for d in delta.values())
    loss = result.settings["loss"]
    assert loss[-1] < loss[0] and all(
        later < sooner for sooner, later in zip(loss, loss[1:], strict=False)
    )


# Faster, and the same


def test_computing_the_still_part_once_changes_nothing(pipe, z, image, mask):
    (once, l1), (each, l2) = (
        tune_weights(pipe.vae, z[:1], image, mask, blocks=2, reuse=reuse, **QUICK)
        for reuse in (True, False)
    )
    assert torch.equal(l1, l2) and all(torch.equal(once[name], each[name]) for name in each)


def test_mixed_precision_comes_near(pipe, z, image, mask):
    plain, mixed = (
        reconstruct(pipe, z[:1], image, mask, steps=20, lr=3e-3, precision=precision)
        for precision in ("float32", "bfloat16")
    )
    was, now = (background(edit.tensor, image, mask) for edit in (plain, mixed))
    assert abs(now - was) < 1.5 and not torch.equal(plain.tensor, mixed.tensor)
    assert all(delta.dtype == torch.float32 for delta in mixed.settings["delta"][0].values())


def test_a_plateau_ends_it(pipe, z, image, mask):
    every = reconstruct(pipe, z[:1], image, mask, steps=25, lr=1e-6, plateau=0.0).settings
    early = reconstruct(pipe, z[:1], image, mask, steps=25, lr=1e-6, plateau=0.5).settings
    assert every["reconstruct"]["taken"] == [25] and early["reconstruct"]["taken"] == [20]
    assert early["loss"] == every["loss"][:20] and all(
        type(value) is float for value in every["loss"]
    )


def test_one_by_one_is_each_alone_and_together_is_one_decoder(pipe, edit, z, image, mask):
    pictures, several = torch.cat([image, image.flip(-1)]), torch.cat([mask, mask.flip(-1)])
    alone = [reconstruct(pipe, z[[i]], pictures[[i]], several[[i]], **QUICK) for i in range(2)]
    each = reconstruct(pipe, edit, pictures, several, **QUICK)
    assert torch.equal(each.tensor, torch.cat([one.tensor for one in alone]))
    means = [(a + b) / 2 for a, b in zip(*(one.settings["loss"] for one in alone), strict=True)]
    assert each.settings["loss"] == pytest.approx(means)
    both = reconstruct(pipe, edit, pictures, several, together=True, **QUICK)
    assert len(both.settings["delta"]) == 1 and len(each.settings["delta"]) == 2
    assert both.settings["loss"][0] == pytest.approx(
        means[0]
    )  # the mean of the two, before the first step
    assert not torch.isclose(both.tensor, each.tensor).all()


def test_latents_are_tuned_alike_one_by_one_and_together(pipe, z, image, mask):
    how = dict(method="latents", steps=4, lr=0.05)
    each, both = (
        reconstruct(pipe, z, image, mask, together=together, **how) for together in (False, True)
    )
    # Adam divides by the size of the gradient, so half of it is as good
    torch.testing.assert_close(each.tensor, both.tensor, rtol=0, atol=1e-3)


# The front door


@pytest.mark.parametrize("method", METHODS)
def test_each_method_keeps_the_edit_and_tells_what_was_used(pipe, edit, image, mask, method):
    result = reconstruct(pipe, edit, image, mask, method=method, **QUICK)
    assert result.tensor.shape == (2, 3, 64, 64) and result.tensor.abs().max() <= 1
    assert torch.equal(result.latents, edit.latents) and result.scores == [0.1, 0.2]
    assert result.settings["prompt"] == ["a dog"] and result.settings["steps"] == 25
    assert edit.settings == {"prompt": ["a dog"], "steps": 25}  # the old one stays as it was
    used = result.settings["reconstruct"]
    assert used["method"] == method and ("loss" in result.settings) == (method in TUNED)
    if method in TUNED:
        assert (used["steps"], used["lr"], used["lam"], used["taken"]) == (4, 1e-3, 100.0, [4, 4])
    outside = mask.expand(2, 3, 64, 64) == 0
    exact = torch.equal(result.tensor[outside], image.expand(2, -1, -1, -1)[outside])
    assert exact == (method in ("paste", "poisson", "weights and paste"))


def test_it_starts_from_the_latents_and_not_from_the_picture(pipe, edit, image, mask):
    other = replace(edit, tensor=torch.zeros_like(edit.tensor))
    plain = reconstruct(pipe, other, image, mask, method="none")
    torch.testing.assert_close(plain.tensor, edit.tensor, rtol=0, atol=1e-5)


def test_what_was_found_before_is_replaced(pipe, edit, image, mask):
    first = reconstruct(pipe, edit, image, mask, **QUICK)
    second = reconstruct(pipe, first, image, mask, method="paste")
    assert "loss" not in second.settings and "delta" not in second.settings


@pytest.mark.parametrize(
    "method, given",
    [
        ("paste", dict(steps=3)),
        ("none", dict(lam=3.0)),
        ("paste", dict(preset="paper")),
        ("latents", dict(blocks=1, steps=1)),
        ("latents", dict(optimizer="muon", steps=1)),
    ],
)
def test_what_a_method_does_not_use_is_said(pipe, edit, image, mask, method, given):
    with pytest.warns(UserWarning, match=f"{[*given][0]}= is not honoured by method='{method}'"):
        reconstruct(pipe, edit, image, mask, method=method, **given)


@pytest.mark.filterwarnings("error")
def test_a_method_that_tunes_nothing_checks_its_numbers(pipe, edit, image, mask):
    reconstruct(pipe, edit, image, mask, method="paste")
    for wrong in (dict(steps=-1), dict(preset="none"), dict(blocks=99)):
        with pytest.raises(ValueError, match=f"{[*wrong][0]}"):
            reconstruct(pipe, edit, image, mask, method="paste", **wrong)


def test_an_edit_in_pixels_can_be_pasted(edit, image, mask):
    pixels = replace(edit, latents=None)
    for method in ("none", "paste", "poisson"):
        result = reconstruct(None, pixels, image, mask, method=method)
        assert torch.equal(result.tensor[..., 16:48, 8:40], edit.tensor[..., 16:48, 8:40]) == (
            method != "poisson"
        )
    with pytest.raises(ValueError, match="no latents.*method='paste'"):
        reconstruct(None, pixels, image, mask, method="weights")


def test_numbers_come_from_the_caller_then_the_preset_then_the_model_then_the_code(
    pipe, monkeypatch
):
    def used(of="weights", preset=None, **options):
        how = decoder._settle(pipe, of, preset, options)
        return how["steps"], how["lr"]

    assert used() == (decoder.FALLBACK["weights"]["steps"], decoder.FALLBACK["weights"]["lr"])
    monkeypatch.setattr(cards, "settings", lambda pipe, method: {"weights": dict(lr=0.5)})
    assert used() == (decoder.FALLBACK["weights"]["steps"], 0.5)
    assert used(preset="paper") == used(preset="official") == (75, 1e-4)
    assert used("latents", "paper") == (75, 1e-4) and used("latents", "official") == (75, 0.1)
    assert used(preset="paper", steps=3, lr=None) == (3, 1e-4)


def test_the_presets_differ_in_the_rate_for_latents_alone():
    paper, official = decoder.PRESETS["paper"], decoder.PRESETS["official"]
    assert paper["weights"] == official["weights"]
    assert paper["latents"] == replace(official["latents"], lr=1e-4)


def test_the_fast_preset_needs_less_than_half_of_the_steps(tiny):
    image = world.render(world.sample(1, seed=world.HELD_OUT), 64).image
    z, mask = encode(tiny.vae, image), masks.from_box((0.25, 0.25, 0.75, 0.75), (64, 64))
    fast = reconstruct(tiny, z, image, mask, preset="fast")
    usual = reconstruct(tiny, z, image, mask, steps=40)
    assert fast.settings["reconstruct"]["taken"] == [18]
    assert fast.settings["loss"][-1] < usual.settings["loss"][-1] < fast.settings["loss"][0]
    with pytest.raises(ValueError, match="no preset 'fast'; choose paper, official"):
        reconstruct(tiny, z, image, mask, method="latents", preset="fast")


def test_a_rate_that_breaks_the_decoder_is_named(pipe, edit, image, mask):
    with pytest.raises(ValueError, match="NaN or infinite values: take a smaller lr=1000"):
        reconstruct(pipe, edit, image, mask, lr=1000.0, steps=5)


BAD = [
    (dict(method="weigths"), "weights and paste"),
    (dict(preset="oficial"), "paper, official"),
    (dict(mask=torch.zeros(1, 1, 64, 64)), "black everywhere"),
    (dict(mask=torch.ones(1, 1, 64, 64)), "white everywhere"),
    (dict(mask=torch.eye(32)[None, None]), "fit_mask"),
    (
        dict(image=torch.zeros(1, 3, 32, 32), mask=torch.eye(32)[None, None]),
        "image is 32x32 and the edit 64x64",
    ),
    (dict(image=torch.zeros(3, 3, 64, 64)), "image holds 3 for n=2 edits"),
    (dict(edit=torch.zeros(1, 3, 64, 64)), r"edit is \(1,3,64,64\): .*\(1 or n,4,h,w\)"),
    (dict(edit=torch.full((1, 4, 8, 8), torch.nan)), "NaN"),
    (dict(edit=Edit(torch.zeros(1, 3, 64, 64))), "no latents, so there are no weights to tune"),
    (
        dict(edit=Edit(torch.zeros(1, 3, 64, 64), torch.zeros(1, 4, 8, 8), settings={"around": 2})),
        "its latents are of an enlarged square",
    ),
    (dict(steps=0), "1 or more"),
    (dict(steps=2.5), "steps is 2.5, not an integer"),
    (dict(lr=0.0), "more than 0"),
    (dict(lr=float("nan")), "more than 0"),
    (dict(lam=-1.0), "0 or more"),
    (dict(plateau=5), "share of the loss"),
    (dict(precision="float16"), "'float32' or 'bfloat16'"),
    (dict(blocks=5), "0 to 4, or 'all'"),
]


@pytest.mark.parametrize("given, sentence", BAD, ids=[sentence for _, sentence in BAD])
def test_bad_input_is_refused_before_any_network_runs(
    pipe, edit, image, mask, monkeypatch, given, sentence
):
    def ran(*args, **kwargs):
        raise AssertionError("a network ran")

    monkeypatch.setattr(pipe.vae.decoder, "forward", ran)
    monkeypatch.setattr(pipe.vae.post_quant_conv, "forward", ran)
    given = dict(edit=edit, image=image, mask=mask) | given
    with pytest.raises(ValueError, match=sentence):
        reconstruct(pipe, **given)


def test_a_file_is_no_edit(pipe, image, mask):
    with pytest.raises(TypeError, match="edit is a str: pass what bl.blended_latent returned"):
        reconstruct(pipe, "edit.png", image, mask)
    with pytest.raises(ValueError, match="a pipeline with an autoencoder"):
        reconstruct(SimpleNamespace(), torch.zeros(1, 4, 8, 8), image, mask)


def test_out_of_memory_says_what_takes_less(pipe, z, image, mask, monkeypatch):
    def full(*args, **kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(pipe.vae.decoder.conv_in, "forward", full)
    with pytest.raises(MemoryError, match="together=False.*blocks=1.*bfloat16"):
        reconstruct(pipe, z, image, mask, together=True)


def test_tuning_in_inference_mode_names_no_grad(pipe, z, image, mask):
    with torch.inference_mode(), pytest.raises(RuntimeError, match=r"take torch.no_grad\(\)"):
        reconstruct(pipe, z.clone(), image, mask, **QUICK)


def test_a_pipeline_without_diffusers_own_properties_will_do(pipe, z, image, mask):
    parts = dict(encoder=None, unet=None, scheduler=None)  # reconstruct needs none of these
    exemplar = ExemplarPipeline(vae=pipe.vae, **parts)
    found, wanted = (reconstruct(p, z, image, mask, **QUICK) for p in (exemplar, pipe))
    assert torch.equal(found.tensor, wanted.tensor)


def test_tune_latents_moves_the_latents_alone(pipe, z, image, mask):
    before = state(pipe.vae)
    delta, losses = decoder.tune_latents(pipe.vae, z, image, mask, steps=3, lr=0.1)
    assert delta.shape == z.shape and delta.abs().max() > 0.05 and losses.shape == (3,)
    assert same(before, state(pipe.vae))


# Poisson


def shapes():
    """Masks of any shape, 24x20: at the border, in parts, of single pixels."""
    inside, border, corners, stripe = (torch.zeros(1, 1, 24, 20) for _ in range(4))
    inside[..., 5:12, 4:15] = 1
    border[..., :9, 6:20] = 1
    corners[..., :5, :4] = corners[..., 20:, 17:] = corners[..., 10:13, 8:11] = corners[
        ..., 15, 3
    ] = 1
    stripe[..., 7:13] = 1
    random = (torch.rand(1, 1, 24, 20, generator=torch.Generator().manual_seed(0)) > 0.3).float()
    nearly = torch.ones(1, 1, 24, 20)
    nearly[..., 11, 0] = 0
    return dict(
        inside=inside, border=border, corners=corners, stripe=stripe, random=random, nearly=nearly
    )


@pytest.fixture(scope="module")
def pictures():
    return (
        torch.rand(2, 3, 24, 20, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        * 2
        - 1
    )


def excess(f):
    """How much each pixel exceeds its neighbours, summed over those that there are."""
    total = torch.zeros_like(f)
    down, right = f[..., 1:, :] - f[..., :-1, :], f[..., 1:] - f[..., :-1]
    total[..., 1:, :] += down
    total[..., :-1, :] -= down
    total[..., 1:] += right
    total[..., :-1] -= right
    return total


@pytest.mark.parametrize("mask", shapes().values(), ids=shapes())
def test_poisson_solves_its_equation_and_leaves_the_outside_untouched(pictures, mask):
    edit, keep = pictures[:1], pictures[1:]
    f = poisson(mask, edit, keep)
    where = mask.expand_as(f) == 1
    assert f.dtype == torch.float64 and torch.equal(f[~where], keep[~where])
    assert (excess(f) - excess(edit))[where].abs().max() < 1e-6
    single = poisson(mask, edit.float(), keep.float())
    assert single.dtype == torch.float32 and torch.equal(single[~where], keep.float()[~where])
    torch.testing.assert_close(single.double(), f, rtol=0, atol=1e-5)


def test_poisson_forgets_a_colour_that_is_everywhere_the_same(pictures):
    keep = pictures[:1]
    torch.testing.assert_close(poisson(shapes()["border"], keep + 0.3, keep), keep)


def test_poisson_of_a_flat_edit_is_a_ramp():
    keep = torch.zeros(1, 3, 24, 20)
    keep[..., 13:] = 1
    f = poisson(
        shapes()["stripe"], torch.full_like(keep, 0.7), keep
    )  # from column 6, 0, to column 13, 1
    torch.testing.assert_close(f[..., 6:14], (torch.arange(8) / 7).expand(1, 3, 24, 8))


def test_poisson_of_several_is_each_alone(pictures):
    masks = torch.cat([shapes()["inside"], shapes()["corners"]])
    both = poisson(masks, pictures, pictures.flip(0))
    for i in range(2):
        alone = poisson(masks[[i]], pictures[[i]], pictures.flip(0)[[i]])
        torch.testing.assert_close(both[[i]], alone)
    torch.testing.assert_close(poisson(masks[:1], pictures, pictures[:1])[1:],
                               poisson(masks[:1], pictures[1:], pictures[:1]))  # fmt: skip
    assert poisson(masks, pictures[:1], pictures[:1]).shape == (2, 3, 24, 20)
