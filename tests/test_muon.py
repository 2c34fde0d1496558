"""Muon moves matrices by their singular vectors, and leaves everything else to AdamW."""

import pytest
import torch
from torch import nn

from blendlab.muon import COEFFICIENTS, Muon, equalised

HOW = {"betas": (0.9, 0.99), "weight_decay": 0.01}


def matrix(m, n, least=0.1, seed=0):
    """A matrix whose singular values run from 1 to `least`."""
    g = torch.Generator().manual_seed(seed)
    u, _, v = torch.linalg.svd(torch.randn(m, n, generator=g), full_matrices=False)
    return u * torch.linspace(1, least, min(m, n)) @ v


@pytest.mark.parametrize("shape", [(24, 24), (24, 80), (80, 24)])
def test_equalised_keeps_the_singular_vectors_and_brings_their_values_near_one(shape):
    u, _, v = torch.linalg.svd(matrix(*shape), full_matrices=False)
    values = u.T @ equalised(matrix(*shape)) @ v.T
    torch.testing.assert_close(values, values.diag().diag(), rtol=0, atol=1e-4)
    assert 0.65 < values.diag().min() and values.diag().max() < 1.25


def test_equalised_is_what_the_plain_iteration_gives():
    x = matrix(24, 80, least=1e-3)
    a, b, c = COEFFICIENTS
    plain = x / x.norm()
    for _ in range(5):
        gram = plain @ plain.T
        plain = a * plain + (b * gram + c * gram @ gram) @ plain
    torch.testing.assert_close(equalised(x), plain, rtol=1e-4, atol=1e-5)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.table, self.conv = nn.Embedding(32, 16), nn.Conv2d(16, 32, 3)
        self.norm, self.last = nn.GroupNorm(4, 32), nn.Linear(32, 3)


def moved(make):
    """How far each weight moves in three steps with gradients that are always the same."""
    net, g = Net(), torch.Generator().manual_seed(1)
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    for p in net.parameters():
        p.grad = torch.randn(p.shape, generator=g)
    optimizer = make(net)
    for _ in range(3):
        optimizer.step()
    return {name: p.detach() - before[name] for name, p in net.named_parameters()}


def test_what_is_no_matrix_moves_as_with_adamw():
    ours = moved(lambda net: Muon(net, 0.01, **HOW))
    adamw = moved(lambda net: torch.optim.AdamW(net.parameters(), 0.01, **HOW))
    assert {name for name in ours if not torch.equal(ours[name], adamw[name])} == {"conv.weight"}


def test_a_kernel_moves_as_far_as_with_adamw_and_along_all_its_singular_vectors():
    ours = moved(lambda net: Muon(net, 0.01, betas=(0.9, 0.99), weight_decay=0.0))["conv.weight"]
    # Three moves of 0.2 lr each, times what is left off full size: singular values of 0.7 to 1.2.
    assert 0.7 < ours.square().mean().sqrt() / (3 * 0.2 * 0.01) < 1.2
    values = torch.linalg.svdvals(ours.flatten(1))
    assert values.min() > 0.5 * values.max()


def test_a_step_that_overflowed_in_half_precision_is_skipped_as_with_fused_adamw():
    net = Net()
    optimizer = Muon(net, 0.01, **HOW)
    for p in net.parameters():
        p.grad = torch.full_like(p, float("inf"))
    before = [p.detach().clone() for p in net.parameters()]
    optimizer.found_inf = torch.ones(1)  # GradScaler's word
    optimizer.step()
    assert all(map(torch.equal, net.parameters(), before))


def test_a_weight_without_a_gradient_stays():
    net = Net()
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    Muon(net, 0.01, **HOW).step()
    assert all(torch.equal(p, before[name]) for name, p in net.named_parameters())
