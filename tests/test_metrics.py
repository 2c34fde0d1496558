"""Metrics against closed forms, and against a judge that reads the truth."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from blendlab import world
from blendlab.blend import blend
from blendlab.measuring import metrics
from blendlab.networks.judge import Judge, Verdict


class Oracle(Judge):
    """A judge that knows the pictures of a view by heart: Judge's own rules on labels that are
    true.
    """

    def __init__(self, view):
        super().__init__(world.KINDS, world.COLOURS, widths=(8, 8))
        self.view = view

    def forward(self, images):
        same = (images[:, None] == self.view.image).flatten(2).all(2)  # (B,known)
        known = same.float().argmax(1)
        kinds = F.one_hot(self.view.kinds()[known], 1 + len(self.kinds))
        colours = F.one_hot(self.view.colours()[known], 1 + len(self.colours))
        assert same.any(1).all()
        return Verdict(kinds.movedim(-1, 1).float(), colours.movedim(-1, 1).float())


@pytest.fixture(scope="module")
def tasks():
    return metrics.tasks(20)


# Numbers


def test_psnr_is_that_of_torchmetrics():
    from torchmetrics.functional.image import peak_signal_noise_ratio

    a, b = torch.rand(2, 1, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    theirs = peak_signal_noise_ratio(a, b, data_range=2.0).item()
    assert metrics.psnr(a, b).item() == pytest.approx(theirs, rel=1e-5)


@pytest.mark.parametrize("k, n", [(0, 50), (50, 50), (1, 3), (166, 200), (98, 2000)])
def test_a_share_has_wilsons_interval(k, n):
    from scipy.stats import binomtest

    value, low, high = metrics.proportion(k, n)
    wilson = binomtest(k, n).proportion_ci(method="wilson")
    assert value == k / n and low <= value + 1e-12 and value <= high + 1e-12
    assert (low, high) == pytest.approx((wilson.low, wilson.high), abs=1e-6)


def test_of_no_successes_the_interval_still_has_a_width():
    z = 1.959964
    assert metrics.proportion(0, 10) == pytest.approx((0, 0, z**2 / (10 + z**2)))


@pytest.mark.parametrize("k, n", [(0, 0), (3, 2), (-1, 5)])
def test_a_share_of_nothing_is_refused(k, n):
    with pytest.raises(ValueError, match="no share"):
        metrics.proportion(k, n)


def test_a_mean_has_students_interval():
    # 1, 2, 3: mean 2, standard error 1/sqrt(3), two degrees of freedom
    half = 4.302653 / math.sqrt(3)
    assert metrics.mean([1, 2, 3]) == pytest.approx((2, 2 - half, 2 + half), abs=1e-6)
    assert metrics.mean(torch.tensor([5.0, 5.0])) == (5, 5, 5)


def test_one_value_has_no_interval():
    value, low, high = metrics.mean([7.0])
    assert value == 7 and math.isnan(low) and math.isnan(high)


# Pictures


def test_a_hundredth_of_the_range_is_40_decibels():
    a = torch.zeros(2, 3, 8, 8)
    b = a + torch.tensor([0.02, 0.2])[:, None, None, None]
    assert metrics.psnr(a, b).tolist() == pytest.approx([40, 20], abs=1e-4)
    assert metrics.psnr(a, a).tolist() == [math.inf, math.inf]


def test_pictures_in_0_to_1_are_named():
    a = torch.zeros(1, 3, 8, 8)
    with pytest.warns(UserWarning, match=r"b has values from 0 to 0.5.*pass b \* 2 - 1"):
        metrics.psnr(a, torch.linspace(0, 0.5, 192).view(a.shape))


def test_the_background_error_is_that_outside_the_mask():
    image, mask = torch.zeros(1, 3, 8, 8), torch.zeros(1, 1, 8, 8)
    mask[..., :4] = 1
    result = image.repeat(2, 1, 1, 1)
    result[0, ..., :4] = 1.0  # inside: does not count
    result[1, :, :4] = 0.2  # half of what is outside, by a tenth of the range
    error = metrics.background_error(result, image, mask)
    assert error.tolist() == pytest.approx([0, 0.1 / math.sqrt(2)])
    assert metrics.decibels(error)[1] == pytest.approx(20 + 10 * math.log10(2))


def box(size=32, low=8, high=20):
    mask = torch.zeros(1, 1, size, size)
    mask[..., low:high, low:high] = 1
    return mask


def test_a_ramp_has_no_seam_and_a_step_on_it_has_as_much_of_one_as_it_exceeds_the_ramp():
    ramp = torch.linspace(-1, 0.24, 32).expand(
        1, 3, 32, 32
    )  # jumps of 0.04 along the rows, none down the columns
    mask = torch.zeros(1, 1, 32, 32)
    mask[..., 16:] = 1  # touches three edges: only the border inside the picture counts
    assert metrics.seam(ramp, mask).item() == pytest.approx(1, abs=1e-4)
    grey = 2 / 255
    for step in (0.04, 0.2, 0.6):
        expected = (0.04 + step + grey) / (0.04 + grey)
        assert metrics.seam(ramp + step * mask, mask).item() == pytest.approx(expected, rel=1e-3)


def test_the_ring_says_how_far_close_by_is():
    picture = torch.zeros(1, 3, 32, 32)
    mask = torch.zeros(1, 1, 32, 32)
    mask[..., 16:] = 1
    picture[..., 19:] = 1.0  # a jump three pixels behind the border
    grey = 2 / 255
    assert metrics.seam(picture, mask, ring=2).item() == pytest.approx(1)
    assert metrics.seam(picture, mask, ring=3).item() == pytest.approx(grey / (1 / 6 + grey))
    assert metrics.seam(picture, mask, ring=5).item() == pytest.approx(grey / (1 / 10 + grey))


def test_a_flat_picture_has_no_seam():
    assert metrics.seam(torch.full((2, 3, 32, 32), 0.3), box()).tolist() == [1, 1]


def test_the_source_has_no_visible_border_and_a_step_has_what_it_exceeds_the_source_by():
    ramp = torch.linspace(-1, 0.24, 32).expand(1, 3, 32, 32)  # jumps of 0.04 along the rows
    mask = torch.zeros(1, 1, 32, 32)
    mask[..., 16:] = 1
    assert metrics.border(ramp, ramp, mask).item() == 1
    usual = 0.04 / 2 + 2 / 255  # rows and columns
    for step in (0.1, 0.5):
        found = metrics.border(ramp + step * mask, ramp, mask).item()
        assert found == pytest.approx(1 + step / usual, rel=1e-3)
    assert metrics.border(ramp - 0.04 * mask, ramp, mask).item() == pytest.approx(1, abs=1e-4)


WITHOUT_BORDER = [torch.ones(1, 1, 32, 32), torch.zeros(1, 1, 32, 32)]
WITHOUT_BORDER += [torch.cat([box(), torch.ones(1, 1, 32, 32)])]


@pytest.mark.parametrize("mask", WITHOUT_BORDER)
def test_a_mask_without_a_border_has_no_seam_to_measure(mask):
    picture = torch.zeros(len(mask), 3, 32, 32)
    with pytest.raises(ValueError, match="no border inside the picture"):
        metrics.seam(picture, mask)
    with pytest.raises(ValueError, match="no border inside the picture"):
        metrics.border(picture, picture, mask)


def test_a_seam_without_neighbours_to_compare_with_is_refused():
    with pytest.raises(ValueError, match="a ring of 1 or more"):
        metrics.seam(torch.zeros(1, 3, 32, 32), box(), ring=0)


def test_a_full_mask_has_no_background():
    full, picture = torch.ones(1, 1, 8, 8), torch.zeros(2, 3, 8, 8)
    for mask in (full, torch.cat([box(8, 2, 4), full])):
        with pytest.raises(ValueError, match="white everywhere, so there is no background"):
            metrics.background_error(picture, picture, mask)


def test_no_values_have_no_mean():
    with pytest.raises(ValueError, match="no values"):
        metrics.mean([])


def test_half_of_four_has_the_interval_that_the_formula_gives_by_hand():
    # z = 1.959964, z^2 = 3.841459; middle (2/4 + z^2/8) / (1 + z^2/4) = 0.5, half
    # z / (1 + z^2/4) * sqrt(1/16 + z^2/64) = 0.349962
    assert metrics.proportion(2, 4) == pytest.approx((0.5, 0.150039, 0.849961), abs=2e-6)


def test_no_printed_digit_of_the_tables_changes():
    def by_hand(k, n, z=1.959964):
        p = k / n
        middle = (p + z**2 / (2 * n)) / (1 + z**2 / n)
        half = z / (1 + z**2 / n) * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
        return p, max(0.0, middle - half), min(1.0, middle + half)

    for n in (1, 3, 48, 100, 200, 500):
        for k in range(n + 1):
            for now, before in zip(metrics.proportion(k, n), by_hand(k, n), strict=True):
                assert abs(now - before) < 1e-7


def test_rows_and_columns_and_pictures_and_masks_are_alike():
    picture = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    mask = torch.cat(
        [box(), box(32, 0, 9), box(32, 20, 32)]
    )  # two of them in corners of the picture
    each = metrics.seam(picture, mask)
    torch.testing.assert_close(each, metrics.seam(picture.mT, mask.mT))
    torch.testing.assert_close(each, metrics.seam(picture.flip(-1), 1 - mask.flip(-1)))
    torch.testing.assert_close(each[1:2], metrics.seam(picture[1:2], mask[1:2]))
    assert (each - 1).abs().max() < 0.2  # of noise, no jump is larger than its neighbours


def test_an_object_pasted_from_another_light_shows_a_seam_and_an_untouched_picture_none(tasks):
    assert metrics.seam(tasks.image, tasks.mask).mean().item() == pytest.approx(1, abs=0.15)
    later = {"day": "sunset", "sunset": "night", "night": "day"}
    times = [later[world.TIMES[t]] for t in tasks.scenes.time[:6].tolist()]
    lit = torch.cat(
        [
            world.render(world.elsewhere(tasks.scenes[[i]], time=t)).image
            for i, t in enumerate(times)
        ]
    )
    mask, image = tasks.mask[:6], tasks.image[:6]
    joined = blend(mask, edit=lit, keep=image)
    pasted = metrics.seam(joined, mask)
    assert (pasted > 1.5).all(), pasted
    seen = metrics.border(joined, image, mask)
    truth = metrics.border(tasks.truth[:6], image, mask)
    assert (seen > truth).all() and truth.mean() < 1.3, (seen, truth)


# Tasks


def test_a_task_depends_on_its_seed_and_number_alone(tasks):
    later = metrics.tasks(3, start=15)  # on both sides of a block's edge
    for name in ("image", "mask", "truth", "slot"):
        assert torch.equal(getattr(later, name), getattr(tasks, name)[15:18])
    assert (
        later.prompts == tasks.prompts[15:18]
        and later.kind == tasks.kind[15:18]
        and len(later) == 3
    )
    assert metrics.tasks(3, seed=world.HELD_OUT + 1).prompts != tasks.prompts[:3]


def test_size_only_says_how_finely_a_task_is_drawn(tasks):
    fine = metrics.tasks(4, size=128)
    assert fine.prompts == tasks.prompts[:4] and fine.image.shape == (4, 3, 128, 128)
    share = [mask.mean((1, 2, 3)).tolist() for mask in (fine.mask, tasks.mask[:4])]
    assert share[0] == pytest.approx(share[1], abs=0.03)


def test_the_mask_holds_the_new_object_and_little_else_changes(tasks):
    view, each = world.render(tasks.scenes), torch.arange(20)
    new = view.masks[each, tasks.slot][:, None] > 0.5
    assert (new & (tasks.mask == 0)).sum() == 0
    assert (new.float().mean((1, 2, 3)) > 0.009).all()
    assert set(tasks.mask.unique().tolist()) == {0, 1} and (tasks.mask.mean((1, 2, 3)) < 0.6).all()
    assert torch.equal(view.image, tasks.truth)
    changed = (tasks.truth - tasks.image).abs().mean(1, keepdim=True)
    inside = (changed * tasks.mask).sum((1, 2, 3)) / tasks.mask.sum((1, 2, 3))
    outside = (changed * (1 - tasks.mask)).sum((1, 2, 3)) / (1 - tasks.mask).sum((1, 2, 3))
    assert (inside > 0.05).all() and (outside < 0.05).all()  # shadows and glows leave the mask


def test_prompts_name_the_object_that_the_truth_has_and_the_source_lacks(tasks):
    before = world.without(tasks.scenes, tasks.slot)
    assert (before.count == tasks.scenes.count - 1).all() and (before.count <= 2).all()
    assert torch.equal(world.render(before).image, tasks.image)
    for prompt, kind, colour in zip(tasks.prompts, tasks.kind, tasks.colour, strict=True):
        assert prompt.split()[1:] == [colour, kind]
    assert len(set(tasks.kind)) > 8


@pytest.mark.parametrize("n, start", [(0, 0), (3, -1)])
def test_tasks_that_do_not_exist_are_refused(n, start):
    with pytest.raises(ValueError, match="n of 1 or more"):
        metrics.tasks(n, start)


def test_a_box_becomes_the_pixels_whose_middle_it_holds():
    mask = metrics.box_mask(torch.tensor([[0.25, 0.5, 0.75, 1.0], [0, 0, 1, 1]]), 4)
    assert mask[0, 0].tolist() == [[0, 0, 0, 0]] * 2 + [[0, 1, 1, 0]] * 2
    assert mask[1].min() == 1


# The judge


def test_the_truth_is_always_right(tasks):
    kind, both = metrics.precision(Oracle(world.render(tasks.scenes)), tasks.truth, tasks)
    assert kind.all() and both.all() and kind.shape == (20,)


def test_another_colour_is_half_right_and_nothing_is_wrong(tasks):
    other = (tasks.scenes.colour[torch.arange(20), tasks.slot] + 1) % len(world.COLOURS)
    view = world.render(world.changed(tasks.scenes, tasks.slot, colour=other))
    with pytest.raises(ValueError, match="pass one for each"):
        metrics.precision(Oracle(view), view.image[:1], tasks)
    kind, both = metrics.precision(Oracle(view), view.image, tasks)
    assert kind.all() and not both.any()
    view = world.render(world.without(tasks.scenes, tasks.slot))
    kind, both = metrics.precision(Oracle(view), tasks.image, tasks)
    assert kind.sum() <= 2  # a scene may hold one of that class there already


def test_each_result_meets_its_own_task(tasks):
    swapped = replace(tasks, kind=[tasks.kind[1], tasks.kind[0], *tasks.kind[2:]])
    kind, _ = metrics.precision(Oracle(world.render(tasks.scenes)), tasks.truth, swapped)
    assert tasks.kind[0] != tasks.kind[1] and kind.tolist() == [False] * 2 + [True] * 18
