"""Checkers of notebook 08, measuring edits."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ...blend import blend
from ...masks import dilate, rms
from .common import Verdict, advise, close, guarded, say, smooth_pictures, tensor, tried, writes

SLIPS = ("pasted first", "columns exchanged", "too few", "whole mask", "fine")
FOUND = dict(zip("ABCDE", ("pasted first", "too few", "whole mask", "fine", "columns exchanged"),
                 strict=True))  # fmt: skip


def protocol(right: Tensor, liked: Tensor, far: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The package's three numbers, for `attempt`."""
    best = right.gather(1, liked.argmin(1, keepdim=True))
    pairs = right[:, :, None] & right[:, None] & (far.new_ones(far.shape[1:]).triu(1) > 0)
    spread = [d[both].mean() for d, both in zip(far, pairs, strict=True)]  # NaN without a pair
    return right.float().mean(), best.float().mean(), torch.stack(spread).nanmean()


def _scenes():
    """Four scenes of five results: none right, one, two and four of them."""
    right = torch.tensor([[0, 0, 0, 0, 0], [0, 0, 1, 0, 0], [1, 0, 0, 1, 0], [1, 1, 0, 1, 1]])
    draw = torch.Generator().manual_seed(8)
    liked = torch.rand(4, 5, generator=draw)
    liked[1, 2], liked[2, 0], liked[3, 2] = 0.01, 0.99, 0.005
    liked[[0, 1, 3], 3] = 0.02  # small on average, and never in the middle scenes the smallest
    far = torch.rand(4, 5, 5, generator=draw) * torch.arange(1, 5).view(4, 1, 1)
    far = (far + far.mT) * (1 - torch.eye(5))
    return right.bool(), liked, far


@writes("my_protocol")
def check_08_1(my_protocol: Callable) -> Verdict | None:
    """my_protocol(right, liked, far) -> batch precision, best-result precision, diversity.

    right (n,B) bool: the judge sees the class; liked (n,B): CLIP's distance; far (n,B,B): the
    distance of each two results of a scene.
    """
    right, liked, far = _scenes()
    mine = tried(my_protocol, right, liked, far)
    if mine is None:
        return None
    mine = tensor(mine)
    if mine is None or mine.numel() != 3:
        return say(False, "", "three numbers have to come out: batch, best, diversity.")
    batch, best, spread = mine.flatten()
    want = protocol(right, liked, far)
    share = right.float()
    all_pairs = far.sum((1, 2)) / 20
    pairs = (share[:, :, None] * share[:, None] * far).sum((1, 2))
    count = share.sum(1)
    some = count > 1
    each = pairs[some] / (count * (count - 1))[some]
    wrong = {
        "their order: batch precision, best-result precision, diversity.": not close(mine, want)
        and close(mine.sort().values, torch.stack(want).sort().values),
        "batch precision is the share of all n * B results.": not close(batch, want[0]),
        "there the judge chose. CLIP chooses the best result, and it may be wrong.": close(
            best, share.amax(1).mean()
        ),
        "the best result is the one that fits best: is its CLIP distance large or small?": close(
            best, share.gather(1, liked.argmax(1, keepdim=True)).mean()
        ),
        "the best result: one of each scene, and how many of these are right.": not close(
            best, want[1]
        ),
        "diversity is NaN: leave out scenes with fewer than two right results.": bool(
            spread.isnan()
        ),
        "only right results count: wrong ones easily differ much.": close(spread, all_pairs.mean())
        or close(spread, all_pairs[some].mean()),
        "a result and itself are no pair.": close(spread, (pairs[some] / count[some] ** 2).mean()),
        "half of the right number: k results have k * (k - 1) / 2 pairs, and a scene without a "
        "pair has no diversity, which is not 0.": close(spread, each.sum() / 4),
        "a mean of each scene first, then over scenes: else one scene has most of the pairs.": (
            close(spread, pairs[some].sum() / (count * (count - 1)).sum())
        ),
        "the mean of far over all pairs i < j of right results, then over scenes.": not close(
            spread, want[2]
        ),
    }
    return advise(wrong, "three numbers: what is right, what CLIP would pick, how results differ.")


