import pytest
import torch

from blendlab.noise import Noise

SHAPE = (4, 8, 8)


def test_sample_i_draws_the_same_whatever_n_is():
    alone, together = Noise(0, 1, "step"), Noise(0, 8, "step")
    for _ in range(3):
        assert torch.equal(alone(SHAPE)[0], together(SHAPE)[0])
    assert torch.equal(Noise(0, 1, "step", start=5)(SHAPE)[0], Noise(0, 8, "step")(SHAPE)[5])


def test_drawing_for_one_purpose_does_not_move_another():
    before = Noise(0, 2, "step")
    augment, after = Noise(0, 2, "augment"), Noise(0, 2, "step")
    augment(SHAPE)
    assert torch.equal(before(SHAPE), after(SHAPE))


def test_seeds_samples_purposes_and_draws_are_independent():
    background = Noise(0, 2, "background")
    initial = [Noise(seed, 2, "initial")(SHAPE) for seed in (0, 1)]
    rows = torch.cat([*initial, background(SHAPE), background(SHAPE)]).flatten(1)  # (8, 256)
    correlations = torch.corrcoef(rows) - torch.eye(8)
    assert correlations.abs().max() < 0.3  # 256 numbers each: one standard error is 0.06


def test_noise_is_standard_normal_float32():
    noise = Noise(3, 4, "initial")((1, 100, 100))
    assert noise.dtype == torch.float32 and noise.shape == (4, 1, 100, 100)
    assert noise.mean().item() == pytest.approx(
        0, abs=0.02
    )  # 40,000 draws: one standard error is 0.005
    assert noise.std().item() == pytest.approx(1, abs=0.02)


def test_the_global_generator_is_left_alone():
    torch.manual_seed(0)
    wanted = torch.rand(3)
    torch.manual_seed(0)
    Noise(0, 2, "initial")(SHAPE)
    assert torch.equal(torch.rand(3), wanted)


def test_noise_that_knows_its_shape_draws_the_same_without_arguments():
    known, told = Noise(0, 2, "step", shape=SHAPE), Noise(0, 2, "step")
    for _ in range(2):
        assert torch.equal(known(), told(SHAPE))


@pytest.mark.parametrize("seed", [True, 1.0, None, torch.Generator()])
def test_a_seed_that_is_no_integer_is_refused(seed):
    with pytest.raises(ValueError, match="not an integer"):
        Noise(seed, 1, "initial")
