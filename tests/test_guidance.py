import pytest
import torch

from blendlab.guidance import cfg, denoiser, loss_guided
from blendlab.sampler import Prediction, last, sample
from blendlab.schedule import Schedule

schedule = Schedule.scaled_linear()
x = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
text, null = torch.full((1, 5, 6), 1.0), torch.zeros(1, 5, 6)


class Net:
    """Counts its calls. What it says depends on the text, so that guidance has something to do."""

    dtype = torch.float32

    def __init__(self):
        self.calls, self.batches, self.seen = 0, [], None

    def __call__(self, x, t, encoder_hidden_states=None, added_cond_kwargs=None):
        self.calls, self.seen = self.calls + 1, (x.dtype, encoder_hidden_states, added_cond_kwargs)
        self.batches.append(len(x))
        push = (
            0
            if encoder_hidden_states is None
            else encoder_hidden_states.mean((1, 2))[:, None, None, None]
        )
        return torch.tanh(x) + push


def test_epsilon_v_and_sample_predictions_agree_on_a_known_picture():
    x0, noise = (
        torch.rand(1, 3, 8, 8, dtype=torch.float64),
        torch.randn(1, 3, 8, 8, dtype=torch.float64),
    )
    for t in (0, 400, 999):
        a, s = schedule.levels(t)
        says = {"epsilon": noise, "v_prediction": a * noise - s * x0, "sample": x0}
        for prediction, out in says.items():
            net = denoiser(lambda x, t, out=out: out, schedule, prediction)
            # epsilon divides by a, 0.07 at level 999: rounding of 1e-16 grows 15 times
            torch.testing.assert_close(net(a * x0 + s * noise, t).x0_hat, x0, rtol=0, atol=1e-14)


def test_the_same_network_told_as_epsilon_and_as_v_samples_the_same():
    def v_of_eps(x, t):
        a, s = schedule.levels(int(t[0]))
        eps = torch.tanh(x)
        return a * eps - s * (x - s * eps) / a

    z, ts = x.double(), schedule.timesteps(20)
    by_eps = last(sample(denoiser(lambda x, t: torch.tanh(x), schedule), z, schedule, ts))
    by_v = last(sample(denoiser(v_of_eps, schedule, "v_prediction"), z, schedule, ts))
    torch.testing.assert_close(
        by_v, by_eps, rtol=0, atol=1e-12
    )  # float64; 20 steps that divide by a >= 0.08


def test_cfg_is_one_network_call_per_step():
    unet = Net()
    last(
        sample(cfg(denoiser(unet, schedule), text, null, 5.0), x, schedule, schedule.timesteps(10))
    )
    assert unet.calls == 10 and set(unet.batches) == {4}


def test_cfg_is_u_plus_w_times_c_minus_u():
    net = denoiser(Net(), schedule)
    u, c = net(x, 500, null).x0_hat, net(x, 500, text).x0_hat
    torch.testing.assert_close(cfg(net, text, null, 3.0)(x, 500).x0_hat, u + 3 * (c - u))


def test_w_1_is_the_plain_conditional_model_at_half_the_cost():
    unet = Net()
    net = denoiser(unet, schedule)
    assert torch.equal(cfg(net, text, null, 1.0)(x, 500).x0_hat, net(x, 500, text).x0_hat)
    assert unet.batches == [2, 2]


def test_conditions_may_be_one_per_row_or_a_dict():
    unet = Net()
    per_row = torch.stack([text[0], 2 * text[0]])
    cfg(denoiser(unet, schedule), per_row, null, 2.0)(x, 500)
    assert unet.seen[1][:, 0, 0].tolist() == [0, 0, 1, 2]

    def sdxl(tokens, pooled):
        added = {"text_embeds": torch.full((1, 3), pooled)}
        return {"encoder_hidden_states": tokens, "added_cond_kwargs": added}

    cfg(denoiser(unet, schedule), sdxl(text, 5.0), sdxl(null, 4.0), 2.0)(x, 500)
    assert unet.seen[2]["text_embeds"][:, 0].tolist() == [4, 4, 5, 5]


def test_a_half_precision_network_keeps_a_float32_state():
    unet = Net()
    unet.dtype = torch.bfloat16
    seen = cfg(denoiser(unet, schedule), text, null, 5.0)(x, 500)
    assert unet.seen[0] == torch.bfloat16 and unet.seen[1].dtype == torch.bfloat16
    assert seen.x0_hat.dtype == torch.float32


def test_a_learned_variance_without_timesteps_is_left_out():
    net = denoiser(lambda x, t: torch.cat([x, x], 1), schedule)
    assert net(x, 500).var is None and net(x, 500).x0_hat.shape == x.shape


def test_loss_guided_gives_the_gradient_by_hand():
    # x0_hat = k x, loss = |x0_hat - target|^2 summed: the gradient is 2 k (k x - target).
    k, target = 0.3, torch.ones_like(x)
    loss = lambda x0_hat, x, t: ((x0_hat - target) ** 2).sum((1, 2, 3))  # noqa: E731
    with torch.no_grad():
        seen = loss_guided(lambda x, t: Prediction(k * x), loss)(x, 500)
    torch.testing.assert_close(seen.grad, 2 * k * (k * x - target))
    torch.testing.assert_close(seen.x0_hat, k * x)  # without a scale the estimate is left as it is
    assert not seen.x0_hat.requires_grad and not seen.grad.requires_grad


