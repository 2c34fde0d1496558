"""Joins: pyramids against the textbook's two, which a picture and a mask of numbers decide."""

import pytest
import torch

from blendlab.blend import blend
from blendlab.joins import double, halve, poisson, pyramid


def pictures(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@pytest.mark.parametrize("size", [(16, 16), (17, 30), (3, 5)])
def test_blurring_keeps_a_flat_picture_flat_also_at_its_edges(size):
    flat = torch.full((2, 3, *size), 0.7)
    small = halve(flat)
    assert small.shape[-2:] == (-(-size[0] // 2), -(-size[1] // 2))
    for x in (small, double(small, size)):
        torch.testing.assert_close(x, torch.full_like(x, 0.7))


def test_halving_weighs_one_four_six_four_one():
    line = torch.arange(9.0).square().view(1, 1, 1, 9).expand(1, 1, 9, 9)
    expected = (
        4 + 4 * 9 + 6 * 16 + 4 * 25 + 36
    ) / 16  # around the fourth pixel: 2, 3, 4, 5, 6 squared
    assert halve(line)[0, 0, 2, 2].item() == pytest.approx(expected)
    corner = (2 * 4 + 2 * 4 * 1) / 16  # reflected: 2, 1, 0, 1, 2 squared
    assert halve(line)[0, 0, 0, 0].item() == pytest.approx(corner)


@pytest.mark.parametrize("size, levels", [((32, 32), None), ((19, 26), 3), ((8, 11), 0)])
def test_the_pyramid_is_the_textbooks(size, levels):
    edit, image = pictures(2, 3, *size), pictures(1, 3, *size, seed=1)
    mask = (pictures(2, 1, *size, seed=2) + 1) / 2
    # By hand: a Laplacian pyramid of each, a Gaussian one of the mask, joined at every level.
    bands, a, b, m = [], edit, image, mask
    for _ in range(2 if levels is None else levels):
        small_a, small_b = halve(a), halve(b)
        fine_a, fine_b = (
            x - double(small, x.shape[-2:]) for x, small in ((a, small_a), (b, small_b))
        )
        bands.append(m * fine_a + (1 - m) * fine_b)
        a, b, m = small_a, small_b, halve(m)
    x = m * a + (1 - m) * b
    for band in reversed(bands):
        x = band + double(x, band.shape[-2:])
    torch.testing.assert_close(pyramid(mask, edit, image, levels), x, atol=1e-5, rtol=0)


def test_what_is_equal_stays_and_a_full_mask_gives_the_edit():
    edit, image = pictures(2, 3, 21, 34), pictures(2, 3, 21, 34, seed=1)
    mask = torch.zeros(1, 1, 21, 34)
    mask[..., 5:12, 8:20] = 1
    assert torch.equal(pyramid(mask, image, image), image)
    assert torch.equal(pyramid(0 * mask, edit, image), image)
    torch.testing.assert_close(pyramid(torch.ones_like(mask), edit, image), edit, atol=1e-6, rtol=0)


def test_far_from_the_mask_the_image_is_there_bit_for_bit_and_at_its_border_the_seam_is_gone():
    image, edit = torch.full((1, 3, 64, 64), -0.5), torch.full((1, 3, 64, 64), 0.5)
    mask = torch.zeros(1, 1, 64, 64)
    mask[..., :32] = 1  # touches three edges
    joined = pyramid(mask, edit, image, 2)
    assert (
        torch.equal(joined[..., 52:], image[..., 52:])
        and (joined[..., :12] - 0.5).abs().max() < 1e-6
    )
    # no jump of 1, no overshoot
    assert joined.diff(dim=-1).abs().max() < 0.2 and (joined.diff(dim=-1) <= 1e-6).all()


def test_without_levels_it_is_the_naive_paste():
    edit, image, mask = (
        pictures(1, 3, 16, 16),
        pictures(1, 3, 16, 16, seed=1),
        torch.ones(1, 1, 16, 16),
    )
    mask[..., :7] = 0
    torch.testing.assert_close(pyramid(mask, edit, image, 0), blend(mask, edit=edit, keep=image))


@pytest.mark.parametrize("levels", [-1, 6])
def test_a_picture_can_be_halved_only_so_often(levels):
    x = torch.zeros(1, 3, 33, 64)
    with pytest.raises(
        ValueError,
        match=f"levels is {levels}; a shorter side of 33 pixels can be halved 0 to 5 times",
    ):
        pyramid(x[:, :1], x, x, levels)
    pyramid(x[:, :1], x, x, 5)


def test_the_gradient_domain_needs_a_border():
    full, x = torch.ones(1, 1, 8, 8), pictures(1, 3, 8, 8)
    with pytest.raises(ValueError, match="white everywhere, so no border holds the edit"):
        poisson(full, edit=x, keep=-x)


def test_a_row_alone_is_joined_as_among_equal_rows():
    edit, keep = pictures(1, 1, 1, 8), pictures(1, 1, 1, 8).flip(-1)
    mask = torch.zeros(1, 1, 1, 8)
    mask[..., 2:5] = 1
    tall = [x.expand(1, 1, 4, 8) for x in (mask, edit, keep)]
    torch.testing.assert_close(poisson(mask, edit, keep), poisson(*tall)[..., :1, :])
    torch.testing.assert_close(poisson(mask.mT, edit.mT, keep.mT), poisson(mask, edit, keep).mT)


def test_the_gradient_domain_takes_no_greys():
    x = pictures(1, 3, 8, 8)
    with pytest.raises(ValueError, match="the mask has greys"):
        poisson(torch.full((1, 1, 8, 8), 0.6), edit=x, keep=-x)
