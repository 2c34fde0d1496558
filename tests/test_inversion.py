"""From noise to picture and back: the same picture as diffusers', the way back, and attention that
is kept.
"""

from dataclasses import replace

import checkpoints
import pytest
import torch
from diffusers import DDIMScheduler

import blendlab as bl
from blendlab import world
from blendlab.attention import capture
from blendlab.latents import decode, encode
from blendlab.papers.inversion import invert
from blendlab.papers.reword import mapped, reword, same_attention
from blendlab.sampler import Prediction
from blendlab.walk import Drawing, Walk, admit

QUICK = dict(steps=4, w=3.0)


def state(unet):
    """Everything that could have been left in a network: its processors and hooks."""
    hooks = [
        (m._forward_pre_hooks | m._forward_hooks | m._forward_hooks_with_kwargs)
        for m in unet.modules()
    ]
    return {name: id(processor) for name, processor in unet.attn_processors.items()}, hooks


def toy(steps=20, **how):
    """The exact model of latents that are independent normal numbers of variance 1/4."""
    schedule = bl.Schedule.scaled_linear()

    def net(x, t, cond):
        a, s = schedule.levels(t)
        return Prediction(a * 0.25 / (a**2 * 0.25 + s**2) * x)

    how = Drawing(w=1.0, steps=steps, eta=0.0, **how)
    return Walk(None, net, None, None, schedule, schedule.timesteps(steps), how)


# From noise to picture


def test_a_picture_from_noise_is_the_one_that_diffusers_makes(sd):
    parts = dict(sd.components) | {
        "scheduler": DDIMScheduler(**checkpoints.BETAS, clip_sample=False, steps_offset=1)
    }
    theirs = type(sd)(**parts, requires_safety_checker=False)
    theirs.set_progress_bar_config(disable=True)
    noise = bl.Noise(3, 2, "initial")((4, 8, 8))
    wanted = theirs(
        "a red cat",
        num_inference_steps=10,
        guidance_scale=7.5,
        height=64,
        width=64,
        latents=noise,
        num_images_per_prompt=2,
        output_type="latent",
    ).images
    how = Drawing(w=7.5, steps=10, eta=0.0)
    request = admit(theirs, ["a red cat"], "", None, None, how, n=2, seed=3, batch=1)
    walk = Walk.of(theirs, "a red cat", how, size=(8, 8))
    ours, tensor = walk.pictures(walk.start(request), request)
    # float32, ten guided steps of random networks: see test_blended_latent.py
    torch.testing.assert_close(ours, wanted, rtol=0, atol=1e-4)
    torch.testing.assert_close(tensor, decode(sd.vae, ours), rtol=0, atol=1e-5)


# And back


def test_a_level_of_all_noise_is_left_the_way_it_was_entered():
    x = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0)).double()
    abar = bl.Schedule.scaled_linear().abar.clone()
    abar[-1] = 0.0  # zero terminal SNR
    schedule = bl.Schedule(abar)

    def net(x, t, cond):  # what v prediction can say there
        a, s = schedule.levels(t)
        return Prediction(a * 0.25 / (a**2 * 0.25 + s**2) * x + 0.3)

    how = Drawing(w=1.0, steps=20, eta=0.0, refine=60)
    walk = Walk(None, net, None, None, schedule, [999, 950, 900, 850, 800, 750], how)
    assert (walk.up(walk.down(x)) - x).abs().max() < 1e-9


def test_each_move_up_undoes_the_move_down():
    x = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0)).double()
    once, often = toy(), toy(refine=60)
    back = [(walk.up(walk.down(x)) - x).abs().max() for walk in (once, often)]
    # the estimate of a move is found to rounding by asking often, and roughly by asking once
    assert back[1] < 1e-9 and 1e-4 < back[0] < 1, back


def test_more_steps_retrace_better():
    x = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0)).double()
    errors = [(r.up(r.down(x)) - x).abs().max() for r in (toy(steps=n) for n in (10, 40, 160))]
    assert errors[0] > 2 * errors[1] > 4 * errors[2], errors


def test_the_round_trip_without_guidance_returns_the_latent(tiny):
    scenes = world.sample(1, world.HELD_OUT + 21)
    picture, prompt = world.render(scenes, 64).image, world.captions(scenes, seed=0)[0]
    z = encode(tiny.vae, picture)
    noise = invert(tiny, picture, prompt, steps=50)
    walk = Walk.of(tiny, prompt, Drawing(w=1.0, steps=50, eta=0.0))
    error = (walk.down(noise) - z).square().mean().sqrt() / z.std()
    assert error < ROUND_TRIP
    assert 0.7 < noise.std() < 1.1  # nearly the noise that the network starts from


