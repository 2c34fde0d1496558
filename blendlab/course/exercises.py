"""Checkers for the notebooks' exercises: each runs your function on a toy and says in one sentence how it went.

Solutions are in notebooks/solutions/. Next: notebooks/00_start_here.ipynb.
"""

from collections.abc import Callable

import torch

from .blend import blend
from .masks import dilate
from .noise import Noise
from .sampler import Prediction, last, sample
from .schedule import Schedule


def _say(done: bool, well: str, hint: str) -> None:
    print(f"✓ {well}" if done else f"✗ Not yet: {hint}")


def _advise(wrong: dict[str, bool], well: str) -> None:
    """Say the first hint whose mistake was made, or that all is well."""
    hint = next((hint for hint, made in wrong.items() if made), "")
    _say(not hint, well, hint)


def _tried(function: Callable, *arguments):
    """What the function returns, or None with a hint printed while its line, or its `return`, is still missing."""
    try:
        mine = function(*arguments)
    except NotImplementedError as hint:
        return print(f"○ Not done yet: {hint}")
    if mine is None:
        print("✗ Not yet: your function gives nothing back; end it with `return`.")
    return mine


def _close(mine, right) -> bool:
    return isinstance(mine, torch.Tensor) and mine.shape == right.shape and torch.allclose(mine, right, atol=1e-5)


# --- 00 start here ---


def check_00_1(add_noise: Callable) -> None:
    """add_noise(x0, t, noise, schedule) -> x_t."""
    schedule, (x0, noise) = Schedule.linear(), torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(1))
    mine = _tried(add_noise, x0, 400, noise, schedule)
    if mine is not None:
        squares = torch.allclose(mine, x0 * schedule.levels(400)[0] ** 2 + noise * schedule.levels(400)[1] ** 2)
        hint = (
            "a and s are amplitudes already, do not square them."
            if squares
            else "x_t is a of the picture plus s of the noise."
        )
        _say(
            _close(mine, schedule.add_noise(x0, 400, noise)), "the picture and its noise add up to variance one.", hint
        )


def check_00_2(move: Callable) -> None:
    """move(x, x0_hat, t, t_next, schedule) -> the state at t_next."""
    schedule = Schedule.linear()
    x, x0_hat = torch.randn(2, 5, 2, generator=torch.Generator().manual_seed(2))
    right = next(sample(lambda x, t: Prediction(x0_hat), x, schedule, [600, 580])).x
    mine = _tried(move, x, x0_hat, 600, 580, schedule)
    if mine is not None:
        stayed = _close(mine, x)
        hint = (
            "you came back to level t: rebuild with a_next and s_next."
            if stayed
            else "eps is what is left of x after a * x0_hat."
        )
        _say(_close(mine, right), "that is DDIM's whole move.", hint)


def check_00_3(my_blend: Callable) -> None:
    """my_blend(mask, edit, keep) for a soft mask."""
    mask, edit, keep = torch.tensor([[0.0, 0.3, 1.0]]), torch.tensor([[4.0, 4.0, 4.0]]), torch.tensor([[2.0, 2.0, 2.0]])
    mine = _tried(my_blend, mask, edit, keep)
    if mine is not None:
        hint = (
            "1 is edit here, not keep."
            if _close(mine, blend(1 - mask, edit, keep))
            else "three tenths of the edit and seven of the rest."
        )
        _say(_close(mine, blend(mask, edit, keep)), "a soft mask mixes, and 0 and 1 still choose.", hint)


def check_00_4(estimate: Callable) -> None:
    """estimate(x, t, m, sd, schedule) -> the mean of x0 given x, for x0 normal with mean m and deviation sd."""
    schedule, m, sd = Schedule.scaled_linear(), 2.0, 0.5
    noise = Noise(0, 2000, "initial")((1,))
    if _tried(estimate, noise, 500, m, sd, schedule) is None:
        return
    denoise = lambda x, t: Prediction(estimate(x, t, m, sd, schedule))  # noqa: E731
    end = last(sample(denoise, noise, schedule, schedule.timesteps(250)))
    mean, deviation = end.mean().item(), end.std().item()
    found = f"mean {mean:.2f} and deviation {deviation:.2f} came out, {m} and {sd} went in"
    _say(
        abs(mean - m) < 0.1 and abs(deviation - sd) < 0.05,
        f"{found}.",
        f"{found}; the trust is a * sd^2 over a^2 * sd^2 + s^2.",
    )


