from dataclasses import replace
from itertools import islice

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler

from blendlab.guidance import denoiser
from blendlab.sampler import Prediction, last, sample
from blendlab.schedule import Schedule


def toy(x, t, **_):
    """A smooth stand-in for a network, bounded so that errors do not grow."""
    return torch.tanh(x + x.flip(-1) + t[0].double() / 1000)


def matched(scheduler_class, **config):
    """A diffusers scheduler and our schedule with the same float64 alphas."""
    theirs, schedule = scheduler_class(clip_sample=False, **config), Schedule.scaled_linear()
    theirs.alphas_cumprod, theirs.final_alpha_cumprod = (
        schedule.abar,
        torch.tensor(1.0, dtype=torch.float64),
    )
    theirs.one = theirs.final_alpha_cumprod
    return theirs, schedule


def start(dtype=torch.float64):
    return torch.randn(2, 3, 8, 8, dtype=dtype, generator=torch.Generator().manual_seed(0))


# Both sides compute the same float64 formula in a different order: 50 steps of a few roundings of
# 1e-16, on values up to about 10; the first division, by a = 0.07, magnifies them 15 times. 1e-12
# leaves two digits.
TOLERANCE = dict(rtol=0, atol=1e-12)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("n", [10, 50])
def test_eta_0_equals_DDIM_step_for_step(n, prediction):
    theirs, schedule = matched(DDIMScheduler, prediction_type=prediction)
    theirs.set_timesteps(n)
    x = start()
    for step in sample(denoiser(toy, schedule, prediction), x, schedule, schedule.timesteps(n)):
        x = theirs.step(toy(x, torch.tensor([step.t])), step.t, x).prev_sample
        torch.testing.assert_close(step.x, x, **TOLERANCE)


@pytest.mark.parametrize("n", [10, 50])
def test_eta_1_equals_DDPM_step_for_step(n):
    theirs, schedule = matched(DDPMScheduler, variance_type="fixed_small")
    theirs.set_timesteps(n)
    ours_noise, their_noise = (torch.Generator().manual_seed(1) for _ in range(2))
    x = start()
    draw = lambda: torch.randn(x.shape, dtype=x.dtype, generator=ours_noise)  # noqa: E731
    for step in sample(
        denoiser(toy, schedule), x, schedule, schedule.timesteps(n), eta=1.0, noise=draw
    ):
        x = theirs.step(
            toy(x, torch.tensor([step.t])), step.t, x, generator=their_noise
        ).prev_sample
        torch.testing.assert_close(step.x, x, **TOLERANCE)


def test_a_learned_variance_equals_DDPM_with_a_learned_range():
    def net(x, t, **_):
        return torch.cat([toy(x, t), torch.cos(3 * x)], 1)  # noise, and a share between the bounds

    theirs, schedule = matched(DDPMScheduler, variance_type="learned_range")
    theirs.set_timesteps(50)
    ours_noise, their_noise = (torch.Generator().manual_seed(1) for _ in range(2))
    x, ts = start(), schedule.timesteps(50)
    draw = lambda: torch.randn(x.shape, dtype=x.dtype, generator=ours_noise)  # noqa: E731
    for step in sample(denoiser(net, schedule, timesteps=ts), x, schedule, ts, eta=1.0, noise=draw):
        x = theirs.step(
            net(x, torch.tensor([step.t])), step.t, x, generator=their_noise
        ).prev_sample
        torch.testing.assert_close(step.x, x, **TOLERANCE)
        assert step.var.shape == x.shape


@pytest.mark.parametrize("eta", [0.1, 0.5, 1.0])
def test_a_learned_variance_that_is_DDPMs_changes_nothing_at_any_eta(eta):
    schedule, fresh = Schedule.scaled_linear(), start()
    plain = denoiser(toy, schedule)
    ts = schedule.timesteps(20)
    one = list(sample(plain, start(), schedule, ts, eta=1.0, noise=lambda: fresh))
    learned = iter([step.var for step in one])

    def other(x, t):
        return replace(plain(x, t), var=torch.tensor(next(learned), dtype=torch.float64))

    ours, theirs = (
        last(sample(net, start(), schedule, ts, eta=eta, noise=lambda: fresh))
        for net in (plain, other)
    )
    torch.testing.assert_close(ours, theirs, **TOLERANCE)


def test_eta_in_between_equals_DDIM():
    theirs, schedule = matched(DDIMScheduler)
    theirs.set_timesteps(20)
    x, fresh, ts = start(), start(), schedule.timesteps(20)
    for step in sample(denoiser(toy, schedule), x, schedule, ts, eta=0.5, noise=lambda: fresh):
        x = theirs.step(
            toy(x, torch.tensor([step.t])), step.t, x, eta=0.5, variance_noise=fresh
        ).prev_sample
        torch.testing.assert_close(step.x, x, **TOLERANCE)