ROUND_TRIP = 0.15


@pytest.mark.parametrize("layout", [checkpoints.sd1, checkpoints.sd2, checkpoints.sdxl])
def test_what_a_network_predicts_does_not_matter(layout, image):
    pipe = layout()  # epsilon, v, and SDXL's arguments
    how = Drawing(w=3.0, invert_w=3.0, steps=10, eta=0.0, refine=8)
    walk = replace(Walk.of(pipe, "a red cat", how, size=(8, 8)), timesteps=[300, 200])
    z = bl.Noise(0, 1, "initial")((4, 8, 8))
    up = walk.up(z)
    torch.testing.assert_close(walk.down(up), z, rtol=0, atol=1e-3)
    assert (up - z).abs().max() > 0.02
    assert invert(pipe, image, "a red cat", steps=2).isfinite().all()


def test_pictures_are_inverted_alike_in_any_batch(sd, image):
    several = torch.cat([image, image.flip(-1), image.flip(-2)])
    together, apart = (
        invert(sd, several, "a cat", steps=3, w=3.0, batch=batch) for batch in (None, 2)
    )
    assert together.shape == (3, 4, 8, 8)
    torch.testing.assert_close(together, apart, rtol=0, atol=1e-4)


# The source's attention


def test_rows_look_where_the_rows_before_them_look(sd):
    g = torch.Generator().manual_seed(0)
    x, text = torch.randn(6, 4, 8, 8, generator=g), torch.randn(6, 77, 32, generator=g)
    plain = sd.unet(x, 500, text).sample
    layer = "down_blocks.0.attentions.0.transformer_blocks.0.attn2"
    attn, seen = sd.unet.get_submodule(layer), {}
    with (
        same_attention(sd.unet, 2, layers="down_blocks.0"),
        capture(sd.unet, layer, "both") as maps,
    ):
        handle = attn.register_forward_hook(lambda m, args, out: seen.update(out=out))
        changed = sd.unet(x, 500, text).sample
        handle.remove()
    # (B,heads,tokens,d)
    values = attn.to_v(text[4:]).unflatten(-1, (attn.heads, -1)).transpose(1, 2)
    by_hand = maps[0].weights.flatten(2, 3)[2:4] @ values
    by_hand = attn.to_out[0](by_hand.transpose(1, 2).flatten(2))
    torch.testing.assert_close(seen["out"][4:], by_hand, rtol=0, atol=1e-5)
    assert torch.equal(changed[:4], plain[:4]) and not torch.isclose(changed[4:], plain[4:]).all()


@pytest.mark.parametrize("error", [None, RuntimeError, KeyboardInterrupt])
def test_the_network_is_put_back_whatever_happens(sd, error):
    before = state(sd.unet)
    try:
        with same_attention(sd.unet, 1):
            sd.unet(torch.zeros(2, 4, 8, 8), 10, torch.zeros(2, 77, 32))
            if error:
                raise error
    except (RuntimeError, KeyboardInterrupt):
        pass
    assert state(sd.unet) == before


@pytest.mark.parametrize("layout", ["tiny", "sd1", "sd2", "sdxl"])
@pytest.mark.parametrize("w", [3.0, 1.0])
def test_kept_for_no_step_it_is_the_changed_prompt_alone(layout, w, tiny):
    pipe = tiny if layout == "tiny" else getattr(checkpoints, layout)()
    plain = reword(pipe, "a red car", "a red bus", keep=0, seed=2, steps=4, w=w)
    kept = reword(pipe, "a red car", "a red bus", keep=0.5, seed=2, steps=4, w=w)
    for prompt, tensor in (("a red car", plain.settings["before"]), ("a red bus", plain.tensor)):
        walk = Walk.of(pipe, prompt, Drawing(w=w, steps=4, eta=0.0), size=plain.latents.shape[-2:])
        alone = decode(pipe.vae, walk.down(bl.Noise(2, 1, "initial")(plain.latents.shape[1:])))
        torch.testing.assert_close(tensor, alone, rtol=0, atol=1e-4)
    torch.testing.assert_close(kept.settings["before"], plain.settings["before"], rtol=0, atol=1e-5)
    assert (
        kept.latents - plain.latents
    ).abs().max() > 2e-5  # SDXL's small copy hears little of its words


def test_a_prompt_that_keeps_its_own_attention_stays_the_same(sd):
    edit = reword(sd, "a red cat", "a red cat", keep=1.0, n=2, **QUICK)
    torch.testing.assert_close(edit.tensor, edit.settings["before"], rtol=0, atol=1e-4)