# --- 01 CLIP guidance ---


def check_01_1(clean_estimate: Callable) -> None:
    """clean_estimate(x, eps, t, schedule) -> x0_hat."""
    schedule, t = Schedule.scaled_linear(), 600
    (a, s), x0, eps = schedule.levels(t), *Noise(5, 2, "initial")((2, 3, 4, 4))
    mine = _tried(clean_estimate, a * x0 + s * eps, eps, t, schedule)
    if mine is not None:
        wrong = {
            "take s of the noise away, not all of it.": _close(mine, (a * x0 + s * eps - eps) / a),
            "that is a times the picture: divide by a.": _close(mine, a * x0),
            "levels gives amplitudes: no more roots.": _close(mine, (a * x0 + s * eps - s**0.5 * eps) / a**0.5),
            "x is a * x0 + s * eps: solve that for x0.": not _close(mine, x0),
        }
        _advise(wrong, "with the true noise, the true picture.")


def check_01_2(spherical: Callable) -> None:
    """spherical(seen, text) -> half the squared angle, for unit vectors (B,d) and (1,d)."""
    angle = torch.tensor([0.1, 0.7, 1.5, 3.0])
    seen = torch.stack([angle.cos(), angle.sin(), torch.zeros(4)], dim=1)
    mine = _tried(spherical, seen, torch.tensor([[1.0, 0.0, 0.0]]))
    if mine is not None:
        cos = angle.cos()
        wrong = {
            "that is the cosine distance; the angle is its arc.": _close(mine, 1 - cos),
            "that is the angle itself: half of its square.": _close(mine, angle),
            "half of it.": _close(mine, angle**2),
            "the angle between unit vectors is the arc cosine of their product.": not _close(mine, angle**2 / 2),
        }
        _advise(wrong, "the same order as 1 - cos, but it goes on pulling where the cosine is flat.")


def check_01_3(shifted: Callable) -> None:
    """shifted(eps, grad, t, schedule) -> the noise estimate that goes downhill."""
    schedule, t = Schedule.scaled_linear(), 300
    (a, s), eps, grad = schedule.levels(t), *Noise(6, 2, "initial")((2, 3, 4, 4))
    mine = _tried(shifted, eps, grad, t, schedule)
    if mine is not None:
        wrong = {
            "that goes uphill: eps is what gets taken away from the picture.": _close(mine, eps - s * grad),
            "s is sqrt(1 - abar) already.": _close(mine, eps + s**0.5 * grad) or _close(mine, eps + s**2 * grad),
            "a belongs to the picture; noise comes with s.": _close(mine, eps + a * grad),
            "the score is -eps / s; move it by -grad and solve for eps.": not _close(mine, eps + s * grad),
        }
        _advise(wrong, "that is how a loss steers DDIM (2105.05233, algorithm 2).")


def check_01_4(my_augmentation: Callable) -> None:
    """my_augmentation(pictures, u) -> pictures changed as u says, for (B,3,S,S) and u (B,) in [0,1)."""
    pictures = Noise(7, 2, "initial")((3, 16, 16)).requires_grad_()
    u = torch.tensor([0.2, 0.8])
    hint = "no gradient comes through: use operations of torch on pictures."
    well = "a gradient comes through, and a pattern must now survive it."
    _check_augmentation(my_augmentation, pictures, u, {hint: lambda mine: not mine.requires_grad}, well)


def _check_augmentation(mine_of: Callable, pictures, u, also: dict[str, Callable], well: str) -> None:
    """What an augmentation of pictures (B,3,S,S) by u (B,) has to do; also: hints and tests of its own."""
    mine = _tried(mine_of, pictures, u)
    if mine is not None:
        shaped = isinstance(mine, torch.Tensor) and mine.shape == pictures.shape
        wrong = {
            "as many pictures must come out as went in, of the same size.": not shaped,
            **{hint: shaped and made(mine) for hint, made in also.items()},
            "nothing was changed.": shaped and torch.equal(mine, pictures),
            "the same number must give the same change: take it from u.": shaped
            and not torch.equal(mine, mine_of(pictures, u)),
            "u must matter.": shaped and torch.equal(mine, mine_of(pictures, u.flip(0))),
        }
        _advise(wrong, well)