def test_final_first_equals_DDIM_with_set_alpha_to_one_false():
    theirs, schedule = matched(DDIMScheduler)
    theirs.final_alpha_cumprod = schedule.abar[0]
    schedule = Schedule(schedule.abar, final="first", offset=1)
    theirs.set_timesteps(20)
    theirs.timesteps += 1
    x = start()
    for step in sample(denoiser(toy, schedule), x, schedule, schedule.timesteps(20)):
        x = theirs.step(toy(x, torch.tensor([step.t])), step.t, x).prev_sample
        torch.testing.assert_close(step.x, x, **TOLERANCE)


def test_a_perfect_denoiser_of_a_gaussian_gives_back_that_gaussian():
    # For pictures drawn from N(2, 0.5^2) the best estimate is known in closed form.
    schedule, mean, std = Schedule.scaled_linear(), 2.0, 0.5

    def denoise(x, t):
        a, s = schedule.levels(t)
        return Prediction(mean + a * std**2 / (a**2 * std**2 + s**2) * (x - a * mean))

    g = torch.Generator().manual_seed(0)
    draw, ts = lambda: torch.randn(40_000, 1, 1, 1, generator=g), schedule.timesteps(1000)  # noqa: E731
    x = schedule.add_noise(mean + std * draw(), ts[0], draw())
    for eta in (0.0, 1.0):
        out = last(sample(denoise, x, schedule, ts, eta, draw))
        # Four standard errors are 0.01 and 0.007; 1000 moves cost another 0.004 of the spread.
        assert out.mean().item() == pytest.approx(mean, abs=0.01)
        assert out.std().item() == pytest.approx(std, abs=0.011)


def test_what_the_reader_assigns_to_x_feeds_the_next_step():
    schedule = Schedule.linear()
    seen = []

    def denoise(x, t):
        seen.append(x.clone())
        return Prediction(torch.zeros_like(x))

    for step in islice(sample(denoise, start(), schedule, schedule.timesteps(10)), 2):
        step.x = torch.full_like(step.x, 7.0)
    assert (seen[1] == 7).all()


def test_steps_tell_where_they_are():
    schedule = Schedule.linear()
    steps = list(sample(lambda x, t: Prediction(x), start(), schedule, schedule.timesteps(4)))
    assert [(s.i, s.t, s.t_next) for s in steps] == [
        (0, 750, 500),
        (1, 500, 250),
        (2, 250, 0),
        (3, 0, -1),
    ]
    assert torch.equal(steps[-1].x, steps[-1].x0_hat)  # the clean level: all picture, no noise


def test_gradients_stay_enabled_in_the_loop_body_but_the_network_builds_no_graph():
    schedule, enabled = Schedule.linear(), []

    def denoise(x, t):
        enabled.append(torch.is_grad_enabled())
        return Prediction(x)

    for step in sample(denoise, start(), schedule, schedule.timesteps(3)):
        assert torch.is_grad_enabled() and not step.x.requires_grad
        x = step.x.requires_grad_()
        (x**2).sum().backward()
        assert torch.equal(x.grad, 2 * x)
    assert enabled == [False] * 3 and torch.is_grad_enabled()


def test_the_state_is_float32_and_float64_stays():
    schedule = Schedule.linear()
    for given in (torch.float16, torch.float32, torch.float64):
        out = last(
            sample(lambda x, t: Prediction(x), start(given), schedule, schedule.timesteps(3))
        )
        assert out.dtype == (torch.float64 if given == torch.float64 else torch.float32)


def test_fresh_noise_has_to_be_given():
    schedule = Schedule.linear()
    with pytest.raises(ValueError, match="pass noise="):
        next(sample(lambda x, t: Prediction(x), start(), schedule, schedule.timesteps(3), eta=1.0))


def test_levels_that_rise_are_refused():
    schedule = Schedule.linear()
    with pytest.raises(ValueError, match="t is None, not an integer"):
        next(sample(lambda x, t: Prediction(x), start(), schedule, [400, None]))
    for levels in ([0, 200, 400], schedule.timesteps(3)[::-1]):
        with pytest.raises(ValueError, match="timesteps rise: pass levels that fall"):
            next(sample(lambda x, t: Prediction(x), start(), schedule, levels))


def test_steps_that_are_used_up_have_no_last_state():
    schedule = Schedule.linear()
    steps = sample(lambda x, t: Prediction(x), start(), schedule, schedule.timesteps(3))
    last(steps)
    with pytest.raises(ValueError, match="no step is left"):
        last(steps)
