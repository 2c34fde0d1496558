"""Algorithm 1: the background is asked for, never exact, and the more it is asked for the better it
is kept.
"""

import checkpoints
import pytest
import torch
from colour_clip import COLOURS, ColourClip, ColourModel

import blendlab as bl
from blendlab import cards
from blendlab.clip_guidance import Guiding, clip_distance
from blendlab.measuring.metrics import background_error
from blendlab.networks import load as networks
from blendlab.networks.perceptual import encoder_distance, lpips_distance, perceptual_distance
from blendlab.papers import clip_guided as guided
from blendlab.papers.clip_guided import background_distance, official_distance

QUICK = dict(scale=20.0, augmentations=2, steps=25)


@pytest.fixture
def clip():
    return ColourClip(ColourModel())


@pytest.fixture(scope="module")
def model():
    return checkpoints.gaussian()


@pytest.fixture(scope="module")
def distance():
    return encoder_distance(checkpoints.autoencoder(0.18215))


@pytest.fixture
def image():
    return torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.fixture
def mask():
    mask = torch.zeros(1, 1, 16, 16)
    mask[..., 4:12, 4:12] = 1
    return mask


def test_the_background_comes_closer_the_more_it_is_asked_for_and_is_never_exact(
    model, clip, image, mask, distance
):
    error = {}
    for weight in (0.0, 100.0, 3000.0):
        how = dict(background=weight, perceptual=distance, seed=3)
        edit = bl.clip_guided(model, clip, image, mask, "red", **QUICK, **how)
        error[weight] = background_error(edit.tensor, image, mask).item()
    assert error[0.0] > error[100.0] > error[3000.0] > 0, error


def test_without_a_background_weight_the_picture_is_not_looked_at(
    model, clip, image, mask, monkeypatch
):
    monkeypatch.setattr(guided, "perceptual_distance", lambda model: pytest.fail("it was loaded"))
    how = dict(background=0.0, seed=3)
    unasked = how | dict(perceptual=lambda a, b: pytest.fail("it was"))
    bl.clip_guided(model, clip, image, mask, "red", **QUICK, **unasked)
    ours = bl.clip_guided(model, clip, image, mask, "red", **QUICK, **how)
    other = bl.clip_guided(model, clip, -image, mask, "red", **QUICK, **how)
    assert torch.equal(ours.tensor, other.tensor)


def test_the_words_are_followed_inside_the_mask(model, clip, image, mask, distance):
    text = torch.tensor([COLOURS["green"]])
    far = {}
    for scale in (0.0, 5000.0):
        how = QUICK | dict(scale=scale, background=10.0, perceptual=distance, seed=3)
        edit = bl.clip_guided(model, clip, image, mask, "green", **how)
        far[scale] = clip_distance(edit.tensor.clamp(-1, 1), text, mask, clip, Guiding()).item()
    assert far[5000.0] < far[0.0] - 0.02, far


def test_it_can_be_pasted_after_all_and_ranked(model, clip, image, mask, distance):
    edit = bl.clip_guided(
        model, clip, image, mask, "red", **QUICK, perceptual=distance, paste=True, n=2, batch=1
    )
    outside = mask.expand_as(image) == 0
    assert all(torch.equal(one[outside[0]], image[outside]) for one in edit.tensor)
    assert edit.scores == sorted(edit.scores) and edit.settings["background"] == 1000.0


def test_d_bg_is_half_square_half_perceptual_outside_the_mask(mask):
    a, b = torch.zeros(2, 3, 16, 16), torch.zeros(1, 3, 16, 16)
    a[0, :, :4] = 1.0  # a quarter of the picture, all of it outside the mask
    a[:, :, 6:9, 6:9] = -1.0  # inside: not seen
    seen = []
    far = background_distance(
        a, b, mask, lambda x, y: seen.append((x, y)) or torch.tensor([0.5, 0.0])
    )
    torch.testing.assert_close(far, torch.tensor([(0.25 + 0.5) / 2, 0.0]))
    assert seen[0][0].shape == seen[0][1].shape == (2, 3, 16, 16)


# The perceptual part


