import pytest
import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler

from blendlab.schedule import Schedule


def test_levels_are_variance_preserving_and_minus_one_is_clean():
    schedule = Schedule.linear()
    a, s = schedule.levels(500)
    assert isinstance(a, float) and a**2 + s**2 == pytest.approx(1, abs=1e-15)
    assert schedule.levels(-1) == (1.0, 0.0)


def test_final_first_ends_moves_at_the_first_level_and_leaves_minus_one_clean():
    schedule = Schedule(Schedule.scaled_linear().abar, final="first")
    assert schedule.levels(-1) == (1.0, 0.0)
    assert schedule.target(-1) == schedule.levels(0) and schedule.target(20) == schedule.levels(20)
    assert schedule.target(-1)[1] == pytest.approx(
        0.0292, abs=1e-4
    )  # the noise that is left, sqrt(0.00085)


def test_add_noise_at_the_clean_level_returns_the_picture_exactly():
    x0 = torch.randn(2, 3, 4, 4)
    assert torch.equal(Schedule.linear().add_noise(x0, -1, torch.randn(2, 3, 4, 4)), x0)


def test_noised_pictures_have_the_mean_and_the_spread_of_the_formula():
    schedule, x0 = Schedule.linear(), torch.full((1, 1, 500, 500), 0.5)
    a, s = schedule.levels(300)
    x = schedule.add_noise(
        x0, 300, torch.randn(x0.shape, generator=torch.Generator().manual_seed(0))
    )
    assert x.mean().item() == pytest.approx(
        0.5 * a, abs=5 * s / 500
    )  # 250,000 draws: five standard errors
    assert x.std().item() == pytest.approx(s, rel=0.01)


@pytest.mark.parametrize("kind", ["linear", "scaled_linear"])
def test_levels_equal_diffusers(kind):
    # diffusers builds its alphas in float32: 1000 products of numbers near 1, each off by 6e-8
    betas = dict(linear=(1e-4, 0.02), scaled_linear=(0.00085, 0.012))[kind]
    theirs = DDIMScheduler(
        beta_start=betas[0], beta_end=betas[1], beta_schedule=kind
    ).alphas_cumprod
    torch.testing.assert_close(
        getattr(Schedule, kind)().abar, theirs.double(), rtol=1e-4, atol=1e-7
    )


@pytest.mark.parametrize("steps", [1, 7, 25, 50, 999])
@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
def test_timesteps_equal_diffusers(spacing, steps):
    theirs = DDIMScheduler(timestep_spacing=spacing, steps_offset=1)
    theirs.set_timesteps(steps)
    if (spacing, steps) == ("linspace", 1):
        return  # numpy's linspace of one point is 0: a sampler that starts at the clean end
    assert Schedule.from_scheduler(theirs).timesteps(steps) == theirs.timesteps.tolist() + [-1]


def test_skip_leaves_out_the_noisy_end():
    schedule = Schedule.scaled_linear()
    ts = schedule.timesteps(50, skip=0.25)  # text_editing_SD2.py: 38 steps, the first at 740
    assert ts[:2] == [740, 720] and ts[-2:] == [0, -1] and len(ts) == 38 + 1
    assert len(schedule.timesteps(100, skip=0.29)) == 71 + 1  # 100 * 0.29 is 28.999999999999996


def test_every_level_can_be_visited():
    assert Schedule.from_scheduler(DDIMScheduler(steps_offset=1)).timesteps(1000) == list(
        range(999, -2, -1)
    )


def test_from_scheduler_reads_betas_final_level_spacing_and_offset():
    schedule = Schedule.from_scheduler(DDIMScheduler(set_alpha_to_one=False, steps_offset=1))
    assert (schedule.final, schedule.spacing, schedule.offset) == ("first", "leading", 1)
    assert schedule.abar.dtype == torch.float64
    assert Schedule.from_scheduler(EulerDiscreteScheduler()).final == "clean"


def test_bad_numbers_are_refused_with_the_fix():
    schedule = Schedule.linear()
    with pytest.raises(ValueError, match="1 to 1000"):
        schedule.timesteps(0)
    with pytest.raises(ValueError, match="0.25 leaves out a quarter"):
        schedule.timesteps(50, skip=25)
    with pytest.raises(ValueError, match="'leading' or 'trailing' or 'linspace'"):
        schedule.timesteps(50, spacing="even")
    with pytest.raises(ValueError, match="19 or less"):
        schedule.timesteps(50, offset=20)
    with pytest.raises(ValueError, match="or spacing='leading'"):
        schedule.timesteps(50, spacing="trailing", offset=1)
    assert schedule.timesteps(50, offset=19)[0] == 999


def test_renoised_states_have_the_level_they_were_brought_up_to():
    schedule, g = Schedule.scaled_linear(), torch.Generator().manual_seed(0)
    x0, first, second = torch.randn(3, 1, 4, 64, 64, generator=g)
    for t_next in (300, -1):
        x = schedule.renoise(schedule.add_noise(x0, t_next, first), 600, t_next, second)
        a, s = schedule.levels(600)
        noise = (x - a * x0) / s
        assert noise.std().item() == pytest.approx(1, abs=0.03)  # 16384 draws: 0.6%
        assert (noise * x0).mean().item() == pytest.approx(0, abs=0.03)
    assert torch.equal(schedule.renoise(x0, 600, 600, first), x0)
