"""Checkers of notebook 02, per-step blending."""

from collections.abc import Callable

import torch

from ...blend import blend
from ...clip_guidance import Guiding
from ...noise import Noise
from ...papers.blended import blended_steps
from ...sampler import Step
from ...schedule import Schedule
from .common import advise, close, fresh, guarded, say, sized, tensor, tried, writes


def blended_step(x, t_next, source, mask, schedule, noise):
    """The package's blend after a move to level t_next, for `attempt`."""
    step = Step(0, t_next, t_next, x, x0_hat=x, eps=x, var=0.0, grad=None)
    steps = blended_steps([step], source, [mask], schedule, Guiding(), lambda: noise)
    return next(steps).x


@guarded
def check_02_1(skip_for: Callable) -> bool:
    """skip_for(schedule, steps, least) -> the least k / steps whose first level has a >= least."""
    schedule, steps = Schedule.scaled_linear(), 25
    few = Schedule(torch.tensor([0.9, 0.5, 0.25, 0.1], dtype=torch.float64))  # a = 0.5 at level 2
    right = [
        next(
            k / steps
            for k in range(steps)
            if schedule.levels(schedule.timesteps(steps, k / steps)[0])[0] >= a
        )
        for a in (0.2, 0.5, 0.8)
    ]
    mine = tried(lambda: [skip_for(schedule, steps, a) for a in (0.2, 0.5, 0.8)])
    if mine is not None:
        mine = [float(skip) for skip in mine]
        later = [skip + 1 / steps for skip in right]
        wrong = {
            "a share, not a number of steps: divide by steps.": max(mine) > 1,
            "one step too late: at least means >=.": all(
                abs(m - r) < 1e-6 for m, r in zip(mine, later, strict=True)
            ),
            "for each skip: which level is the first one, and how large is its a?": any(
                abs(m - r) > 1e-6 for m, r in zip(mine, right, strict=True)
            ),
            "a level whose a is just least counts, too: at least means >=.": not close(
                skip_for(few, 4, 0.5), torch.tensor(0.25)
            ),
        }
        return advise(wrong, "the later the start, the more of a scribble is left.")


@guarded
def check_02_2(canvas_mask: Callable) -> bool:
    """canvas_mask(height, width, grow) -> (1,1,height,width+2*grow), 1 where the canvas is new."""
    mine = tried(canvas_mask, 4, 6, 3)
    if mine is not None:
        right = torch.ones(1, 1, 4, 12)
        right[..., 3:9] = 0
        still = tensor(canvas_mask(4, 6, 0))
        wrong = {
            "1 is edit: the new columns, not the picture.": close(mine, 1 - right),
            "a mask has four axes: (1, 1, height, width + 2 * grow).": tensor(mine) is not None
            and tensor(mine).dim() != 4,
            "the canvas grows on both sides: width + 2 * grow.": not sized(mine, right),
            "the columns of the picture must be 0.": close(mine, torch.ones_like(right)),
            "with grow = 0 nothing is empty: mind the slice that ends at -0.": not close(
                still, torch.zeros(1, 1, 4, 6)
            ),
            "the picture is in the middle, with grow columns on each side.": not close(mine, right),
        }
        return advise(wrong, "the picture in the middle, and empty columns on both sides.")


@guarded
def check_02_3(two_bands: Callable) -> bool:
    """two_bands(mask, edit, keep, blur) -> a pyramid of two bands."""
    noise = Noise(8, 2, "initial")((3, 8, 8))
    edit, keep, mask = noise[:1], noise[1:], torch.zeros(1, 1, 8, 8)
    mask[..., 2:6, 2:6] = 1
    blur = lambda x: torch.nn.functional.avg_pool2d(x, 3, 1, 1, count_include_pad=False)  # noqa: E731
    mine = tried(two_bands, mask, edit, keep, blur)
    if mine is not None:
        coarse, fine = (
            blend(blur(mask), blur(edit), blur(keep)),
            blend(mask, edit - blur(edit), keep - blur(keep)),
        )
        wrong = {
            "that is the naive paste: blur the mask of the coarse band.": close(
                mine, blend(mask, edit, keep)
            ),
            "that is a soft mask: the fine band keeps the sharp one.": close(
                mine, blend(blur(mask), edit, keep)
            ),
            "that is the coarse band alone: add the fine one.": close(mine, coarse),
            "coarse: all three blurred. Fine: what the blur took away, under the sharp mask.": not close(  # noqa: E501
                mine, coarse + fine
            ),
        }
        return advise(wrong, "colours change slowly across the border, details at once.")