# --- 02 per-step blending ---


def check_02_1(skip_for: Callable) -> None:
    """skip_for(schedule, steps, least) -> the smallest skip k / steps whose first level has a >= least."""
    schedule, steps = Schedule.scaled_linear(), 25
    right = [next(k / steps for k in range(steps) if schedule.levels(schedule.timesteps(steps, k / steps)[0])[0] >= a)
             for a in (0.2, 0.5, 0.8)]  # fmt: skip
    mine = _tried(lambda: [skip_for(schedule, steps, a) for a in (0.2, 0.5, 0.8)])
    if mine is not None:
        if None in mine:
            return _say(False, "", "your function gives nothing back; end it with `return`.")
        mine = [float(skip) for skip in mine]
        later = [skip + 1 / steps for skip in right]
        wrong = {
            "a share, not a number of steps: divide by steps.": max(mine) > 1,
            "one step too late: at least means >=.": all(abs(m - r) < 1e-6 for m, r in zip(mine, later, strict=True)),
            "look at levels(timesteps(steps, skip)[0])[0], skip by skip.": any(
                abs(m - r) > 1e-6 for m, r in zip(mine, right, strict=True)
            ),
        }
        _advise(wrong, "the later the start, the more of a scribble is left.")


def check_02_2(canvas_mask: Callable) -> None:
    """canvas_mask(height, width, grow) -> (1,1,height,width+2*grow), 1 where a wider canvas is still empty."""
    mine = _tried(canvas_mask, 4, 6, 3)
    if mine is not None:
        right = torch.ones(1, 1, 4, 12)
        right[..., 3:9] = 0
        wrong = {
            "1 is edit: the new columns, not the picture.": _close(mine, 1 - right),
            "the canvas grows on both sides: width + 2 * grow.": not isinstance(mine, torch.Tensor)
            or mine.shape != right.shape,
            "the picture stands in the middle, grow columns from either side.": not _close(mine, right),
        }
        _advise(wrong, "the picture in the middle, and room for two prompts.")


def check_02_3(two_bands: Callable) -> None:
    """two_bands(mask, edit, keep, blur) -> a pyramid of two bands."""
    noise = Noise(8, 2, "initial")((3, 8, 8))
    edit, keep, mask = noise[:1], noise[1:], torch.zeros(1, 1, 8, 8)
    mask[..., 2:6, 2:6] = 1
    blur = lambda x: torch.nn.functional.avg_pool2d(x, 3, 1, 1, count_include_pad=False)  # noqa: E731
    mine = _tried(two_bands, mask, edit, keep, blur)
    if mine is not None:
        coarse, fine = blend(blur(mask), blur(edit), blur(keep)), blend(mask, edit - blur(edit), keep - blur(keep))
        wrong = {
            "that is the naive paste: blur the mask of the coarse band.": _close(mine, blend(mask, edit, keep)),
            "that is a soft mask: the fine band keeps the sharp one.": _close(mine, blend(blur(mask), edit, keep)),
            "that is the coarse band alone: add the fine one.": _close(mine, coarse),
            "coarse: all three blurred. Fine: what the blur took away, under the sharp mask.": not _close(
                mine, coarse + fine
            ),
        }
        _advise(wrong, "light crosses the border slowly, detail at once.")


def check_02_4(my_score: Callable) -> None:
    """my_score(inside, whole) -> scores (n,), smaller is better, from CLIP's two distances (n,)."""
    inside, whole = Noise(9, 2, "initial")((12,)).abs()
    mine = _tried(my_score, inside, whole)
    if mine is not None:
        shaped = isinstance(mine, torch.Tensor) and mine.shape == inside.shape
        order = mine.argsort().tolist() if shaped else []
        turned = my_score(inside.flip(0), whole.flip(0)).flip(0) if shaped else None
        known = {"the mask alone": inside, "the whole picture alone": whole, "their mean": inside + whole}
        wrong = {
            "one number for each result: a tensor (n,).": not shaped,
            "the place in the list must not matter.": shaped and not _close(turned, mine),
        } | {f"that is {name}, which the package knows: try another.": order == x.argsort().tolist()
             for name, x in known.items()}  # fmt: skip
        _advise(wrong, "an order of your own. Does it find whole objects more often?")


# --- 03 latent blending ---