@guarded
def check_08_2(my_margin: Callable) -> Verdict | None:
    """my_margin(right) -> half the width of the 95% interval of batch precision, over scenes."""
    draw = torch.Generator().manual_seed(9)
    easy = torch.rand(30, 1, generator=draw)  # results of one scene succeed together
    right = torch.rand(30, 8, generator=draw) < easy
    mine = tried(my_margin, right)
    if mine is None:
        return None
    mine = tensor(mine)
    if mine is None or mine.numel() != 1:
        return say(False, "", "one number has to come out.")
    mine, scenes = mine.item(), right.float().mean(1)
    want = 1.96 * scenes.std().item() / 30**0.5
    p = right.float().mean().item()
    near = lambda other: abs(mine - other) < 0.03 * other  # noqa: E731
    wrong = {
        "this takes all 240 results for independent: the unit is the scene.": near(
            1.96 * (p * (1 - p) / 240) ** 0.5
        ),
        "the spread of scenes, not of results: a mean for each scene first.": near(
            1.96 * (p * (1 - p) / 30) ** 0.5
        ),
        "that is one standard error; 95% takes 1.96 of them.": near(want / 1.96),
        "that is the whole width of the interval, not half of it.": near(2 * want),
        "that is the spread of single scenes: a mean of n scenes varies less.": near(
            want * 30**0.5
        ),
        "1.96 times the deviation of the scenes' means, over the root of n.": not abs(mine - want)
        <= 0.06 * want,
    }
    return advise(wrong, "wider than for 240 independent results, as it must be.")


@guarded
def check_08_3(my_findings: Callable) -> Verdict | None:
    """my_findings() -> {report: slip} for the reports A to E."""
    mine = tried(my_findings)
    if mine is None:
        return None
    try:
        mine = {str(k).strip().upper(): str(v).strip().lower() for k, v in dict(mine).items()}
    except (TypeError, ValueError):
        return say(False, "", 'a dictionary, as in {"A": "fine", "B": ...}.')
    odd = [v for v in mine.values() if v not in SLIPS]
    hits = sum(mine.get(k) == v for k, v in FOUND.items())
    wrong = {
        "a verdict for each of A, B, C, D and E.": set(mine) != set(FOUND),
        f"{(odd or [''])[0]!r} is none of {', '.join(SLIPS)}.": bool(odd),
        "each slip was made once, and one report is fine.": len(set(mine.values())) < len(FOUND),
        f"{hits} of 5 are right. Make each number again, and compare.": hits < len(FOUND),
    }
    return advise(wrong, "all five. Such slips are easy to overlook.")


@guarded
def check_08_4(my_sign_test: Callable) -> Verdict | None:
    """my_sign_test(wins, losses) -> the two-sided p-value: as far from half, or further."""
    asked = [(14, 6), (6, 14), (5, 5), (0, 6), (9, 1)]
    mine = tried(lambda: [my_sign_test(*each) for each in asked])
    if mine is None:
        return None
    mine = tensor(mine)
    if mine is None or mine.numel() != len(asked):
        return say(False, "", "one number for each pair of wins and losses.")
    tail = lambda k, n: sum(math.comb(n, i) for i in range(k, n + 1)) / 2**n  # noqa: E731
    upper = torch.tensor([tail(max(w, m), w + m) for w, m in asked])
    exact = torch.tensor([math.comb(w + m, w) / 2 ** (w + m) for w, m in asked])
    want = (2 * upper).clamp(max=1)
    wrong = {
        "two-sided: as far from half in either direction.": close(mine, upper)
        or close(mine, torch.tensor([tail(w, w + m) for w, m in asked])),
        "not only exactly so many wins: also all that are further from half.": close(mine, exact)
        or close(mine, (2 * exact).clamp(max=1)),
        "a probability is at most 1: with 5 and 5, p is 1.": bool((mine > 1 + 1e-6).any()),
        "that is the probability of the opposite.": close(mine, 1 - want),
        "wins and losses are not the same as wins of all.": close(
            mine, torch.tensor([w / (w + m) for w, m in asked])
        ),
        "the exact test: add up math.comb(n, k) / 2**n.": not close(mine, want),
    }
    return advise(wrong, "14 of 20 may well be chance: p is 0.12.")


