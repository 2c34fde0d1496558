"""Every checker accepts right answers of different style, and rejects wrong ones with a hint."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from IPython.core.formatters import DisplayFormatter

import blendlab as bl
from blendlab.course import exercises
from blendlab.course.exercises import nb00, nb01, nb02, nb03, nb04, nb06, nb07, nb08
from blendlab.course.exercises.common import CHECKERS, Verdict
from blendlab.masks import dilate, stages

PASSES, HINTS = "✓", "✗"


# --- 00


def add_noise(x0, t, noise, schedule):
    a, s = schedule.levels(t)
    return a * x0 + s * noise


def move(x, x0_hat, t, t_next, schedule):
    (a, s), (a2, s2) = schedule.levels(t), schedule.levels(t_next)
    return a2 * x0_hat + s2 * (x - a * x0_hat) / s


def estimate(x, t, m, sd, schedule):
    a, s = schedule.levels(t)
    return m + a * sd**2 / (a**2 * sd**2 + s**2) * (x - a * m)


def with_levels(formula):
    """An answer (x0, t, noise, schedule) from a formula of a, s, x0, noise."""
    return lambda x0, t, noise, schedule: formula(*schedule.levels(t), x0, noise)


def with_moves(formula):
    """An answer to 00.2 from a formula of x, x0_hat, a, s, a2, s2."""
    return lambda x, x0_hat, t, t_next, schedule: formula(
        x, x0_hat, *schedule.levels(t), *schedule.levels(t_next)
    )


def with_trust(formula):
    """An answer to 00.4 from a formula of x, a, s, m, sd."""
    return lambda x, t, m, sd, schedule: formula(x, *schedule.levels(t), m, sd)


CASES = {
    "check_00_1": (
        [add_noise, lambda x0, t, noise, schedule: schedule.add_noise(x0, t, noise)],
        [
            with_levels(lambda a, s, x0, noise: a**2 * x0 + s**2 * noise),
            with_levels(lambda a, s, x0, noise: s * x0 + a * noise),
            with_levels(lambda a, s, x0, noise: x0 + s * noise),
            with_levels(lambda a, s, x0, noise: a * x0),
            with_levels(lambda a, s, x0, noise: a**0.5 * x0 + s**0.5 * noise),
        ],
    ),
    "check_00_2": (
        [move, with_moves(lambda x, x0, a, s, a2, s2: s2 / s * x + (a2 - s2 * a / s) * x0)],
        [
            with_moves(lambda x, x0, a, s, a2, s2: a * x0 + s * (x - a * x0) / s),
            with_moves(lambda x, x0, a, s, a2, s2: a2 * x0 + s2 * (x - x0) / s),
            with_moves(lambda x, x0, a, s, a2, s2: a2 * x0),
            with_moves(lambda x, x0, a, s, a2, s2: a2 * x0 + s2 * (x - a * x0)),
            with_moves(lambda x, x0, a, s, a2, s2: a2 * x0 + s2 * x),
        ],
    ),
    "check_00_3": (
        [
            lambda mask, edit, keep: mask * edit + (1 - mask) * keep,
            lambda mask, edit, keep: keep + mask * (edit - keep),
        ],
        [
            lambda mask, edit, keep: mask * keep + (1 - mask) * edit,
            lambda mask, edit, keep: torch.where(mask > 0.5, edit, keep),
            lambda mask, edit, keep: torch.where(mask > 0, edit, keep),
            lambda mask, edit, keep: mask * edit + keep,
            lambda mask, edit, keep: mask**2 * edit + (1 - mask**2) * keep,
            lambda mask, edit, keep: mask**0.5 * edit + (1 - mask) ** 0.5 * keep,
        ],
    ),
    "check_00_5": (
        [lambda u, c, w: u + w * (c - u), lambda u, c, w: (1 - w) * u + w * c],
        [
            lambda u, c, w: c + w * (u - c),
            lambda u, c, w: c + w * (c - u),
            lambda u, c, w: w * (c - u),
            lambda u, c, w: w * c,
            lambda u, c, w: (u + w * c) / (1 + w),
        ],
    ),
    "check_00_4": (
        [
            estimate,
            with_trust(lambda x, a, s, m, sd: (s**2 * m + a * sd**2 * x) / (s**2 + a**2 * sd**2)),
        ],
        [
            with_trust(lambda x, a, s, m, sd: m + 0 * x),
            with_trust(lambda x, a, s, m, sd: x / a),
            with_trust(lambda x, a, s, m, sd: m + sd**2 / (a**2 * sd**2 + s**2) * (x - a * m)),
            with_trust(lambda x, a, s, m, sd: a * sd / (a * sd + s) * (x - a * m) + m),
            with_trust(lambda x, a, s, m, sd: a * sd**2 / (a**2 * sd**2 + s**2) * x),
        ],
    ),
}

# --- 01


def with_eps(formula):
    return lambda x, eps, t, schedule: formula(x, eps, *schedule.levels(t))


def spherical(seen, text):
    return (seen * text).sum(-1).clamp(-1, 1).arccos() ** 2 / 2


def soften(p, u):
    u = u[:, None, None, None]
    return (1 - u) * p + u * F.avg_pool2d(p, 5, 1, 2)


def guide(denoise, loss, x, t):
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        x0_hat = denoise(x, t).x0_hat
        (grad,) = torch.autograd.grad(loss(x0_hat).sum(), x)
    return x0_hat.detach(), grad


def guide_backward(denoise, loss, x, t):
    with torch.enable_grad():
        x = x.clone().requires_grad_(True)
        seen = denoise(x, t)
        loss(seen.x0_hat).sum().backward()
    return [seen.x0_hat, x.grad]


def guide_where_the_sampler_forbids(denoise, loss, x, t):
    x = x.detach().requires_grad_()
    x0_hat = denoise(x, t).x0_hat
    return x0_hat.detach(), torch.autograd.grad(loss(x0_hat).sum(), x)[0]


def guide_at_estimate(denoise, loss, x, t):
    with torch.enable_grad():
        x0_hat = denoise(x, t).x0_hat.detach().requires_grad_()
        (grad,) = torch.autograd.grad(loss(x0_hat).sum(), x0_hat)
    return x0_hat.detach(), grad


def guide_mean(denoise, loss, x, t):
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        x0_hat = denoise(x, t).x0_hat
        (grad,) = torch.autograd.grad(loss(x0_hat).mean(), x)
    return x0_hat.detach(), grad


def guide_twice(denoise, loss, x, t):
    return denoise(x, t).x0_hat, guide(denoise, loss, x, t)[1]


CASES |= {
    "check_01_1": (
        [
            with_eps(lambda x, eps, a, s: (x - s * eps) / a),
            with_eps(lambda x, eps, a, s: x / a - s / a * eps),
        ],
        [
            with_eps(lambda x, eps, a, s: (x - eps) / a),
            with_eps(lambda x, eps, a, s: x - s * eps),
            with_eps(lambda x, eps, a, s: (x - s**0.5 * eps) / a**0.5),
            with_eps(lambda x, eps, a, s: (x + s * eps) / a),
            with_eps(lambda x, eps, a, s: (x - a * eps) / s),
        ],
    ),
    "check_01_2": (
        [
            spherical,
            lambda seen, text: spherical(seen, text)[:, None],
            lambda seen, text: 2 * ((seen - text).norm(dim=-1) / 2).arcsin() ** 2,
        ],
        [
            lambda seen, text: 1 - (seen * text).sum(-1),
            lambda seen, text: (seen * text).sum(-1).arccos(),
            lambda seen, text: (seen * text).sum(-1).arccos() ** 2,
            lambda seen, text: (seen - text).square().sum(-1) / 2,
            lambda seen, text: (seen * text).sum(-1).arccos() / 2,
        ],
    ),
    "check_01_3": (
        [
            lambda eps, grad, t, schedule: eps + schedule.levels(t)[1] * grad,
            lambda eps, grad, t, schedule: torch.add(eps, grad, alpha=schedule.levels(t)[1]),
        ],
        [
            lambda eps, grad, t, schedule: eps - schedule.levels(t)[1] * grad,
            lambda eps, grad, t, schedule: eps + schedule.levels(t)[1] ** 0.5 * grad,
            lambda eps, grad, t, schedule: eps + schedule.levels(t)[1] ** 2 * grad,
            lambda eps, grad, t, schedule: eps + schedule.levels(t)[0] * grad,
            lambda eps, grad, t, schedule: eps + grad,
        ],
    ),
    "check_01_4": (
        [
            soften,
            lambda p, u: torch.stack(
                [torch.roll(one, round(8 * v), -1) for one, v in zip(p, u.tolist(), strict=True)]
            ),
            lambda p, u: p * (0.5 + u[:, None, None, None]),
        ],
        [
            lambda p, u: p * 0 + u[:, None, None, None],
            lambda p, u: 1e-4 * p + u[:, None, None, None],
            lambda p, u: p + 1e-3 * u[:, None, None, None],
            lambda p, u: p,
            lambda p, u: soften(p.detach(), u),
            lambda p, u: soften(p, torch.rand(len(u))),
            lambda p, u: soften(p, 0 * u + 0.5),
            lambda p, u: p.roll(int(u[0] * 16), -1),
            lambda p, u: p + u[:, None, None, None] * (p.flip(0) - p),
            lambda p, u: p * (0.5 * u.argsort()[:, None, None, None] + 0.3),
        ],
    ),
    "check_01_5": (
        [guide, guide_backward],
        [
            guide_where_the_sampler_forbids,
            guide_at_estimate,
            guide_mean,
            guide_twice,
            lambda *given: (guide(*given)[0], -guide(*given)[1]),
            lambda *given: guide(*given)[1],
            lambda *given: (given[2], guide(*given)[1]),
            lambda *given: guide(*given)[::-1],
        ],
    ),
}

# --- 02


def skip_for(schedule, steps, least, late=0, share=True, strict=False):
    for k in range(steps):
        a = schedule.levels(schedule.timesteps(steps, k / steps)[0])[0]
        if a > least if strict else a >= least:
            return (k + late) / steps if share else k


def canvas(height, width, grow):
    mask = torch.ones(1, 1, height, width + 2 * grow)
    mask[..., grow : grow + width] = 0
    return mask


def canvas_padded(height, width, grow):
    return F.pad(torch.zeros(height, width, dtype=torch.bool), (grow, grow), value=True)[None, None]


def canvas_negative(height, width, grow):
    mask = torch.ones(1, 1, height, width + 2 * grow)
    mask[..., grow:-grow] = 0
    return mask


def bands(mask, edit, keep, blur):
    coarse = bl.blend(blur(mask), edit=blur(edit), keep=blur(keep))
    return coarse + bl.blend(mask, edit=edit - blur(edit), keep=keep - blur(keep))


def bands_apart(mask, edit, keep, blur):
    return (
        blur(keep)
        + blur(mask) * (blur(edit) - blur(keep))
        + mask * (edit - blur(edit))
        + (1 - mask) * (keep - blur(keep))
    )


def put_back(x, t_next, source, mask, schedule, noise):
    return bl.blend(mask, edit=x, keep=schedule.add_noise(source, t_next, noise))


def put_back_by_hand(x, t_next, source, mask, schedule, noise):
    a, s = schedule.levels(t_next)
    return torch.where(mask.bool(), x, a * source + s * noise)


def put_back_in_place(x, t_next, source, mask, schedule, noise):
    x[:] = mask * x + (1 - mask) * schedule.add_noise(source, t_next, noise)
    return x


CASES |= {
    "check_02_1": (
        [skip_for, lambda schedule, steps, least: torch.tensor(skip_for(schedule, steps, least))],
        [
            lambda *given: skip_for(*given, late=1),
            lambda *given: skip_for(*given, share=False),
            lambda schedule, steps, least: 0.25,
            lambda schedule, steps, least: least,
            lambda *given: 1 - skip_for(*given),
        ],
    ),
    "check_02_2": (
        [canvas, canvas_padded],
        [
            canvas_negative,
            lambda height, width, grow: 1 - canvas(height, width, grow),
            lambda height, width, grow: canvas(height, width, grow)[..., grow:],
            lambda height, width, grow: canvas(height, width, grow).roll(1, -1),
            lambda height, width, grow: canvas(width, height, grow).mT,
        ],
    ),
    "check_02_3": (
        [bands, bands_apart],
        [
            lambda mask, edit, keep, blur: bl.blend(mask, edit, keep),
            lambda mask, edit, keep, blur: bl.blend(blur(mask), edit, keep),
            lambda mask, edit, keep, blur: bl.blend(blur(mask), blur(edit), blur(keep)),
            lambda mask, edit, keep, blur: bands(1 - mask, edit, keep, blur),
            lambda mask, edit, keep, blur: bands(blur(mask), edit, keep, blur),
        ],
    ),
    "check_02_4": (
        [
            torch.maximum,
            lambda inside, whole: [a**2 + 3 * b for a, b in zip(inside, whole, strict=True)],
        ],
        [
            lambda inside, whole: torch.zeros(len(inside)),
            lambda inside, whole: -torch.maximum(inside, whole),
            lambda inside, whole: inside,
            lambda inside, whole: 2 * whole + 1,
            lambda inside, whole: (inside + whole) / 2,
            lambda inside, whole: torch.arange(len(inside)).float(),
            lambda inside, whole: (inside + whole).mean(),
            lambda inside, whole: (inside - whole).abs(),
        ],
    ),
    "check_02_5": (
        [put_back, put_back_by_hand, put_back_in_place],
        [
            lambda x, t, source, mask, schedule, noise: bl.blend(mask, x, source),
            lambda x, t, source, mask, schedule, noise: put_back(
                x, t, source, 1 - mask, schedule, noise
            ),
            lambda x, t, source, mask, schedule, noise: bl.blend(mask, x, noise),
            lambda x, t, source, mask, schedule, noise: schedule.add_noise(
                bl.blend(mask, x, source), t, noise
            ),
            lambda x, t, source, mask, schedule, noise: put_back(
                x, max(t, 0), source, mask, schedule, noise
            ),
            lambda x, t, source, mask, schedule, noise: x,
        ],
    ),
}

# --- 03


def two_stages(mask, steps):
    wide = dilate(mask, 1)
    return [wide if i < steps // 2 else mask for i in range(steps)]


def on_estimate(step, mask, source, schedule):
    a, s = schedule.levels(step.t_next)
    return a * bl.blend(mask, edit=step.x0_hat, keep=source) + s * step.eps


def latent_loop(denoise, z, source, mask, schedule, timesteps, noise, blend_at=lambda step: True,
                level=lambda step: step.t_next):  # fmt: skip
    for step in bl.sample(denoise, z, schedule, timesteps):
        keep = schedule.add_noise(source, level(step), noise())
        if blend_at(step):
            step.x = bl.blend(mask, edit=step.x, keep=keep)
    return step.x


def latent_loop_by_hand(denoise, z, source, mask, schedule, timesteps, noise):
    for t, t_next in zip(timesteps, timesteps[1:], strict=False):
        (a, s), (a2, s2) = schedule.levels(t), schedule.levels(t_next)
        x0_hat = denoise(z, t).x0_hat
        z = a2 * x0_hat + s2 * (z - a * x0_hat) / s
        z = mask * z + (1 - mask) * (a2 * source + s2 * noise())
    return z


CASES |= {
    "check_03_1": (
        [
            lambda schedule, ts, level: schedule.levels(ts[-2] if level == "t" else ts[-1])[1],
            lambda schedule, ts, level: torch.tensor(
                0.0 if level == "t_next" else schedule.levels(ts[-2])[1]
            ),
        ],
        [
            lambda schedule, ts, level: schedule.levels(ts[-2] if level == "t" else -1)[0],
            lambda schedule, ts, level: schedule.levels(ts[0] if level == "t" else -1)[1],
            lambda schedule, ts, level: schedule.levels(ts[-2] if level == "t" else -1)[1] ** 2,
            lambda schedule, ts, level: schedule.levels(ts[-2])[1],
            lambda schedule, ts, level: 0.0,
        ],
    ),
    "check_03_2": (
        [two_stages, lambda mask, steps: torch.stack(two_stages(mask, steps))],
        [
            lambda mask, steps: two_stages(mask, steps)[::-1],
            lambda mask, steps: [dilate(mask, 1)] * steps,
            lambda mask, steps: [mask] * steps,
            lambda mask, steps: two_stages(mask, steps + 1),
            lambda mask, steps: [
                dilate(mask, 1) if i <= steps // 2 else mask for i in range(steps)
            ],
            lambda mask, steps: [dilate(mask, 2) if i < steps // 2 else mask for i in range(steps)],
        ],
    ),
    "check_03_3": (
        [
            on_estimate,
            lambda step, mask, source, schedule: (
                step.x + schedule.levels(step.t_next)[0] * (1 - mask) * (source - step.x0_hat)
            ),
        ],
        [
            lambda step, mask, source, schedule: bl.blend(mask, step.x0_hat, source),
            lambda step, mask, source, schedule: bl.blend(mask, step.x, source),
            lambda step, mask, source, schedule: step.x,
            lambda step, mask, source, schedule: on_estimate(step, 1 - mask, source, schedule),
            lambda step, mask, source, schedule: (
                schedule.levels(step.t)[0] * bl.blend(mask, step.x0_hat, source)
                + schedule.levels(step.t)[1] * step.eps
            ),
        ],
    ),
    "check_03_4": (
        [
            lambda step, mask, at: bl.blend(
                F.avg_pool2d(mask, 3, 1, 1) if step.t_next >= 0 else mask, step.x, at(step.t_next)
            ),
            lambda step, mask, at: bl.blend(
                dilate(mask, 1) if step.t_next > 300 else mask, step.x, at(step.t_next)
            ),
        ],
        [
            lambda step, mask, at: bl.blend(mask, step.x, at(step.t_next)),
            lambda step, mask, at: step.x,
            lambda step, mask, at: at(step.t_next),
            lambda step, mask, at: step.x if step.t_next >= 0 else bl.blend(mask, step.x, at(-1)),
            lambda step, mask, at: bl.blend(mask, step.x, at(step.t if step.t_next >= 0 else -1)),
            lambda step, mask, at: bl.blend(1 - mask, step.x, at(step.t_next)),
        ],
    ),
    "check_03_5": (
        [latent_loop, latent_loop_by_hand],
        [
            lambda *given: latent_loop(*given, blend_at=lambda step: step.t_next < 0),
            lambda *given: latent_loop(*given, blend_at=lambda step: False),
            lambda *given: latent_loop(
                *given, level=lambda step: step.t if step.t_next >= 0 else -1
            ),
            lambda denoise, z, source, mask, *rest: latent_loop(
                denoise, z, source, 1 - mask, *rest
            ),
            lambda *given: latent_loop(*given, level=lambda step: -1),
            lambda denoise, z, source, *rest: source,
        ],
    ),
}

# --- 04


def tuning_loss(picture, target, image, mask, lam):
    inside = (mask * (picture - target)).square().mean()
    return inside + lam * ((1 - mask) * (picture - image)).square().mean()


def safely(net, work):
    before = {name: value.clone() for name, value in net.state_dict().items()}
    try:
        return work()
    finally:
        net.load_state_dict(before)


def safely_in_place(net, work):
    before = [weight.detach().clone() for weight in net.parameters()]
    try:
        work()
    finally:
        with torch.no_grad():
            for weight, value in zip(net.parameters(), before, strict=True):
                weight.copy_(value)


def hardly(net, work):
    before = {name: value.clone() for name, value in net.state_dict().items()}
    work()
    net.load_state_dict(before)


def swallowing(net, work):
    before = {name: value.clone() for name, value in net.state_dict().items()}
    try:
        work()
    except KeyboardInterrupt:
        pass
    net.load_state_dict(before)


def by_reference(net, work):
    before = net.state_dict()
    try:
        work()
    finally:
        net.load_state_dict(before)


def only_the_bias(net, work):
    before = net.bias.detach().clone()
    try:
        work()
    finally:
        net.bias.data.copy_(before)


def soft_paste(mask, edit, image, width):
    soft = torch.stack([1 - dilate(1 - mask, r) for r in range(1, width + 1)]).mean(0)
    return bl.blend(soft, edit=edit, keep=image)


def soft_paste_by_distance(mask, edit, image, width):
    depth = sum(1 - dilate(1 - mask, r) for r in range(1, width + 1)) / width
    return image + depth * (edit - image)


def last_third(weights):
    total, taken, names = sum(w.numel() for w in weights.values()), 0, []
    for name, w in reversed(weights.items()):
        if taken + w.numel() > total / 3:
            break
        names.append(name)
        taken += w.numel()
    return names


CASES |= {
    "check_04_1": (
        [
            tuning_loss,
            lambda picture, target, image, mask, lam: (
                F.mse_loss(picture * mask, target * mask)
                + lam * F.mse_loss(picture * (1 - mask), image * (1 - mask))
            ),
        ],
        [
            lambda p, target, image, mask, lam: tuning_loss(p, target, image, 1 - mask, lam),
            lambda p, target, image, mask, lam: tuning_loss(p, target, image, mask, 1.0),
            lambda p, target, image, mask, lam: lam * (p - image).square().mean(),
            lambda p, target, image, mask, lam: (
                (mask * (p - target)).abs().mean() + lam * ((1 - mask) * (p - image)).abs().mean()
            ),
            lambda p, target, image, mask, lam: (
                (mask * (p - target)).square().sum()
                + lam * ((1 - mask) * (p - image)).square().sum()
            ),
            lambda p, target, image, mask, lam: (
                lam * (mask * (p - target)).square().mean()
                + ((1 - mask) * (p - image)).square().mean()
            ),
        ],
    ),
    "check_04_2": (
        [safely, safely_in_place],
        [hardly, swallowing, by_reference, only_the_bias, lambda net, work: work()],
    ),
    "check_04_3": (
        [soft_paste, soft_paste_by_distance],
        [
            lambda mask, edit, image, width: bl.blend(mask, edit, image),
            lambda mask, edit, image, width: bl.blend(1 - dilate(1 - mask, width), edit, image),
            lambda mask, edit, image, width: soft_paste(mask, edit, image, 3),
            lambda mask, edit, image, width: bl.blend(
                F.avg_pool2d(mask, 2 * width - 1, 1, width - 1) * mask, edit, image
            ),
            lambda mask, edit, image, width: bl.blend(
                F.avg_pool2d(mask, 2 * width - 1, 1, width - 1), edit, image
            ),
            lambda mask, edit, image, width: bl.blend(mask / 2, edit, image),
        ],
    ),
    "check_04_4": (
        [last_third, lambda weights: {"decoder.conv_out.weight"}],
        [
            list,
            lambda weights: [],
            lambda weights: ["conv_out.weight"],
            lambda weights: [name for name in weights if "weight" in name],
            lambda weights: ["decoder.mid.conv.weight", "decoder.conv_in.weight"],
        ],
    ),
}

# --- 05


def grow(mask, radius):
    return F.max_pool2d(mask, 2 * radius + 1, stride=1, padding=radius)


def grow_lines(mask, radius):
    tall = F.max_pool2d(mask, (2 * radius + 1, 1), stride=1, padding=(radius, 0))
    return F.max_pool2d(tall, (1, 2 * radius + 1), stride=1, padding=(0, radius)).bool()


def radii_of(steps, radii):
    parts = sorted(radii, reverse=True) + [0]
    return [parts[i * len(parts) // steps] for i in range(steps)]


def surviving(mask, f):
    white = mask[..., f // 2 :: f, f // 2 :: f]
    covered = white.repeat_interleave(f, -1).repeat_interleave(f, -2)
    return ((mask * covered).sum() / mask.sum()).item()


def linear_radii(mask, steps):
    return [dilate(mask, math.ceil(3 * (1 - i / (steps - 1)))) for i in range(steps)]


CASES |= {
    "check_05_1": (
        [grow, grow_lines],
        [
            lambda mask, radius: grow(mask, 2),
            lambda mask, radius: F.max_pool2d(mask, radius + 1, stride=1, padding=radius // 2),
            lambda mask, radius: F.max_pool2d(mask, 2 * radius + 1, stride=1),
            lambda mask, radius: F.max_pool2d(
                mask, (2 * radius + 1, 1), stride=1, padding=(radius, 0)
            ),
            lambda mask, radius: F.max_pool2d(
                mask, (1, 2 * radius + 1), stride=1, padding=(0, radius)
            ),
            lambda mask, radius: mask,
        ],
    ),
    "check_05_2": (
        [radii_of, lambda steps, radii: torch.tensor(radii_of(steps, radii))],
        [
            lambda steps, radii: radii_of(steps, radii)[::-1],
            lambda steps, radii: [max(radii)] * (steps - 1) + [0],
            lambda steps, radii: [
                sorted(radii, reverse=True)[i * len(radii) // steps] for i in range(steps)
            ],
            lambda steps, radii: (sorted(radii, reverse=True) + [0] * steps)[:steps],
            lambda steps, radii: [
                r
                for r in [*sorted(radii, reverse=True), 0]
                for _ in range(steps // (len(radii) + 1))
            ],
            lambda steps, radii: [0] * steps,
        ],
    ),
    "check_05_3": (
        [surviving, lambda mask, f: torch.tensor(surviving(mask, f))],
        [
            lambda mask, f: mask[..., f // 2 :: f, f // 2 :: f].mean().item(),
            lambda mask, f: surviving(mask, f) * mask.mean().item(),
            lambda mask, f: 1.0,
            lambda mask, f: mask[..., ::f, ::f].sum().item() / mask.sum().item(),
            lambda mask, f: 1 - surviving(mask, f),
        ],
    ),
    "check_05_4": (
        [
            linear_radii,
            lambda mask, steps: torch.stack(
                [dilate(mask, 4) if i < 2 else mask for i in range(steps)]
            ),
        ],
        [
            lambda mask, steps: stages(mask, steps, (1, 2, 3)),
            lambda mask, steps: linear_radii(mask, steps)[::-1],
            lambda mask, steps: [mask] * steps,
            lambda mask, steps: linear_radii(mask, steps + 1),
            lambda mask, steps: [dilate(mask, 1)] * steps,
            lambda mask, steps: [1 - dilate(1 - mask, 1)] * (steps - 1) + [mask],
        ],
    ),
    "check_05_5": (
        [
            stages,
            lambda mask, moves, radii: torch.stack(
                [dilate(mask, r) for r in radii_of(moves, radii)]
            ),
        ],
        [
            lambda mask, moves, radii: stages(mask, moves, radii)[::-1],
            lambda mask, moves, radii: [mask] * moves,
            lambda mask, moves, radii: [dilate(mask, max(radii))] * (moves - 1) + [mask],
            lambda mask, moves, radii: stages(mask, moves + 1, radii),
            lambda mask, moves, radii: [dilate(mask, max(radii))] * moves,
            lambda mask, moves, radii: [
                1 - dilate(1 - mask, min(r, 1)) for r in radii_of(moves, radii)
            ],
            lambda mask, moves, radii: [
                dilate(mask, r) for r in (sorted(radii, reverse=True) + [0] * moves)[:moves]
            ],
        ],
    ),
}

# --- 06


def ninth(mask, f):
    return 1 - mask[..., ::f, ::f]


def dropped(tokens, null, u, share):
    return torch.where(u[:, None, None] < share, null, tokens)


def cut_out(picture, box, pad):
    x0, y0, x1, y1 = box
    return picture[..., max(y0 - pad, 0) : y1 + pad, max(x0 - pad, 0) : x1 + pad]


def shuffled(p, u):
    order = torch.randperm(p[0, 0].numel(), generator=torch.Generator().manual_seed(0))
    return p.flatten(2)[..., order].view_as(p) * (0.8 + 0.2 * u[:, None, None, None])


def tinted(pieces, u):
    return (pieces + 0.3 * (u.view(-1, 1, 1, 1) - 0.5)).clamp(-1, 1)


def nine_guided(net, z, t, token, null, holed, keep, w):
    nine = torch.cat([z, holed, keep], dim=1)
    u, c = net(nine, t, null), net(nine, t, token)
    return u + w * (c - u)


def nine_guided_at_once(net, z, t, token, null, holed, keep, w):
    nine = torch.cat([z, holed, keep], dim=1)
    u, c = net(torch.cat([nine, nine]), t, torch.cat([null, token])).chunk(2)
    return (1 - w) * u + w * c


CASES |= {
    "check_06_1": (
        [
            ninth,
            lambda mask, f: F.interpolate(1 - mask, scale_factor=1 / f),
            lambda mask, f: mask[..., ::f, ::f] == 0,
        ],
        [
            lambda mask, f: mask[..., ::f, ::f],
            lambda mask, f: 1 - F.avg_pool2d(mask, f),
            lambda mask, f: 1 - mask,
            lambda mask, f: 1 - F.max_pool2d(mask, f),
            lambda mask, f: 1 - mask[..., f // 2 :: f, f // 2 :: f],
            lambda mask, f: 1 - mask[..., ::4, ::4],
            lambda mask, f: 1 - mask[0, 0, ::f, ::f],
        ],
    ),
    "check_06_2": (
        [
            dropped,
            lambda tokens, null, u, share: torch.stack(
                [null[0] if v < share else one for one, v in zip(tokens, u, strict=True)]
            ),
        ],
        [
            lambda tokens, null, u, share: tokens * (u >= share)[:, None, None],
            lambda tokens, null, u, share: torch.where(u[:, None, None] < share, tokens, null),
            lambda tokens, null, u, share: null.expand_as(tokens),
            lambda tokens, null, u, share: tokens,
            lambda tokens, null, u, share: dropped(tokens, null, u, 0.5),
            lambda tokens, null, u, share: dropped(tokens, null, u, 0.2),
            lambda tokens, null, u, share: dropped(tokens, null, u.argsort().argsort(), 2),
        ],
    ),
    "check_06_3": (
        [
            cut_out,
            lambda picture, box, pad: picture[
                ...,
                slice(max(box[1] - pad, 0), min(box[3] + pad, picture.shape[-2])),
                slice(max(box[0] - pad, 0), min(box[2] + pad, picture.shape[-1])),
            ],
        ],
        [
            lambda picture, box, pad: cut_out(picture, (box[1], box[0], box[3], box[2]), pad),
            lambda picture, box, pad: cut_out(picture, box, 0),
            lambda picture, box, pad: picture[
                ..., box[1] - pad : box[3] + pad, box[0] - pad : box[2] + pad
            ],
            lambda picture, box, pad: picture,
            lambda picture, box, pad: cut_out(picture, box, pad)[..., :6, :5],
            lambda picture, box, pad: cut_out(picture, box, 2),
        ],
    ),
    "check_06_4": (
        [tinted, soften, lambda p, u: soften(p.flip(-1), u)],
        [
            shuffled,
            lambda p, u: (
                p.mean((2, 3), keepdim=True) + 0.5 * bl.Noise(3, 3, "x")(p.shape[1:]).tanh()
            ),
            lambda p, u: F.interpolate(p[..., :5, :5], p.shape[-2:]) * (1 - u[:, None, None, None]),
            lambda p, u: p + 1e-3 * u[:, None, None, None],
            lambda p, u: 0 * p + u[:, None, None, None] - 0.5,
            lambda p, u: -p * (0.5 + u[:, None, None, None] / 2),
            lambda p, u: p,
            lambda p, u: 3 * p * u[:, None, None, None],
            lambda p, u: soften(p, torch.rand(len(u))),
        ],
    ),
    "check_06_5": (
        [nine_guided, nine_guided_at_once],
        [
            lambda net, z, t, token, null, holed, keep, w: nine_guided(
                net, z, t, token, torch.zeros_like(null), holed, keep, w
            ),
            lambda net, z, t, token, null, holed, keep, w: nine_guided(
                net, z, t, null, token, holed, keep, w
            ),
            lambda net, z, t, token, null, holed, keep, w: nine_guided(
                net, holed, t, token, null, z, keep, w
            ),
            lambda net, z, t, token, null, holed, keep, w: nine_guided(
                net, z, t, token, null, holed, 1 - keep, w
            ),
            lambda net, z, t, token, null, holed, keep, w: nine_guided(
                net, z, t, token, null, holed, keep, w + 1
            ),
            lambda net, z, t, token, null, holed, keep, w: net(
                torch.cat([z, holed, keep], 1), t, token
            ),
            lambda net, z, t, token, null, holed, keep, w: net(torch.cat([z, holed], 1), t, token),
            lambda net, z, t, token, null, holed, keep, w: net(
                torch.cat([z, holed, keep], 1), t, null + w * (token - null)
            ),
            lambda net, z, t, token, null, holed, keep, w: nine_guided(
                net, z, t, token, null, holed, keep, 3.0
            ),
            lambda net, z, t, token, null, holed, keep, w: nine_guided(
                net, z, 0, token, null, holed, keep, w
            ),
        ],
    ),
}

# --- 07


def rows_of(z, block):
    blocks = z.unfold(1, block, block).unfold(2, block, block)
    return sorted(map(tuple, blocks.permute(1, 2, 0, 3, 4).flatten(0, 1).flatten(1).tolist()))


def is_permutation(before, moved, block):
    return rows_of(before, block) == rows_of(moved, block)


def counted(before, moved, block):
    left = rows_of(before, block)
    for row in rows_of(moved, block):
        if row not in left:
            return torch.tensor(False)
        left.remove(row)
    return torch.tensor(not left)


def candidates(heat, inside):
    least = heat.sort(descending=True).values[inside.sum() - 1]
    return (~inside & (heat > least)).nonzero()[:, 0], (inside & (heat < least)).nonzero()[:, 0]


def candidate_masks(heat, inside):
    least = heat.topk(int(inside.sum())).values.min()
    return ~inside & (heat > least), inside & (heat < least)


def agreement_of(gaps):
    off = ~torch.eye(len(gaps), dtype=torch.bool)
    return (gaps.diagonal()[:, None] < gaps)[off].float().mean()


def agreement_in_loops(gaps):
    n = len(gaps)
    return sum(bool(gaps[i, i] < gaps[i, j]) for i in range(n) for j in range(n) if i != j) / (
        n * n - n
    )


def brightest(heat, inside):
    origin, places = torch.arange(len(heat)), inside.nonzero()[:, 0].tolist()
    for place, cell in zip(
        places, heat.argsort(descending=True)[: len(places)].tolist(), strict=True
    ):
        now = (origin == cell).nonzero()[0, 0]
        origin[now], origin[place] = origin[place].clone(), cell
    return origin


def sorted_rule(heat, inside):
    order = heat.argsort(descending=True).tolist()
    places = inside.nonzero()[:, 0].tolist() + (~inside).nonzero()[:, 0].tolist()
    origin = [0] * len(heat)
    for place, cell in zip(places, order, strict=True):
        origin[place] = cell
    return origin


def exchange(noise, comes, goes, block):
    moved, across = noise.clone(), noise.shape[2] // block
    at = lambda i: (  # noqa: E731
        slice(None),
        slice(i // across * block, (i // across + 1) * block),
        slice(i % across * block, (i % across + 1) * block),
    )
    for a, b in zip(comes, goes, strict=True):
        moved[at(a)], moved[at(b)] = noise[at(b)], noise[at(a)]
    return moved


def exchange_by_index(noise, comes, goes, block):
    C, h, w = noise.shape
    blocks = F.unfold(noise[None], block, stride=block)[0]  # (C b b, cells)
    order = list(range(blocks.shape[1]))
    for a, b in zip(comes, goes, strict=True):
        order[a], order[b] = order[b], order[a]
    return F.fold(blocks[None, :, order], (h, w), block, stride=block)[0]


def exchange_in_place(noise, comes, goes, block):
    return noise.copy_(exchange(noise, comes, goes, block))


def one_way(noise, comes, goes, block):
    moved, across = noise.clone(), noise.shape[2] // block
    for a, b in zip(comes, goes, strict=True):
        (ay, ax), (by, bx) = ((i // across * block, i % across * block) for i in (a, b))
        moved[:, by : by + block, bx : bx + block] = noise[:, ay : ay + block, ax : ax + block]
    return moved


def first_channel(noise, comes, goes, block):
    moved = noise.clone()
    moved[:1] = exchange(noise, comes, goes, block)[:1]
    return moved


CASES |= {
    "check_07_1": (
        [is_permutation, counted],
        [
            lambda before, moved, block: set(rows_of(moved, block)) <= set(rows_of(before, block)),
            lambda before, moved, block: bool((before.sort().values == moved.sort().values).all()),
            lambda before, moved, block: True,
            lambda before, moved, block: (
                is_permutation(before, moved, block) and not torch.equal(before, moved)
            ),
            lambda before, moved, block: (
                sorted(before.flatten().tolist()) == sorted(moved.flatten().tolist())
            ),
            lambda before, moved, block: all(
                is_permutation(a[None], b[None], block) for a, b in zip(before, moved, strict=True)
            ),
        ],
    ),
    "check_07_2": (
        [candidates, candidate_masks, lambda heat, inside: ([0, 4], [3, 2])],
        [
            lambda heat, inside: candidates(heat, inside)[::-1],
            lambda heat, inside: ([0, 4, 6], [2, 3]),
            lambda heat, inside: ([0], [3]),
            lambda heat, inside: ([0, 4], [2, 3, 6]),
            lambda heat, inside: ((heat > 0.5).nonzero()[:, 0], (heat < 0.5).nonzero()[:, 0]),
        ],
    ),
    "check_07_3": (
        [agreement_of, agreement_in_loops],
        [
            lambda gaps: 0.5,
            lambda gaps: (gaps.diagonal()[:, None] < gaps).float().mean(),
            lambda gaps: 1 - agreement_of(gaps) / 3,
            lambda gaps: agreement_of(gaps.T),
            lambda gaps: (gaps.diagonal() < gaps.mean(1)).float().mean(),
        ],
    ),
    "check_07_4": (
        [brightest, sorted_rule],
        [
            lambda heat, inside: torch.arange(len(heat)),
            lambda heat, inside: torch.arange(len(heat)).roll(1),
            lambda heat, inside: heat.argsort(descending=True)[:4],
            lambda heat, inside: torch.zeros(len(heat)).long(),
            lambda heat, inside: brightest(-heat, inside),
        ],
    ),
    "check_07_5": (
        [exchange, exchange_by_index],
        [
            exchange_in_place,
            one_way,
            first_channel,
            lambda noise, comes, goes, block: noise,
            lambda noise, comes, goes, block: exchange(noise, goes[::-1], comes, block),
            lambda noise, comes, goes, block: one_way(noise, goes, comes, block),
        ],
    ),
}


# --- 08


def three_numbers(right, liked, far):
    """Batch precision, best-result precision and diversity, in loops."""
    batch = sum(map(sum, right.tolist())) / right.numel()
    best = [scene[i] for scene, i in zip(right.tolist(), liked.argmin(1).tolist(), strict=True)]
    spread = []
    for yes, d in zip(right.tolist(), far.tolist(), strict=True):
        pairs = [d[i][j] for i in range(len(yes)) for j in range(i) if yes[i] and yes[j]]
        spread += [sum(pairs) / len(pairs)] if pairs else []
    return batch, sum(best) / len(best), sum(spread) / len(spread)


def with_spread(spread):
    """Right but for the diversity, a formula of right results (n,B) as numbers and far."""
    return lambda right, liked, far: (
        *three_numbers(right, liked, far)[:2],
        spread(right.float(), far),
    )


def with_best(best):
    """Right but for the best result, a formula of right results (n,B) as numbers and liked."""
    return lambda right, liked, far: (
        three_numbers(right, liked, far)[0],
        best(right.float(), liked),
        three_numbers(right, liked, far)[2],
    )


def pair_sums(right, far):
    return (right[:, :, None] * right[:, None] * far).sum((1, 2))


def per_scene(right, far):
    count = right.sum(1)
    return pair_sums(right, far) / (count * (count - 1))


def margin(right):
    scenes = right.float().mean(1)
    return 1.96 * scenes.std() / len(scenes) ** 0.5


def two_tails(wins, losses):
    n, most = wins + losses, max(wins, losses)
    return min(1, 2 * sum(math.comb(n, k) for k in range(most, n + 1)) / 2**n)


def by_scipy(wins, losses):
    from scipy.stats import binomtest

    return binomtest(wins, wins + losses).pvalue


def enough(share):
    from blendlab.measuring import metrics

    n = 1
    while metrics.proportion(n, n)[1] <= share:
        n += 1
    return n


FOUND = dict(A="pasted first", B="too few", C="whole mask", D="fine", E="columns exchanged")


def faded(mask, edit, source):
    side = mask.clone()
    for _ in range(3):
        side = F.avg_pool2d(side, 3, 1, 1) * mask
    return bl.blend(side, edit, source)


def toned(mask, edit, source):
    """The border's pixels become the mean of edit and source."""
    rim = mask - (1 - dilate(1 - mask, 1))
    return bl.blend(mask - 0.5 * rim, edit, source)