def check_03_1(left_over: Callable) -> None:
    """left_over(schedule, timesteps, level) -> std of the noise outside the mask of the final latent."""
    schedule = Schedule.scaled_linear()
    timesteps = schedule.timesteps(25, spacing="trailing")
    mine = _tried(left_over, schedule, timesteps, "t")
    if mine is not None:
        late, on_time = float(mine), left_over(schedule, timesteps, "t_next")
        (a, s), first = schedule.levels(timesteps[-2]), schedule.levels(timesteps[0])[1]
        wrong = {
            "levels returns (a, s): a is the picture's part, s the noise's.": abs(late - a) < 1e-6,
            "that is the first move; the final latent comes from the last one.": abs(late - first) < 1e-6,
            "s is a standard deviation already, do not square it.": abs(late - s**2) < 1e-6,
            "which level has the state just left when it arrives at -1?": abs(late - s) > 1e-6,
            "level -1 is the clean one: no noise there.": on_time != 0,
        }
        _advise(wrong, "one level late is all of that noise; on time there is none.")


def check_03_2(my_stages: Callable) -> None:
    """my_stages(mask_small, steps) -> a mask for each move, one cell wider for the first half of them."""
    mask = torch.zeros(1, 1, 8, 8)
    mask[..., 3:5, 2:5] = 1
    mine = _tried(my_stages, mask, 7)
    if mine is not None:
        if len(mine) != 7:
            return _say(False, "", f"7 moves want 7 masks, you made {len(mine)}.")
        areas = [int(m.sum()) for m in mine]
        wrong = {
            "early masks are the wider ones, yours are narrower.": areas[0] < areas[-1],
            "the last mask has to be the one that was asked for.": not _close(mine[-1], mask),
            "one cell wider on each side: masks.dilate(mask_small, 1).": not _close(mine[0], dilate(mask, 1)),
            "half of the moves, rounded down, then the mask itself.": areas != [20] * 3 + [6] * 4,
        }
        _advise(wrong, "wide first, and exactly what was asked for at the end.")


def check_03_3(my_body: Callable) -> None:
    """my_body(step, mask, source, schedule) -> the state, rebuilt from the blended estimate."""
    schedule, mask, source = Schedule.scaled_linear(), torch.eye(4)[None, None], torch.full((1, 2, 4, 4), -1.0)
    (step,) = sample(lambda x, t: Prediction(0.3 * x), Noise(3, 1, "initial")((2, 4, 4)), schedule, [700, 300])
    mine = _tried(my_body, step, mask, source, schedule)
    if mine is not None:
        (a, s), (a_late, s_late) = schedule.levels(step.t_next), schedule.levels(step.t)
        x0 = blend(mask, edit=step.x0_hat, keep=source)
        swapped = blend(mask, edit=source, keep=step.x0_hat)
        wrong = {
            "that is the estimate; the state is a * that + s * step.eps.": _close(mine, x0),
            "blend x0_hat, not the state: the state has noise.": _close(mine, blend(mask, step.x, source)),
            "that is level t; the state belongs on step.t_next.": _close(mine, a_late * x0 + s_late * step.eps),
            "1 is edit: x0_hat inside, the source outside.": _close(mine, a * swapped + s * step.eps),
            "a * (the blended estimate) + s * step.eps.": not _close(mine, a * x0 + s * step.eps),
        }
        _advise(wrong, "one blend, no fresh noise, and the end is clean by itself.")


def check_03_4(my_body: Callable) -> None:
    """my_body(step, mask, at) -> the new state, by a rule of your own; at(t) is the source on level t."""
    schedule, mask, source = Schedule.scaled_linear(), torch.zeros(1, 1, 8, 8), torch.full((1, 4, 8, 8), -1.0)
    mask[..., 2:6, 2:6] = 1
    noise = Noise(4, 1, "background")((4, 8, 8))
    at = lambda t: schedule.add_noise(source, t, noise)  # noqa: E731

    def run(body):
        states, timesteps = [], schedule.timesteps(20, skip=0.25)
        for step in sample(lambda x, t: Prediction(torch.ones_like(x)), at(timesteps[0]), schedule, timesteps):
            step.x = body(step, mask, at)
            if step.x is None:
                return None
            states.append(step.x)
        return torch.cat(states)  # (moves,4,8,8)

    mine = _tried(run, my_body)
    if mine is not None:
        inside = (mine[-1:] * mask).sum() / (4 * mask.sum())  # the denoiser wants 1 there, the source has -1
        wrong = {
            "outside the mask the end is not the source: look at the last move.": not _close(
                blend(mask, source, mine[-1:]), source
            ),
            "inside the mask too little of the edit is left.": inside.item() < 0.5,
            "that is blending as we know it: try another rule.": _close(
                mine, run(lambda step, mask, at: blend(mask, step.x, at(step.t_next)))
            ),
        }
        _advise(wrong, "outside the source, inside the edit, and a way there that is your own.")