def test_loss_guided_differentiates_through_the_network():
    conv = torch.nn.Conv2d(4, 4, 3, padding=1).double().requires_grad_(False)
    loss = lambda x0_hat, x, t: (x0_hat**2).mean() + x.mean()  # noqa: E731
    guided = loss_guided(denoiser(lambda x, t: conv(x), schedule), loss)
    z, (a, s) = x.double().requires_grad_(), schedule.levels(500)
    by_hand = torch.autograd.grad((((z - s * conv(z)) / a) ** 2).mean() + z.mean(), z)[0]
    torch.testing.assert_close(guided(z.detach(), 500).grad, by_hand)


def test_loss_guided_runs_the_network_once_per_step_and_leaves_gradients_to_the_body():
    unet = Net()
    guided = loss_guided(denoiser(unet, schedule), lambda x0_hat, x, t: (x0_hat**2).mean())
    for step in sample(
        guided, x, schedule, schedule.timesteps(10), 1.0, lambda: torch.zeros_like(x)
    ):
        step.x = step.x - 0.1 * step.var * step.grad  # Blended Diffusion's ancestral shift
    assert unet.calls == 10 and not step.x.requires_grad


def test_loss_guided_with_a_scale_moves_the_estimate():
    half = lambda x, t: Prediction(0.5 * x)  # noqa: E731
    guided = loss_guided(half, lambda x0_hat, x, t: x0_hat.sum(), schedule, scale=2.0)
    a, s = schedule.levels(300)
    torch.testing.assert_close(guided(x, 300).x0_hat, 0.5 * x - 2.0 * s**2 / a * 0.5)


def test_guidance_pulls_samples_towards_the_loss():
    bright = lambda x0_hat, x, t: ((x0_hat - 1) ** 2).mean((1, 2, 3))  # noqa: E731
    unit = lambda x, t: Prediction(schedule.levels(t)[0] * x)  # noqa: E731  the denoiser of N(0, 1)
    plain = last(sample(unit, x, schedule, schedule.timesteps(20)))
    pulled = last(
        sample(loss_guided(unit, bright, schedule, 100.0), x, schedule, schedule.timesteps(20))
    )
    assert (pulled - 1).abs().mean() < 0.6 * (plain - 1).abs().mean()


@pytest.mark.parametrize(
    "loss",
    [
        lambda x0_hat, x, t: torch.ones(2),
        lambda x0_hat, x, t: x0_hat.detach().square().mean(),
        lambda x0_hat, x, t: torch.ones(2, requires_grad=True).sum(),
    ],
)
def test_a_loss_that_forgets_its_input_is_refused(loss):
    with pytest.raises(ValueError, match="the loss does not depend on x0_hat: compute it from"):
        loss_guided(lambda x, t: Prediction(0.5 * x), loss)(x, 500)


def test_guidance_in_inference_mode_names_no_grad():
    guided = loss_guided(lambda x, t: Prediction(0.5 * x), lambda x0_hat, x, t: x0_hat.sum())
    with torch.inference_mode(), pytest.raises(RuntimeError, match=r"take torch.no_grad\(\)"):
        guided(x, 500)
    with torch.no_grad():
        assert torch.equal(guided(x, 500).grad, torch.full_like(x, 0.5))


def test_an_unknown_prediction_is_refused_with_the_choices():
    with pytest.raises(ValueError, match="'epsilon' or 'v_prediction' or 'sample'"):
        denoiser(Net(), schedule, "flow")


def test_a_learned_variance_keeps_above_that_of_the_move_before_where_the_last_move_ends_clean():
    timesteps = [400, 200, 0, -1]
    lowest = denoiser(
        lambda x, t: torch.cat([x, -torch.ones_like(x)], 1), schedule, "sample", timesteps
    )
    (a, s), (a_0, s_0) = schedule.levels(200), schedule.levels(0)
    posterior = (s_0 / s) ** 2 * (1 - (a / a_0) ** 2)  # beta tilde of the move from 200 to 0
    torch.testing.assert_close(lowest(x, 0).var, torch.full_like(x, posterior))
    torch.testing.assert_close(lowest(x, 200).var, torch.full_like(x, posterior))


def test_all_noise_and_a_prediction_of_noise_is_refused_with_the_fix():
    abar = schedule.abar.clone()
    abar[-1] = 0.0
    net = denoiser(Net(), Schedule(abar))
    with pytest.raises(ValueError, match="skip=1/steps"):
        net(x, 999)
    assert net(x, 998).x0_hat.isfinite().all()


def test_a_scale_needs_levels_with_a_picture_in_them():
    with pytest.raises(ValueError, match="pass schedule="):
        loss_guided(lambda x, t: Prediction(x), lambda x0_hat, x, t: x0_hat.sum(), scale=1.0)
    abar = Schedule.scaled_linear().abar.clone()
    abar[-1] = 0.0  # zero terminal SNR
    loss = lambda x0_hat, x, t: x0_hat.sum()  # noqa: E731
    guided = loss_guided(lambda x, t: Prediction(x), loss, Schedule(abar), 1.0)
    with pytest.raises(ValueError, match="level 999 holds no picture"):
        guided(torch.zeros(1, 1, 2, 2), 999)