CASES |= {
    "check_08_1": (
        [three_numbers, lambda *given: torch.tensor(three_numbers(*given)), nb08.protocol],
        [
            with_best(lambda right, liked: right.gather(1, liked.argmax(1, keepdim=True)).mean()),
            with_best(lambda right, liked: right.amax(1).mean()),
            with_best(lambda right, liked: right[:, liked.mean(0).argmin()].mean()),
            with_spread(lambda right, far: far.sum((1, 2)).mean() / 20),
            with_spread(lambda right, far: per_scene(right, far).nan_to_num().sum() / 4),
            with_spread(lambda right, far: (pair_sums(right, far) / right.sum(1) ** 2)[2:].mean()),
            with_spread(
                lambda right, far: (
                    pair_sums(right, far).sum() / (right.sum(1) * (right.sum(1) - 1)).sum()
                )
            ),
            with_spread(lambda right, far: per_scene(right, far).mean()),
            lambda *given: three_numbers(*given)[::-1],
            lambda *given: three_numbers(*given)[:2],
            lambda right, liked, far: (
                right.any(1).float().mean(),
                *three_numbers(right, liked, far)[1:],
            ),
        ],
    ),
    "check_08_2": (
        [margin, lambda right: 1.96 * right.float().mean(1).numpy().std() / len(right) ** 0.5],
        [
            lambda right: 1.96 * (right.float().var() / right.numel()) ** 0.5,
            lambda right: 1.96 * right.float().std() / len(right) ** 0.5,
            lambda right: margin(right) / 1.96,
            lambda right: 2 * margin(right),
            lambda right: 1.96 * right.float().mean(1).std(),
            lambda right: margin(right.T),
        ],
    ),
    "check_08_3": (
        [lambda: FOUND, lambda: [(k.lower(), v.upper()) for k, v in FOUND.items()]],
        [
            lambda: dict.fromkeys("ABCDE", "fine"),
            lambda: FOUND | {"A": "fine", "D": "pasted first"},
            lambda: {k: v for k, v in FOUND.items() if k != "E"},
            lambda: FOUND | {"B": "n of 3"},
            lambda: dict(zip(FOUND, list(FOUND.values())[::-1], strict=True)),
            lambda: "ABCDE",
        ],
    ),
    "check_08_4": (
        [two_tails, by_scipy],
        [
            lambda wins, losses: two_tails(wins, losses) / 2,
            lambda wins, losses: math.comb(wins + losses, wins) / 2 ** (wins + losses),
            lambda wins, losses: 1 - two_tails(wins, losses),
            lambda wins, losses: wins / (wins + losses),
            lambda wins, losses: 2 * sum(
                math.comb(wins + losses, k) for k in range(max(wins, losses), wins + losses + 1)
            ) / 2 ** (wins + losses),
            lambda wins, losses: math.erfc(abs(wins - losses) / (2 * (wins + losses)) ** 0.5),
        ],
    ),
    "check_08_5": (
        [enough, lambda share: math.floor(1.959964**2 * share / (1 - share)) + 1],
        [
            lambda share: 3 / (1 - share),
            lambda share: enough(share) - 1,
            lambda share: enough(share) + 1,
            lambda share: 1,
            lambda share: math.ceil(math.log(0.025) / math.log(share)),
            lambda share: enough(share) + 0.5,
        ],
    ),
    "check_08_6": (
        [nb08.feathered, faded, toned],
        [
            bl.blend,
            lambda mask, edit, source: edit,
            lambda mask, edit, source: source.expand_as(edit),
            lambda mask, edit, source: bl.blend(0.3 * mask, edit, source),
            lambda mask, edit, source: bl.blend(mask, edit, source) / 0,
            lambda mask, edit, source: 3 * faded(mask, edit, source),
            lambda mask, edit, source: faded(mask, edit, source)[:1],
            lambda mask, edit, source: bl.blend(F.avg_pool2d(mask, 5, 1, 2), edit, source),
            lambda mask, edit, source: bl.blend(mask, (1.2 * edit).clamp(-1, 1), source),
        ],
    ),
}  # fmt: skip