# --- 04 decoder tuning ---


def check_04_1(my_loss: Callable) -> None:
    """my_loss(picture, target, image, mask, lam) -> section 4.2's loss, as means over the whole picture."""
    picture, target, image = Noise(10, 3, "initial")((3, 6, 6)).split(1)
    mask = torch.zeros(1, 1, 6, 6)
    mask[..., :2] = 1
    mine = _tried(my_loss, picture, target, image, mask, 100.0)
    if mine is not None:
        inside, outside = (mask * (picture - target)).square(), ((1 - mask) * (picture - image)).square()
        swapped = ((1 - mask) * (picture - target)).square().mean() + 100 * (mask * (picture - image)).square().mean()
        wrong = {
            "1 is edit: the target inside, the image outside.": _close(mine, swapped),
            "lam weighs the outside.": _close(mine, 100 * inside.mean() + outside.mean()),
            "squares, then means: an L1 loss lets faces blur.": _close(
                mine, inside.sqrt().mean() + 100 * outside.sqrt().mean()
            ),
            "means, not sums, or the size of the picture weighs too.": _close(mine, inside.sum() + 100 * outside.sum()),
            "the mean of the squares inside, plus lam times that outside.": not _close(
                mine, inside.mean() + 100 * outside.mean()
            ),
        }
        _advise(wrong, "the edit stays, and the background comes back a hundred times as eagerly.")


def check_04_2(safely: Callable) -> None:
    """safely(net, work): runs work(), which changes the weights of net and may raise; net is as before, in any case."""
    net = torch.nn.Linear(2, 2)
    before = {name: value.clone() for name, value in net.state_dict().items()}

    def spoil():
        with torch.no_grad():
            for weight in net.parameters():
                weight.add_(1)

    def interrupted():
        spoil()
        raise KeyboardInterrupt

    there = lambda: all(torch.equal(value, before[name]) for name, value in net.state_dict().items())  # noqa: E731
    try:
        safely(net, spoil)
    except NotImplementedError as hint:
        return print(f"○ Not done yet: {hint}")
    restored, through = there(), False
    net.load_state_dict(before)
    try:
        safely(net, interrupted)
    except KeyboardInterrupt:
        through = True
    wrong = {
        "the weights are still the changed ones; did you clone them first?": not restored,
        "after an interrupt the weights are not back: put that into `finally`.": not there(),
        "the interrupt got lost: `finally` lets it through, `except` does not.": not through,
    }
    _advise(wrong, "whatever happens, the network is as it was.")


def check_04_3(soft_paste: Callable) -> None:
    """soft_paste(mask, edit, image, width) -> the source outside; inside the edit, fading in over width pixels."""
    mask, edit, image = torch.zeros(1, 1, 16, 16), torch.ones(1, 3, 16, 16), -torch.ones(1, 3, 16, 16)
    mask[..., 3:13, 3:13] = 1
    mine = _tried(soft_paste, mask, edit, image, 3)
    if mine is not None:
        shaped = isinstance(mine, torch.Tensor) and mine.shape == edit.shape
        row = mine[0, 0, 8] if shaped else None
        wrong = {
            "a picture (1,3,H,W) has to come out.": not shaped,
            "outside the mask it is not the source any more: fade inside.": shaped
            and not torch.equal(mine * (1 - mask), image * (1 - mask)),
            "in the middle of the mask the edit has to be whole.": shaped and row[8] < 0.99,
            "that is the hard paste: the first pixels inside are a mixture.": shaped and row[3] > 0.9,
            "the further inside, the more of the edit.": shaped and (row[3:8].diff() < -1e-6).any().item(),
        }
        _advise(wrong, "no edge to see, and not one pixel outside has changed.")