@guarded
def check_02_4(my_score: Callable) -> bool:
    """my_score(inside, whole) -> scores (n,), smaller is better, from CLIP's two distances (n,)."""
    my_score = fresh(my_score)
    inside, whole = torch.special.ndtr(Noise(9, 2, "initial")((60,)))  # in (0, 1), as distances
    mine = tried(my_score, inside, whole)
    if mine is None:
        return None
    if not sized(mine, inside):
        return say(False, "", "one number for each result: a tensor (n,).")
    mine = tensor(mine).flatten()
    turned = tensor(my_score(inside.flip(0), whole.flip(0))).flatten().flip(0)
    order, better = mine.argsort().tolist(), tensor(my_score(inside / 2, whole / 2)).flatten()

    def worse(i):
        """Whether result i gets a larger score when one of its distances falls."""
        one = torch.where(torch.arange(len(mine)) == i, 0.5, 1.0)
        scores = my_score(one * inside, whole), my_score(inside, one * whole)
        return any(tensor(each).flatten()[i] > mine[i] + 1e-6 for each in scores)

    known = {
        "the mask alone": inside,
        "the whole picture alone": whole,
        "their mean": inside + whole,
    }
    wrong = {
        "all results have the same score: that is no order.": bool(mine.std() < 1e-6),
        "the place in the list must not matter.": not close(turned, mine),
        "smaller distances must give a smaller score.": bool((better >= mine).any()),
        "one distance fell, the other did not change, and the score rose.": any(
            map(worse, range(len(mine)))
        ),
    } | {
        f"that is {name}, which the package knows: try another.": order == x.argsort().tolist()
        for name, x in known.items()
    }
    return advise(wrong, "an order of your own. Does it find whole objects more often?")


@writes("my_blended_step")
def check_02_5(my_blended_step: Callable) -> bool:
    """my_blended_step(x, t_next, source, mask, schedule, noise) -> the state with the source put
    back outside the mask, at the level that x is on.
    """
    schedule, mask = Schedule.scaled_linear(), torch.zeros(1, 1, 4, 4)
    mask[..., 1:3, 1:3] = 1
    x, source, noise = Noise(16, 3, "initial")((3, 4, 4)).split(1)
    mine_of, given = fresh(my_blended_step), (source.clone(), mask.clone())
    mine = tried(mine_of, x, 400, source, mask, schedule, noise)
    if mine is None:
        return None
    my_blended_step(x.clone(), 400, *given, schedule, noise.clone())
    keep = schedule.add_noise(source, 400, noise)
    end = mine_of(x, -1, source, mask, schedule, noise)
    wrong = {
        "1 is edit: x inside, the source outside.": close(mine, blend(1 - mask, x, keep)),
        "the source is clean and x is noisy: bring it to the level of x first.": close(
            mine, blend(mask, x, source)
        ),
        "outside there is noise alone, without the source.": close(mine, blend(mask, x, noise)),
        "that noises the edit too; only the source has to be noised.": close(
            mine, schedule.add_noise(blend(mask, x, source), 400, noise)
        ),
        "the noised source outside, x inside.": not close(mine, blend(mask, x, keep)),
        "the next move needs source and mask again: do not change them.": not (
            torch.equal(given[0], source) and torch.equal(given[1], mask)
        ),
        "at level -1 the outside has to be the source itself.": not close(
            end, blend(mask, x, source)
        ),
    }
    return advise(wrong, "with guidance, this is the whole of algorithm 2.")