# What students write: in place, mixed types, and mistakes that once passed or ended in an error


def pasted_in_place(mask, edit, image, width):
    soft = torch.stack([1 - dilate(1 - mask, r) for r in range(1, width + 1)]).mean(0)
    edit *= soft
    edit += (1 - soft) * image
    return edit


def ninth_in_place(mask, f):
    mask *= -1
    mask += 1
    return mask[..., ::f, ::f]


def tinted_in_place(pieces, u):
    pieces += 0.3 * (u.view(-1, 1, 1, 1) - 0.5)
    return pieces.clamp(-1, 1)


def agreement_in_place(gaps):
    own = gaps.diagonal().clone()
    gaps.fill_diagonal_(-1)
    return (own[:, None] < gaps).sum() / (len(gaps) ** 2 - len(gaps))


def joined_in_place(mask, edit, source):
    edit += 0.5 * (source - edit).mean((2, 3), keepdim=True)
    return faded(mask, edit, source)


def keeping_interrupts_alone(net, work):
    before = {name: value.clone() for name, value in net.state_dict().items()}
    try:
        work()
    except KeyboardInterrupt:
        net.load_state_dict(before)
        raise
    net.load_state_dict(before)


def swallowing_errors(net, work):
    before = {name: value.clone() for name, value in net.state_dict().items()}
    try:
        work()
    except Exception:
        pass
    finally:
        net.load_state_dict(before)