def check_04_4(my_choice: Callable) -> None:
    """my_choice({name: tensor}) -> the names of the weights to tune, at most a third of all numbers."""
    sizes = {"conv_in.weight": 9, "mid.conv.weight": 30, "up.0.conv.weight": 30, "up.0.norm.bias": 3,
             "up.1.conv.weight": 20, "up.1.norm.bias": 3, "conv_norm_out.weight": 2, "conv_out.weight": 8}  # fmt: skip
    weights = {f"decoder.{name}": torch.zeros(size) for name, size in sizes.items()}
    mine = _tried(my_choice, weights)
    if mine is not None:
        mine = list(mine)
        known = set(mine) <= set(weights)
        share = sum(weights[name].numel() for name in mine) / sum(sizes.values()) if known else 0
        wrong = {
            "names of weights, as they are in the dictionary.": not known,
            "choose at least one.": not mine,
            f"that is {share:.0%} of the numbers: at most a third.": share > 1 / 3,
        }
        _advise(wrong, f"{share:.0%} of the numbers. What background do they reach?")


# --- 05 mask shrinking ---


def check_05_1(my_dilate: Callable) -> None:
    """my_dilate(mask, radius) -> the mask with its ones grown by radius on every side."""
    mask = torch.zeros(1, 1, 9, 9)
    mask[..., 4, 2:4] = 1
    mine = _tried(my_dilate, mask, 2)
    if mine is not None:
        right = dilate(mask, 2)
        wrong = {
            "the size must stay: padding is the radius.": not isinstance(mine, torch.Tensor)
            or mine.shape != mask.shape,
            "radius cells on every side: a window of 2 * radius + 1.": _close(mine, dilate(mask, 1)),
            "both axes: you grew it along one.": isinstance(mine, torch.Tensor)
            and (_close(mine.sum(), right.sum() / 5) or _close(mine.sum(), right.sum() / 3)),
            "a square around every 1.": not _close(mine, right),
        }
        _advise(wrong, "two lines in place of a square.")


def check_05_2(my_radii: Callable) -> None:
    """my_radii(steps, radii) -> the radius of each move's mask, the widest first, 0 last."""
    mine = _tried(lambda: [my_radii(8, (1, 2, 3)), my_radii(10, (2,)), my_radii(50, tuple(range(1, 10)))])
    if mine is not None:
        if None in mine:
            return _say(False, "", "your function gives nothing back; end it with `return`.")
        first, second, long = (list(radii) for radii in mine)
        right = [3, 3, 2, 2, 1, 1, 0, 0]
        wrong = {
            "the widest comes first.": first == right[::-1] or first == [1, 1, 2, 2, 3, 3, 0, 0],
            "the mask itself has to come last: one part more than radii.": 0 not in first,
            "as many radii as there are moves.": [len(first), len(second), len(long)] != [8, 10, 50],
            "equal parts: move i belongs to part i * parts // steps.": first != right or second != [2] * 5 + [0] * 5,
            "with nine dilations the mask itself is not reached.": len(long) == 50 and long[-1] != 0,
        }
        _advise(wrong, "every stage is reached, and the last is the mask.")


def check_05_3(surviving: Callable) -> None:
    """surviving(mask, f) -> share of the mask's area in cells whose centre pixel is masked."""
    mask = torch.zeros(1, 1, 16, 16)
    mask[..., 0:8, 1:3] = 1  # holds the centre (2) of its cells, 4 pixels wide
    mask[..., 8:16, 5:6] = 1  # misses the centre (6)
    mine = _tried(surviving, mask, 4)
    if mine is not None:
        mine = float(mine)
        wrong = {
            "that counts cells; count pixels of the mask that lie in them.": abs(mine - 2 / 16) < 1e-6,
            "of the mask's area, not of the picture's.": abs(mine - 16 / 256) < 1e-6,
            "every pixel of the mask that lies in a white cell, over all of them.": abs(mine - 16 / 24) > 1e-6,
        }
        _advise(wrong, "two thirds stay; the other stroke falls between the centres.")