def test_half_precision_networks_keep_a_float32_state():
    edit = reword(
        checkpoints.sd1().to(torch.bfloat16),
        "a red cat",
        "a red gryffindorian",
        n=2,
        steps=2,
        w=3.0,
    )
    assert edit.latents.dtype == torch.float32 and edit.tensor.isfinite().all()


def test_a_picture_is_reworded_from_its_own_noise(sd, image):
    edit = reword(sd, "a red cat", "a red dog", image=image, n=2, refine=2, **QUICK)
    noise = invert(sd, image, "a red cat", steps=4, refine=2)
    from_noise = reword(sd, "a red cat", "a red dog", noise=noise, n=2, **QUICK)
    torch.testing.assert_close(edit.latents, from_noise.latents, rtol=0, atol=1e-4)
    assert edit.tensor.shape == (2, 3, 64, 64)


def test_a_word_of_other_length_gets_what_the_old_one_got(sd):
    assert mapped(sd, "a red cat", "a blue dog") is None
    prompt, changed = "a bobcat on snow", "a gryffindorian on snow"
    old, new = (sd.tokenizer.tokenize(text) for text in (prompt, changed))
    assert len(new) > len(old) == 4
    for a, b, m in (
        (old, new, mapped(sd, prompt, changed)),
        (new, old, mapped(sd, changed, prompt)),
    ):
        torch.testing.assert_close(m.sum(1), torch.ones(77))  # nothing that was looked at is lost
        extra = len(b) - len(a)
        inside = m[2 : 2 + len(a) - 3, 2 : 2 + len(b) - 3]
        torch.testing.assert_close(inside, torch.full_like(inside, 1 / inside.shape[1]))
        for i, j in ((0, 0), (1, 1), (len(a) - 1, len(b) - 1), (len(a), len(b)), (40, 40 + extra)):
            assert m[i, j] == 1  # start, "a", "on", "snow", and the padding


BAD = [
    (dict(changed="a very red cat"), "differ in more than one word: replace one word"),
    (dict(changed="a dog and a cat"), "3 and 5 tokens"),
    (dict(changed="a dog " * 50), "room for 75"),
    (dict(keep=1.2), "0.8 keeps"),
    (dict(layers="encoder"), "they are: down_blocks"),
    (dict(steps=0), "1 to 1000"),
    (dict(n=0), "1 or more"),
    (dict(noise=torch.zeros(2, 4, 8, 8)), "noise holds 2 for n=1"),
    (dict(noise=torch.zeros(4, 8, 8)), r"noise is \(4,8,8\): pass a tensor \(1 or n,4,h,w\)"),
    (dict(noise=torch.full((1, 4, 8, 8), torch.nan)), "finite"),
    (dict(image=torch.zeros(1, 3, 60, 60)), "multiples of 8"),
    (dict(image=torch.zeros(1, 3, 64, 64), eta=1.0), "only under DDIM: pass eta=0"),
    (
        dict(image=torch.zeros(1, 3, 64, 64), noise=torch.zeros(1, 4, 8, 8)),
        "pass the one to start from",
    ),
]


@pytest.mark.parametrize("given, sentence", BAD, ids=[sentence for _, sentence in BAD])
def test_bad_input_is_refused_before_any_network_runs(sd, monkeypatch, given, sentence):
    def ran(*args, **kwargs):
        raise AssertionError("a network ran")

    for part in (sd.unet, sd.vae.encoder, sd.text_encoder):
        monkeypatch.setattr(part, "forward", ran)
    with pytest.raises(ValueError, match=sentence):
        reword(sd, **(dict(prompt="a red cat", changed="a red dog", **QUICK) | given))


def test_other_things_than_a_text_are_refused(sd, image):
    with pytest.raises(TypeError, match="the prompt is a list: pass one text"):
        invert(sd, image, ["a cat"])
    with pytest.raises(TypeError, match="no option 'skip'; it has w, steps, eta"):
        reword(sd, "a cat", "a dog", skip=0.2)
    sd2 = checkpoints.sd1()
    sd2.unet = checkpoints.unet(attention_head_dim=8, in_channels=9)
    with pytest.raises(ValueError, match="9 channels.*text-to-image"):
        invert(sd2, image, "a cat")


def test_words_that_the_model_never_saw_are_refused(tiny):
    with pytest.raises(ValueError, match="does not know 'dragon'"):
        reword(tiny, "a red cat", "a red dragon")