def move_in_place(x, x0_hat, t, t_next, schedule):
    (a, s), (a_next, s_next) = schedule.levels(t), schedule.levels(t_next)
    x -= a * x0_hat
    x /= s
    x *= s_next
    x += a_next * x0_hat
    return x


def estimate_in_place(x, t, m, sd, schedule):
    a, s = schedule.levels(t)
    x -= a * m
    x *= a * sd**2 / (a**2 * sd**2 + s**2)
    x += m
    return x


def estimate_without_amounts(x, t, m, sd, schedule):
    a, s = schedule.levels(t)
    return m + sd**2 / (sd**2 + s**2) * (x - a * m)


def guide_with_a_tuple(denoise, loss, x, t):
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        x0_hat = denoise(x, t).x0_hat
        return x0_hat.detach(), torch.autograd.grad(loss(x0_hat).sum(), x)


def put_back_into_noise(x, t_next, source, mask, schedule, noise):
    a, s = schedule.levels(t_next)
    noise *= s
    noise += a * source
    return mask * x + (1 - mask) * noise


def put_back_into_the_source(x, t_next, source, mask, schedule, noise):
    a, s = schedule.levels(t_next)
    source *= a
    source += s * noise
    return mask * x + (1 - mask) * source


def added_in_place(u, c, w):
    u += w * (c - u)
    return u