def check_05_4(my_schedule: Callable) -> None:
    """my_schedule(mask_small, steps) -> steps masks that start wider and end with the mask."""
    mask = torch.zeros(1, 1, 12, 12)
    mask[..., 3:9, 5:7] = 1
    mine = _tried(my_schedule, mask, 10)
    if mine is not None:
        shaped = len(mine) == 10 and all(isinstance(m, torch.Tensor) and m.shape == mask.shape for m in mine)
        areas = [float(m.sum()) for m in mine] if shaped else []
        plain = [dilate(mask, r) for r in (3, 2, 1, 0) for _ in range(3)]
        wrong = {
            "ten moves want ten masks of the size of the mask.": not shaped,
            "the last mask has to be the one that was asked for.": shaped and not _close(mine[-1], mask),
            "it never gets wider than the mask.": shaped and max(areas) <= areas[-1],
            "a mask must not lose what the final one has.": shaped and any((m < mask - 1e-6).any() for m in mine),
            "it grows on the way: shrink.": areas != sorted(areas, reverse=True),
            "that is the paper's: try another shape.": shaped
            and all(any(_close(m, p) for p in plain) for m in mine),
        }
        _advise(wrong, "a schedule of your own. Which lamp is the better one?")


# --- 06 exemplar inpainting ---


def check_06_1(ninth: Callable) -> None:
    """ninth(mask, f) -> (1,1,H/f,W/f), 1 = keep, from the first pixel of each cell."""
    mask = torch.zeros(1, 1, 12, 12)
    mask[..., 4:9, 2:8] = 1
    mine = _tried(ninth, mask, 4)
    if mine is not None:
        right, area = 1 - mask[..., ::4, ::4], torch.nn.functional.avg_pool2d(mask, 4)
        wrong = {
            "1 is keep in there: turn it round.": _close(mine, 1 - right),
            "one value for each cell, H / f by W / f of them.": not isinstance(mine, torch.Tensor)
            or mine.shape != right.shape,
            "that is the area, as bilinear would have it; read the corner.": _close(mine, 1 - area),
            "the first pixel of each cell, one minus it.": not _close(mine, right),
        }
        _advise(wrong, "1 where the picture stays: the other way round than at the door.")


def check_06_2(dropped: Callable) -> None:
    """dropped(tokens, null, u, share) -> tokens, a share of the samples replaced by null."""
    tokens, null, u = torch.ones(5, 1, 3), torch.zeros(1, 1, 3), torch.tensor([0.1, 0.9, 0.15, 0.5, 0.3])
    mine = _tried(dropped, tokens, null, u, 0.2)
    if mine is not None:
        right = torch.tensor([0.0, 1, 0, 1, 1]).view(5, 1, 1).expand(5, 1, 3)
        wrong = {
            "one decision for all of them: that is per batch.": isinstance(mine, torch.Tensor)
            and mine.unique().numel() == 1,
            "the other way round: replaced where u is below share.": _close(mine, 1 - right),
            "as many tokens as came in, (B,1,d).": not isinstance(mine, torch.Tensor) or mine.shape != tokens.shape,
            "replaced where u < share, kept elsewhere.": not _close(mine, right),
        }
        _advise(wrong, "each for itself. Per batch, four of five batches would forget nothing at all.")


def check_06_3(cut_out: Callable) -> None:
    """cut_out(picture, box, pad) -> the piece, with pad pixels more on each side where there is room."""
    picture = torch.arange(2 * 3 * 8 * 10).float().view(2, 3, 8, 10)[:1]
    mine = _tried(cut_out, picture, (2, 1, 5, 4), 2)
    edge = _tried(cut_out, picture, (7, 5, 10, 8), 2) if mine is not None else None
    if mine is not None and edge is not None:
        wrong = {
            "x is along the width, the last axis; y along the height.": _close(mine, picture[..., 0:7, 0:6]),
            "nothing before the picture's start: max(x0 - pad, 0).": isinstance(mine, torch.Tensor)
            and 0 in mine.shape,
            "pad more on each side.": _close(mine, picture[..., 1:4, 2:5]),
            "pictures are (1,3,H,W): rows are y0 .. y1, columns x0 .. x1.": not _close(mine, picture[..., 0:6, 0:7]),
            "at the other border, too, the picture ends.": not _close(edge, picture[..., 3:8, 5:10]),
        }
        _advise(wrong, "that is where every training pair comes from.")


