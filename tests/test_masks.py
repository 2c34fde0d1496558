"""Masks at latent size: each rule is the reference it claims to be, and no stage of a schedule is
skipped.
"""

import numpy as np
import pytest
import scipy.ndimage
import torch
import torch.nn.functional as F
from PIL import Image

from blendlab import masks

# (H, W) -> (h, w): the factors 4 and 8, odd ones, and two with exact ties between pixels
SIZES = [
    ((64, 64), (16, 16)),
    ((96, 64), (12, 8)),
    ((37, 50), (9, 16)),
    ((61, 29), (13, 29)),
    ((8, 14), (6, 5)),
    ((12, 120), (9, 77)),
]


def noise(size, share=0.4, seed=0):
    return (torch.rand(1, 1, *size, generator=torch.Generator().manual_seed(seed)) < share).float()


def line(size=64, at=33, thickness=1):
    """A vertical line, in columns at .. at+thickness-1."""
    mask = torch.zeros(1, 1, size, size)
    mask[..., at : at + thickness] = 1
    return mask


@pytest.mark.parametrize("full, small", SIZES)
def test_corner_is_torch_nearest(full, small):
    mask = noise(full)
    assert torch.equal(
        masks.to_latent(mask, small, "corner"), F.interpolate(mask, small, mode="nearest")
    )


@pytest.mark.parametrize("full, small", SIZES)
def test_centre_is_pil_nearest(full, small):
    mask = noise(full)
    picture = Image.fromarray((mask[0, 0] * 255).byte().numpy())
    reference = np.asarray(picture.resize((small[1], small[0]), Image.Resampling.NEAREST)) / 255
    assert np.array_equal(masks.to_latent(mask, small)[0, 0].numpy(), reference)


def test_corner_and_centre_read_different_pixels_of_a_block():
    mask = torch.arange(64.0).view(1, 1, 8, 8)
    assert masks.to_latent(mask, (2, 2), "corner").flatten().tolist() == [0, 4, 32, 36]
    assert masks.to_latent(mask, (2, 2), "centre").flatten().tolist() == [18, 22, 50, 54]


def test_area_and_any_are_the_mean_and_the_maximum_of_a_block():
    mask = noise((64, 64), 0.1)
    blocks = mask.view(16, 4, 16, 4).permute(0, 2, 1, 3).flatten(2)
    assert torch.allclose(masks.to_latent(mask, (16, 16), "area")[0, 0], blocks.mean(2))
    assert torch.equal(masks.to_latent(mask, (16, 16), "any")[0, 0], blocks.amax(2))


@pytest.mark.parametrize("rule", masks.RULES)
def test_the_rules_agree_on_whole_blocks(rule):
    small = noise((8, 12))
    mask = small.repeat_interleave(4, 2).repeat_interleave(4, 3)
    assert torch.equal(masks.to_latent(mask, (8, 12), rule), small)
    assert masks.survival(mask, (8, 12), rule) == 1


@pytest.mark.parametrize("rule, share", [("corner", 0), ("centre", 0), ("area", 0.25), ("any", 1)])
def test_a_thin_line_between_the_samples_vanishes_or_not_by_rule(rule, share):
    assert masks.survival(line(at=33), (16, 16), rule) == share


@pytest.mark.parametrize("at, share", [(32, 0), (33, 0), (34, 1), (35, 0)])
def test_a_thin_line_survives_the_centre_rule_in_one_place_of_four(at, share):
    assert masks.survival(line(at=at), (16, 16)) == share


@pytest.mark.parametrize("full, small", SIZES)
def test_any_loses_nothing(full, small):
    assert masks.survival(noise(full, 0.05), small, "any") == 1


def test_a_vanishing_mask_is_refused_with_the_fix():
    fix = (
        "vanishes at latent size 16x16 by the rule 'centre': paint it thicker, or choose "
        "the rule 'any'"
    )
    with pytest.raises(ValueError, match=fix):
        masks.to_latent(line(at=33), (16, 16))
    with pytest.raises(ValueError, match="vanishes"):  # one of two is enough
        masks.to_latent(torch.cat([line(at=34), line(at=33)]), (16, 16))
    assert masks.to_latent(line(at=33), (16, 16), allow_empty=True).sum() == 0