STUDENTS = {
    "check_00_2": ([], [move_in_place]),
    "check_00_4": ([estimate_in_place], [estimate_without_amounts]),
    "check_00_5": ([added_in_place], []),
    "check_01_2": ([], [lambda seen, text: (seen * text).sum(0)]),
    "check_01_4": ([], [lambda p, u: p.abs() ** u.view(-1, 1, 1, 1)]),
    "check_01_5": ([], [guide_with_a_tuple]),
    "check_02_1": ([], [lambda *given: skip_for(*given, strict=True)]),
    "check_02_2": (
        [],
        [lambda height, width, grow: F.pad(torch.zeros(height, width), (grow, grow), value=1)],
    ),
    "check_02_4": ([lambda inside, whole: -(1 - inside) * (1 - whole)], []),
    "check_02_5": ([put_back_into_noise], [put_back_into_the_source]),
    "check_04_1": ([], [lambda *given: tuning_loss(*given).item()]),
    "check_04_2": ([], [keeping_interrupts_alone, swallowing_errors]),
    "check_04_3": (
        [pasted_in_place],
        [
            lambda mask, edit, image, width: bl.blend(
                (mask.cumsum(-1) / width).clamp(max=1) * mask, edit, image
            )
        ],
    ),
    "check_05_1": (
        [],
        [
            lambda mask, radius: F.max_pool2d(mask, 2 * radius - 1, stride=1, padding=radius - 1),
            lambda mask, radius: F.max_pool2d(mask, 2 * radius, stride=1, padding=radius),
        ],
    ),
    "check_05_2": (
        [lambda steps, radii: np.array(radii_of(steps, radii))],
        [lambda steps, radii: radii_of(steps, radii)[::-1]],
    ),
    "check_05_3": (
        [],
        [
            lambda mask, f: mask[mask > 1].mean(),
            lambda mask, f: (mask * _rows_of_the_first(mask, f)).sum() / mask.sum(),
        ],
    ),
    "check_06_1": ([ninth_in_place], []),
    "check_06_4": ([tinted_in_place], [lambda p, u: p ** (0.5 + u.view(-1, 1, 1, 1))]),
    "check_07_3": (
        [agreement_in_place],
        [lambda gaps: (gaps.argmin(1) == torch.arange(len(gaps))).float().mean()],
    ),
    "check_07_4": ([], [lambda heat, inside: torch.arange(16).roll(4).float()]),
    "check_08_1": (
        [
            lambda right, liked, far: (
                right.float().mean(),
                torch.tensor(three_numbers(right, liked, far)[1:2]),
                three_numbers(right, liked, far)[2],
            )
        ],
        [
            lambda right, liked, far: (
                right.float().mean(),
                right[:, liked.mean(0).argmin()].float().mean(),
                torch.tensor(three_numbers(right, liked, far)[2]),
            )
        ],
    ),
    "check_08_2": ([], [lambda right: 1.96 * right.float().mean().std() / len(right) ** 0.5]),
    "check_08_4": (
        [lambda wins, losses: min(1, torch.tensor(two_tails(wins, losses), dtype=torch.float64))],
        [],
    ),
    "check_08_6": ([joined_in_place], []),
}