def test_in_half_precision_an_autoencoder_that_overflows_gives_the_same_distance():
    vae = checkpoints.autoencoder(0.13025, force_upcast=True).eval().requires_grad_(False)
    vae.encoder.conv_in.weight *= 2e5  # beyond float16's 65504
    vae.encoder.conv_in.bias.zero_()
    a, b = torch.rand(2, 1, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    vae.encoder.conv_in.weight.copy_(vae.encoder.conv_in.weight.clamp(-6e4, 6e4).half())
    expected = encoder_distance(vae)(a, b)
    assert expected.isfinite().all() and expected > 0
    torch.testing.assert_close(encoder_distance(vae.half())(a, b), expected, rtol=0.01, atol=0)


def test_the_distance_looks_at_each_source_once(monkeypatch):
    vae, g = checkpoints.autoencoder(0.18215), torch.Generator().manual_seed(0)
    a, b, other = torch.randn(3, 2, 3, 32, 32, generator=g)
    expected = [encoder_distance(vae)(a, x) for x in (b, b[:1].expand_as(a), other)]
    seen, look = [], vae.encoder.conv_in.forward
    monkeypatch.setattr(vae.encoder.conv_in, "forward", lambda x: seen.append(x) or look(x))
    distance = encoder_distance(vae)
    for _ in range(3):
        assert torch.equal(distance(a, b), expected[0])
    assert len(seen) == 3 + 1
    b[1] = b[0]  # changed in place, so it is another source
    assert torch.equal(distance(a, b), expected[1])
    assert torch.equal(distance(a, other), expected[2])
    x = a.clone().requires_grad_()
    assert torch.autograd.grad(distance(x, other).sum(), x)[0].abs().amax() > 0


def test_the_encoders_distance_is_zero_for_equal_pictures_and_grows(distance, image):
    noise = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    far = [distance(image, image + amount * noise).item() for amount in (0.0, 0.1, 0.5)]
    assert far[0] == 0 and far[0] < far[1] < far[2]
    x = image.clone().requires_grad_()
    distance(x, -image).sum().backward()
    assert x.grad.abs().max() > 0


def test_tinyworld_lends_its_autoencoder_and_others_take_lpips(monkeypatch, tmp_path):
    model, asked = checkpoints.pixel(), []
    monkeypatch.setattr(
        networks, "load", lambda name, device: asked.append(name) or checkpoints.sd1()
    )
    monkeypatch.setattr(cards, "card", lambda pipe: {"perceptual": "tinyworld"})
    assert perceptual_distance(model)(
        torch.zeros(2, 3, 16, 16), torch.ones(2, 3, 16, 16)
    ).shape == (2,)
    assert asked == ["tinyworld"]
    monkeypatch.setattr(cards, "card", lambda pipe: {})
    monkeypatch.setattr(
        "blendlab.networks.perceptual.lpips_distance", lambda device: asked.append("lpips")
    )
    perceptual_distance(model)
    assert asked == ["tinyworld", "lpips"]


def test_lpips_is_the_librarys_own(monkeypatch):
    import lpips

    network, made = lpips.LPIPS, []
    monkeypatch.setattr(
        lpips, "LPIPS", lambda **how: made.append(how) or network(pnet_rand=True, **how)
    )
    a, b = torch.rand(2, 3, 64, 64) * 2 - 1, torch.rand(2, 3, 64, 64) * 2 - 1
    torch.manual_seed(0)
    far = lpips_distance("alex")(a, b)
    assert far.shape == (2,) and (far > 0).all() and made[0]["net"] == "alex"


def test_lpips_without_a_connection_says_what_to_do(monkeypatch):
    import lpips

    def offline(**how):
        raise OSError("no route to host")

    monkeypatch.setattr(lpips, "LPIPS", offline)
    with pytest.raises(
        OSError, match="LPIPS could not download its vgg network; connect .*or pass perceptual="
    ):
        lpips_distance()


def test_the_codes_background_loss_compares_with_the_whole_picture(image, mask):
    perceptual = lambda a, b: (a - b).abs().mean((1, 2, 3))  # noqa: E731
    a, weight = image * (1 - mask), 1000.0  # clip_guided's usual weight
    by_hand = 1000 * perceptual(a, image) + 10000 * (a - image).square().mean((1, 2, 3))
    torch.testing.assert_close(weight * official_distance(image, image, mask, perceptual), by_hand)
    assert background_distance(image, image, mask, perceptual) == 0 < by_hand


def test_the_official_preset_starts_at_skip_25_and_uses_the_codes_background_loss(
    model, clip, image, mask, monkeypatch
):
    asked = []

    def counted(*given):
        asked.append(given)
        return official_distance(*given)

    monkeypatch.setattr(guided, "official_distance", counted)
    perceptual = lambda a, b: (a - b).abs().mean((1, 2, 3))  # noqa: E731
    edit = bl.clip_guided(
        model, clip, image, mask, "red", preset="official", steps=8, perceptual=perceptual
    )
    assert edit.settings["skip"] == 0.25 and len(asked) == 6