def test_an_unknown_rule_is_refused_and_the_rules_named():
    with pytest.raises(ValueError, match="'nearest'; choose 'corner' or 'centre' or 'area' or"):
        masks.to_latent(line(), (16, 16), "nearest")


@pytest.mark.parametrize("radius", [0, 1, 2, 5])
def test_dilate_is_dilation_by_a_square(radius):
    mask = noise((40, 56), 0.02)
    side = 2 * radius + 1
    reference = scipy.ndimage.binary_dilation(mask[0, 0].numpy() > 0, np.ones((side, side)))
    assert np.array_equal(masks.dilate(mask, radius)[0, 0].numpy() > 0, reference)


def dot():
    mask_small = torch.zeros(1, 1, 16, 16)
    mask_small[..., 8, 8] = 1
    return mask_small


def test_shrinking_has_the_papers_squares_in_four_equal_parts():
    areas = [int(m.sum()) for m in masks.stages(dot(), steps=40)]
    assert areas == [49] * 10 + [25] * 10 + [9] * 10 + [1] * 10


@pytest.mark.parametrize("steps", [4, 5, 25, 38, 50])
@pytest.mark.parametrize("count", [0, 1, 3])
def test_every_stage_is_reached_and_the_mask_itself_is_last(steps, count):
    plan = masks.stages(dot(), steps, radii=range(1, count + 1))
    areas = [int(m.sum()) for m in plan]
    assert len(plan) == steps and torch.equal(plan[-1], dot())
    assert areas == sorted(areas, reverse=True) and len(set(areas)) == count + 1


@pytest.mark.parametrize("count", [9, 10, 11, 13])
def test_the_mask_is_reached_where_the_official_schedule_stays_dilated(count):
    official = max(
        i // (50 // (count + 1) + 1) for i in range(50)
    )  # ldm/models/diffusion/ddim.py:223-226
    assert official < count
    assert torch.equal(masks.stages(dot(), 50, radii=range(1, count + 1))[-1], dot())


def test_too_few_steps_for_the_stages_are_refused():
    with pytest.raises(
        ValueError, match="3 steps cannot pass through 4 masks: take at least 4 steps, or fewer"
    ):
        masks.stages(dot(), steps=3)


def test_a_box_goes_to_a_mask_and_back():
    box = (0.25, 0.125, 0.75, 0.5)
    mask = masks.from_box(box, (32, 64))
    assert mask.shape == (1, 1, 32, 64) and mask.sum() == 32 * 12
    assert mask[0, 0, 4:16, 16:48].min() == 1
    assert masks.box(mask) == box


def test_the_whole_picture_is_a_box():
    assert masks.from_box((0, 0, 1, 1), (5, 7)).min() == 1
    assert masks.box(torch.ones(1, 1, 5, 7)) == (0, 0, 1, 1)


BAD_BOXES = [
    ((0.5, 0.5, 1.2, 1), "leaves the picture: corners are fractions"),
    ((-0.1, 0, 1, 1), "leaves the picture"),
    ((10, 20, 30, 40), "divide x by its width and y by its height"),
    ((0.6, 0, 0.4, 1), "is empty: give left, top, right, bottom"),
    ((0.1, float("nan"), 0.4, 1), "is empty: give left"),
    ((0.51, 0.51, 0.52, 0.52), "holds no pixel of 8x8: make it larger"),
]


@pytest.mark.parametrize("box, sentence", BAD_BOXES)
def test_boxes_that_are_none_are_refused(box, sentence):
    with pytest.raises(ValueError, match=sentence):
        masks.from_box(box, (8, 8))


def test_box_refuses_an_empty_mask_and_several():
    with pytest.raises(ValueError, match="black everywhere, so it has no box"):
        masks.box(torch.zeros(1, 1, 4, 4))
    with pytest.raises(ValueError, match="there are 2 masks: box takes one"):
        masks.box(torch.ones(2, 1, 4, 4))


# What vanishes is said


def square_and_spot():
    """A square of 16x16 pixels, and a spot of 2x2 that the centres of 4x4 cells miss."""
    mask = torch.zeros(1, 1, 64, 64)
    mask[..., 8:24, 8:24] = 1
    mask[..., 40:42, 48:50] = 1
    return mask