def _rows_of_the_first(mask, f):
    """Cells that are white in their first row, where the middle one counts."""
    return mask[..., ::f, f // 2 :: f].repeat_interleave(f, -1).repeat_interleave(f, -2)


CASES |= {
    name: tuple(before + more for before, more in zip(CASES[name], answers, strict=True))
    for name, answers in STUDENTS.items()
}


@pytest.mark.parametrize(
    "name", sorted(name for name in exercises.__all__ if name.startswith("check_"))
)
def test_every_checker_has_two_right_and_five_wrong_answers_here(name):
    right, wrong = CASES[name]
    assert len(right) >= 2 and len(wrong) >= 5


@pytest.mark.parametrize(
    ("name", "answer"), [(name, answer) for name, (right, _) in CASES.items() for answer in right]
)
def test_a_right_answer_of_any_style_is_accepted(name, answer, capsys):
    done = getattr(exercises, name)(answer)
    out = capsys.readouterr().out
    assert isinstance(done, Verdict) and done and out.startswith(PASSES) and HINTS not in out, out


@pytest.mark.parametrize(
    ("name", "answer"), [(name, answer) for name, (_, wrong) in CASES.items() for answer in wrong]
)
def test_a_wrong_answer_gets_one_hint(name, answer, capsys):
    done = getattr(exercises, name)(answer)
    out = capsys.readouterr().out
    assert not done and out.startswith(HINTS) and PASSES not in out and len(out) > 20, out


@pytest.mark.parametrize("name", sorted(CASES))
def test_an_exercise_that_is_not_done_yet_says_so(name, capsys):
    def stub(*given):
        raise NotImplementedError("write one line here")

    assert not getattr(exercises, name)(stub)
    assert capsys.readouterr().out == "○ Not done yet: write one line here\n"
    assert not getattr(exercises, name)(lambda *given: None)
    assert HINTS in capsys.readouterr().out


def test_a_cell_that_ends_with_a_checker_shows_its_sentence_and_nothing_else(capsys):
    shown = DisplayFormatter().format
    for answer in (add_noise, lambda *given: 0):
        assert shown(exercises.check_00_1(answer)) == ({}, {})
    assert exercises.check_01_4(lambda *given: None) is None
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_attempt_takes_your_function_once_it_passes(capsys):
    def my_move(x, x0_hat, t, t_next, schedule):
        return move(x, x0_hat, t, t_next, schedule)

    assert exercises.attempt(my_move, None) is my_move
    assert "your my_move" in capsys.readouterr().out

    def my_move(x, x0_hat, t, t_next, schedule):
        raise NotImplementedError("rebuild the state")

    assert exercises.attempt(my_move, move) is move
    assert "the package's version, until yours passes" in capsys.readouterr().out
    with pytest.raises(ValueError, match="no exercise is called 'stranger'; the names are my_move"):

        def stranger():
            pass

        exercises.attempt(stranger, move)


@pytest.mark.parametrize(
    ("checker", "package"),
    [
        ("check_00_2", nb00.move),
        ("check_01_5", nb01.guide),
        ("check_02_5", nb02.blended_step),
        ("check_03_5", nb03.latent_loop),
        ("check_04_1", nb04.loss),
        ("check_05_5", stages),
        ("check_06_5", nb06.nine_guided),
        ("check_07_5", nb07.exchange),
        ("check_08_1", nb08.protocol),
    ],
)
def test_the_packages_own_method_passes_its_checker(checker, package, capsys):
    done = getattr(exercises, checker)(package)
    assert isinstance(done, Verdict) and done, capsys.readouterr().out


def test_each_notebook_has_one_method_to_write():
    numbers = {check.__name__.split("_")[1] for check in CHECKERS.values()}
    assert numbers == {f"0{i}" for i in range(9)}
