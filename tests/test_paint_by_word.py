"""PaintByWord++: latents under a CLIP whose answers are known."""

import checkpoints
import pytest
import torch
from colour_clip import COLOURS, ColourClip, ColourModel

import blendlab as bl
from blendlab.latents import decode, encode
from blendlab.papers.paint_by_word import PRESETS, paint_by_word


def pictures(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@pytest.fixture
def clip():
    return ColourClip(ColourModel())


@pytest.fixture(scope="module")
def pipe():
    return checkpoints.sd1()


@pytest.fixture
def image():
    return pictures(1, 3, 64, 64, seed=1)


@pytest.fixture
def mask():
    mask = torch.zeros(1, 1, 64, 64)
    mask[..., 16:40, 24:56] = 1
    return mask


QUICK = dict(steps=3, augmentations=2)


def colour(pictures, mask):
    """The mean colour (n,3) inside the mask."""
    return (pictures * mask).sum((2, 3)) / mask.sum()


def test_inside_the_mask_the_words_are_followed(pipe, clip, image, mask):
    inside = [
        colour(paint_by_word(pipe, clip, image, mask, word, steps=6, augmentations=2).tensor, mask)
        for word in COLOURS
    ]
    inside = torch.cat(inside)  # (3 words,3 channels)
    assert (inside.argmax(0) == torch.arange(3)).all(), (
        inside
    )  # most of each colour where it was asked for


def test_outside_the_mask_the_latents_are_the_sources_exactly(pipe, clip, image, mask):
    edit = paint_by_word(pipe, clip, image, mask, "red", **QUICK, noise=0.5)
    small = bl.masks.to_latent(mask, (8, 8))
    changed = edit.latents != encode(pipe.vae, image)
    assert torch.equal(changed.any(1, keepdim=True).float(), small)
    torch.testing.assert_close(edit.tensor, decode(pipe.vae, edit.latents))


def test_a_paste_puts_the_source_back_bit_for_bit(pipe, clip, image, mask):
    plain, pasted = (
        paint_by_word(pipe, clip, image, mask, "red", **QUICK, paste=p) for p in (False, True)
    )
    assert torch.equal(pasted.tensor, bl.blend(mask, edit=plain.tensor, keep=image))
    assert not torch.equal(plain.tensor, pasted.tensor)


def test_a_step_is_adams_on_the_distance_of_the_warped_copies(pipe, clip, image, mask):
    """By hand, with the streams that the package promises; Adam's first step is lr * sign of the
    gradient.
    """
    from blendlab.clip_guidance import Guiding, clip_distance

    edit = paint_by_word(pipe, clip, image, mask, "red", steps=1, lr=0.25, augmentations=2, seed=7)
    z = encode(pipe.vae, image)
    u = torch.special.ndtr(bl.Noise(7, 1, "augment")((2, 12)))
    with torch.enable_grad():
        x = z.clone().requires_grad_()
        picture = pipe.vae.decode(x / pipe.vae.config.scaling_factor).sample
        loss = clip_distance(picture, torch.tensor([COLOURS["red"]]), mask, clip, Guiding(), u)
        (slope,) = torch.autograd.grad(loss.sum(), x)
    expected = z - 0.25 * slope / (slope.abs() + 1e-8) * bl.masks.to_latent(mask, (8, 8))
    torch.testing.assert_close(edit.latents, expected, atol=2e-3, rtol=0)


def test_results_come_ranked_with_their_latents(pipe, clip, image, mask):
    how = QUICK | dict(noise=1.0, n=3, seed=5)
    edit = paint_by_word(pipe, clip, image, mask, "red", **how)
    plain = paint_by_word(pipe, clip, image, mask, "red", **how, ranking=None)
    assert edit.scores == sorted(edit.scores) and sorted(edit.settings["order"]) == [0, 1, 2]
    torch.testing.assert_close(edit.latents, plain.latents[edit.settings["order"]])
    torch.testing.assert_close(edit.tensor, plain.tensor[edit.settings["order"]])


def test_three_pictures_masks_and_prompts_at_once(pipe, clip, mask):
    images, masks = pictures(3, 3, 64, 64), torch.cat([mask, mask.roll(8, -1), mask.mT])
    edit = paint_by_word(pipe, clip, images, masks, list(COLOURS), **QUICK, n=3, batch=2)
    alone = paint_by_word(pipe, clip, images[:1], masks[:1], "red", **QUICK)
    torch.testing.assert_close(edit.latents[:1], alone.latents, atol=1e-3, rtol=0)
    assert edit.scores is None and edit.settings["prompt"] == list(COLOURS)


@pytest.mark.parametrize("breaks", [False, True])
def test_the_autoencoder_is_put_back_also_after_an_exception(clip, image, mask, breaks):
    pipe = checkpoints.sd1()
    pipe.vae.train().half()
    pipe.vae.decoder.conv_out.weight.requires_grad_()
    before = [(x, x.clone(), x.requires_grad) for x in pipe.vae.parameters()]
    if breaks:
        clip.model.encode_image = lambda x: 1 / 0
        with pytest.raises(ZeroDivisionError):
            paint_by_word(pipe, clip, image, mask, "red", **QUICK)
    else:
        assert paint_by_word(pipe, clip, image, mask, "red", **QUICK).tensor.isfinite().all()
    assert pipe.vae.training
    for now, (x, value, wanted) in zip(pipe.vae.parameters(), before, strict=True):
        assert now is x and torch.equal(x, value) and x.dtype == torch.float16
        assert x.requires_grad == wanted and x.grad is None


def test_numbers_come_from_the_call_else_the_preset_else_the_paper(pipe, clip, image, mask):
    assert (PRESETS["paper"].steps, PRESETS["paper"].lr, PRESETS["paper"].augmentations) == (
        500,
        0.1,
        16,
    )
    used = paint_by_word(
        pipe, clip, image, mask, "red", preset="paper", steps=1, augmentations=1, unwarped=1
    ).settings
    assert (used["steps"], used["lr"], used["augmentations"], used["paste"]) == (1, 0.1, 1, False)
    assert used["prompt"] == "red" and used["distance"] == "cosine"


@pytest.mark.parametrize(
    ("bad", "sentence"),
    [
        ({"prompt": "a dragon"}, "does not know 'a', 'dragon'; it knows blue, green, red"),
        ({"n": 0}, "n is 0"),
        ({"prompt": ["red", "blue"]}, "prompt holds 2 for n=1"),
        ({"preset": "best"}, "no preset 'best'; choose paper"),
        ({"steps": 0}, "steps is 0; it counts the steps of Adam, so take 1 or more"),
        ({"lr": 0.0}, "lr is 0.0; it says how far a step goes"),
        ({"lr": float("nan")}, "lr is nan"),
        ({"noise": -1.0}, "noise is -1.0; it is a standard deviation"),
        ({"augmentations": 0}, "augmentations is 0; take 1 with unwarped=1 for none"),
        ({"distance": "taxi"}, "distance is 'taxi'; choose 'cosine' or 'spherical'"),
        ({"image": torch.zeros(1, 3, 60, 64)}, "not multiples of 8"),
        ({"image": torch.full((1, 3, 64, 64), torch.nan)}, "image has NaN"),
        ({"mask": torch.zeros(1, 1, 64, 64)}, "black everywhere"),
        (
            {"mask": torch.eye(64)[None, None] * (torch.arange(64) == 1)},
            "the mask vanishes at latent size 8x8",
        ),
    ],
)
def test_bad_input_gets_a_sentence_before_any_network_runs(
    pipe, clip, image, mask, bad, sentence, monkeypatch
):
    clip.model.encode_image = clip.model.encode_text = lambda *_: pytest.fail("a network ran")
    monkeypatch.setattr(pipe.vae, "encode", clip.model.encode_image)
    good = dict(image=image, mask=mask, prompt="red") | QUICK
    with pytest.raises(ValueError, match=sentence):
        paint_by_word(pipe, clip, **(good | bad))


def test_a_model_of_pixels_is_refused(clip, image, mask):
    with pytest.raises(
        ValueError, match="pass a pipeline with an autoencoder.*blended is for pixels"
    ):
        paint_by_word(checkpoints.pixel(), clip, image, mask, "red", **QUICK)