@guarded
def check_08_5(my_enough: Callable) -> Verdict | None:
    """my_enough(share) -> the least n for which n right of n means more than `share`, by Wilson."""
    shares = (0.5, 0.8, 0.9)
    mine = tried(lambda: [my_enough(share) for share in shares])
    if mine is None:
        return None
    mine = tensor(mine)
    if mine is None or mine.numel() != len(shares):
        return say(False, "", "one whole number for each share.")
    mine = mine.flatten().tolist()
    want = [next(n for n in range(1, 99) if _least(n) > s) for s in shares]
    rule = [3 / (1 - s) for s in shares]
    wrong = {
        "whole numbers: results are counted.": any(n != int(n) for n in mine),
        "that is the rule of three; take metrics.proportion(n, n).": all(
            abs(n - r) < 1.01 for n, r in zip(mine, rule, strict=True)
        ),
        "one fewer is not enough yet: look at its low end again.": mine == [n - 1 for n in want],
        "one fewer is enough already.": mine == [n + 1 for n in want],
        "the low end, the second of the three numbers.": min(mine) <= 1,
        "count n up until the low end of metrics.proportion(n, n) exceeds the share.": mine != want,
    }
    return advise(wrong, f"{want[1]} of {want[1]} for 80%. Three of three says: more than 43%.")


def _least(n):
    """The low end of Wilson's interval for n of n."""
    from scipy.stats import binomtest

    return binomtest(n, n).proportion_ci(method="wilson").low


@guarded
def check_08_6(my_join: Callable) -> Verdict | None:
    """my_join(mask, edit, source) -> the source outside the mask; inside by your rule."""
    edit, source = smooth_pictures(2, 5), smooth_pictures(3, 6)[2:]
    mask = torch.zeros(1, 1, 16, 16)
    mask[..., 3:13, 3:13] = 1
    mine = tried(my_join, mask, edit, source)
    if mine is None:
        return None
    if not isinstance(mine, Tensor) or mine.shape != edit.shape:
        return say(False, "", "as many pictures must come out as edits went in, of their size.")
    pasted = blend(mask, edit, source)
    middle = 1 - dilate(1 - mask, 3)
    kept = (middle * (mine - source)).abs().sum() / (middle * (edit - source)).abs().sum()
    jump = lambda x: _jump(x, mask)  # noqa: E731
    wrong = {
        "there are NaN in it.": not mine.isfinite().all(),
        "pictures are in [-1, 1]: clamp.": bool(mine.abs().max() > 1.001),
        "outside the mask it is not the source.": not close(
            (1 - mask) * mine, ((1 - mask) * source).expand_as(mine)
        ),
        "that is the plain paste: do something about its border.": close(mine, pasted),
        "in the middle of the mask too little of the edit is left.": bool(kept < 0.5),
        "the border is no softer than that of a paste.": bool(jump(mine) > 0.98 * jump(pasted)),
    }
    return advise(wrong, "the source outside, the edit inside, and a softer border.")


def _jump(images, mask):
    """The mean step of colour from a pixel in the mask to its neighbour outside."""
    steps = [
        (x.diff().abs() * (m.diff() != 0)).sum() for x, m in ((images, mask), (images.mT, mask.mT))
    ]
    return sum(steps)


def reports(images, image, truth, mask, thing, spread: float, table: dict) -> dict[str, str]:
    """Five reports of latent blending, of which four have a wrong number: for exercise 3.

    images (n,3,S,S): results of one scene; thing (1,1,S,S): the object in the truth; spread: the
    diversity of the results; table: the saved one, results.load("precision").
    """
    (row,) = (row for row in table["rows"] if row["label"] == "blended_latent")
    off = lambda x, to, where: rms((x - to) / 2, where).mean().item()  # noqa: E731
    best, batch = row["best result"][0], row["batch precision"][0]
    three = row["first"]["best result"][:3]
    return {
        "A": f"The background is off by {off(blend(mask, images, image), image, 1 - mask):.1%} of "
        "the range: it is exact.",
        "B": f"CLIP's choice is right in {sum(three) / 3:.0%} of scenes (n = 3).",
        "C": f"The pixels of the object are off the truth's by {off(images, truth, mask):.1%}.",
        "D": f"Two right results of this scene differ by {spread:.3f} on average.",
        "E": f"On {table['n']} scenes: batch precision {best:.0%}, best result {batch:.0%}.",
    }


def feathered(mask: Tensor, edit: Tensor, source: Tensor) -> Tensor:
    """The package's join for the exercise: the edit fades towards the border, inside the mask."""
    side = max(3, mask.shape[-1] // 16 * 2 + 1)
    soft = F.avg_pool2d(mask, side, 1, side // 2, count_include_pad=False)
    return blend((2 * soft - 1).clamp(0, 1) * mask, edit, source)