@pytest.mark.parametrize("rule", ["centre", "corner"])
def test_a_part_that_vanishes_is_named_once_with_the_fix(rule):
    mask = square_and_spot()
    if rule == "corner":
        mask = mask.roll((1, 1), (2, 3))
    with pytest.warns(UserWarning) as caught:
        masks.to_latent(mask, (16, 16), rule)
    (text,) = [str(w.message) for w in caught]
    at = "x 48 to 49, y 40 to 41" if rule == "centre" else "x 49 to 50, y 41 to 42"
    assert text.startswith(f"4 pixels of the mask in 1 part (the first at {at}) vanish")
    assert text.endswith("paint them thicker, or take the rule 'any' (a method's mask_rule=)")


@pytest.mark.filterwarnings("error")
def test_what_does_not_vanish_is_not_warned_of():
    masks.to_latent(square_and_spot(), (16, 16), "any")
    masks.to_latent(square_and_spot(), (16, 16), "area")
    masks.to_latent(square_and_spot(), (16, 16), allow_empty=True)
    masks.to_latent(masks.dilate(square_and_spot(), 2), (16, 16))  # thicker
    masks.to_latent(square_and_spot()[..., :32, :], (8, 16))


def test_of_a_batch_the_parts_are_counted_together():
    several = torch.cat([square_and_spot(), square_and_spot()])
    with pytest.warns(UserWarning, match="^8 pixels of the mask in 2 parts"):
        masks.to_latent(several, (16, 16))


def test_an_empty_mask_has_no_share_that_survives():
    with pytest.raises(ValueError, match="black everywhere, so nothing of it can survive"):
        masks.survival(torch.zeros(1, 1, 8, 8), (2, 2))


def test_strengths_start_with_white_and_let_darker_greys_in_later():
    grey = torch.tensor([0.0, 0.2, 0.5, 0.75, 1.0]).view(1, 1, 1, 5)
    moves = torch.cat(masks.strengths(grey, 4)).flatten(1)  # (4,5)
    assert moves.tolist() == [[0, 0, 0, 0, 1], [0, 0, 0, 1, 1], [0, 0, 1, 1, 1], [0, 0, 1, 1, 1]]
    assert (moves.diff(dim=0) >= 0).all() and (moves.diff(dim=1) >= 0).all()


def test_the_darkest_grey_that_counts_is_not_refused():
    for moves in (25, 29, 50, 100):  # of which 1 / moves is rounded up in float32
        assert masks.strengths(torch.full((1, 1, 4, 4), 1 / moves), moves)[-1].all()


def test_strengths_of_black_and_white_are_the_mask_itself():
    binary = (torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(0)) > 0.5).float()
    assert all(torch.equal(now, binary) for now in masks.strengths(binary, 7))


@pytest.mark.parametrize("top, left", [(0, 0), (20, 30), (54, 80)])
def test_the_window_is_a_square_around_the_mask_inside_the_picture(top, left):
    mask = torch.zeros(1, 1, 64, 96)
    mask[..., top : top + 10, left : left + 16] = 1
    x0, y0, x1, y1 = masks.square_around(mask, 1.5)
    assert (y1 - y0, x1 - x0) == (24, 24) and 0 <= y0 and 0 <= x0 and y1 <= 64 and x1 <= 96
    assert mask[..., y0:y1, x0:x1].sum() == mask.sum()


@pytest.mark.parametrize("width, least, square", [
    (4, 16, (8, 0, 24, 16)),
    (15, 16, (11, 0, 31, 20)),
    (28, 16, (0, 0, 64, 32)),
    (4, 32, (0, 0, 64, 32)),
])  # fmt: skip
def test_the_square_leaves_a_third_around_the_mask_or_is_the_whole(width, least, square):
    mask = torch.zeros(1, 1, 32, 64)
    mask[..., 1:5, 14 : 14 + width] = 1
    assert masks.square(mask, least, step=4) == square


def test_a_mask_that_no_square_holds_is_refused():
    mask = torch.zeros(1, 1, 32, 96)
    mask[..., 8:16, 10:80] = 1
    with pytest.raises(ValueError, match="the mask is 70x8, and no square.*leave around= out"):
        masks.square_around(mask, 1.5)