def check_06_4(my_augmentation: Callable) -> None:
    """my_augmentation(pieces, u) -> references (B,3,S,S) changed as u (B,) says."""
    pieces, u = Noise(11, 2, "initial")((3, 16, 16)).clamp(-1, 1), torch.tensor([0.2, 0.8])
    also = {"pictures stay in [-1, 1]: clamp them.": lambda mine: mine.abs().max().item() > 1}
    _check_augmentation(my_augmentation, pieces, u, also, "the same thing, another picture: copying no longer pays.")


# --- 07 noise editing ---


def check_07_1(is_permutation: Callable) -> None:
    """is_permutation(before, moved, block) -> whether the blocks of (C,h,w) are the same ones in another order."""
    before = Noise(12, 1, "initial")((2, 4, 4))[0]
    swapped = before.clone()
    swapped[:, :2, :2], swapped[:, 2:, 2:] = before[:, 2:, 2:], before[:, :2, :2]
    rows, channels = before.flip(1), before.flip(0)  # rows are torn apart; each channel still has its numbers
    mine = _tried(lambda: [is_permutation(before, x, 2) for x in (swapped, before, before + 0.1, rows, channels)])
    if mine is not None:
        if None in mine:
            return _say(False, "", "your function gives nothing back; end it with `return`.")
        same, itself, other, torn, mixed = (bool(answer) for answer in mine)
        wrong = {
            "two blocks changed places, and you say no.": not same,
            "nothing moved: that is a permutation, too.": not itself,
            "other numbers are no permutation.": other,
            "the same numbers, but the blocks were torn apart.": torn,
            "the channels of a block have to travel together.": mixed,
        }
        _advise(wrong, "nothing is lost, nothing is new: the noise is as likely as before.")


def check_07_2(candidates: Callable) -> None:
    """candidates(heat, inside) -> cells outside that look more than A_min, cells inside that look less."""
    heat = torch.tensor([0.9, 0.1, 0.5, 0.3, 0.8, 0.2, 0.7, 0.4])
    inside = torch.tensor([0, 0, 1, 1, 0, 0, 1, 0], dtype=torch.bool)  # A_min is the third largest: 0.7
    mine = _tried(candidates, heat, inside)
    if mine is not None:
        comes, goes = ({int(i) for i in cells} for cells in mine)
        wrong = {
            "more than A_min: the cell that has A_min itself stays.": 6 in comes | goes,
            "come: from outside; go: from inside.": bool(comes & {2, 3, 6}) or bool(goes - {2, 3, 6}),
            "s is the number of cells in the region, 3 here.": comes != {0, 4},
            "all cells inside that look less.": goes != {2, 3},
        }
        _advise(wrong, "as many must come as may go: the paper draws pairs at random.")


def check_07_3(agreement_of: Callable) -> None:
    """agreement_of(gaps) -> share of comparisons, off the diagonal, in which the diagonal is the nearer one."""
    gaps = torch.tensor([[0.1, 0.5, 0.6], [0.2, 0.3, 0.7], [0.1, 0.2, 0.4]])
    mine = _tried(agreement_of, gaps)
    if mine is not None:
        mine, right = float(mine), 3 / 6
        wrong = {
            "leave the diagonal out: a pair cannot be nearer than itself.": abs(mine - 3 / 9) < 1e-6,
            "row by row: gaps[i, i] against the other entries of row i.": abs(mine - right) > 1e-6,
        }
        _advise(wrong, "a half here: no better than chance.")


def check_07_4(my_rule: Callable) -> None:
    """my_rule(heat, inside) -> origin (cells,), a permutation that brings attention into the region."""
    heat, inside = Noise(13, 1, "initial")((16,))[0].abs(), torch.zeros(16, dtype=torch.bool)
    inside[4:8] = True
    mine = _tried(my_rule, heat, inside)
    if mine is not None:
        origin = torch.as_tensor(mine).flatten()
        whole = sorted(origin.tolist()) == list(range(16))
        got = heat[origin][inside].sum() if whole else 0
        wrong = {
            "every block exactly once: a permutation of 0 .. 15.": not whole,
            "nothing was moved.": whole and origin.tolist() == list(range(16)),
            "there is less attention in the region than before.": whole and bool(got < heat[inside].sum()),
        }
        share = f"{got / max(heat.topk(4).values.sum(), 1e-9):.0%}" if whole else ""
        _advise(wrong, f"a rule of your own, with {share} of the attention that four cells can have.")
