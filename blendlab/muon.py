"""Muon: momentum whose singular values are made equal before it moves a matrix.

Keller Jordan, "Muon: an optimizer for hidden layers in neural networks" (2024), with the scale of
arXiv 2502.16982, so that one learning rate serves matrices and everything else. torch.optim.Muon
takes matrices only, no convolutions, and works in bf16, which is slow on chips without it. Next:
training/harness.py and papers/decoder.py, which use it.
"""

import torch
from torch import Tensor, nn

COEFFICIENTS = 3.4445, -4.7750, 2.0315  # of the quintic polynomial in Jordan's code
ITERATIONS = 5


class Muon(torch.optim.AdamW):
    """AdamW, except for weights of two and more dimensions, which Muon moves.

    Kernels of convolutions count as matrices of one row for each output. Tables (nn.Embedding)
    and weights with a side shorter than `least` stay with AdamW.
    """

    def __init__(self, net: nn.Module, lr: float, momentum=0.95, least=16, **adamw):
        tables = {id(m.weight) for m in net.modules() if isinstance(m, nn.Embedding)}
        groups: dict[bool, list] = {True: [], False: []}
        for p in net.parameters():
            matrix = p.ndim > 1 and min(p.flatten(1).shape) >= least and id(p) not in tables
            groups[matrix].append(p)
        super().__init__(
            [
                {"params": params, "matrices": matrices, "momentum": momentum}
                for matrices, params in groups.items()
                if params
            ],
            lr,
            **adamw,
        )

    @torch.no_grad()
    def step(self, closure=None):
        found = getattr(self, "found_inf", None)  # in fp16 a fused optimizer skips what overflowed
        if found is not None and found:
            return None
        groups = self.param_groups
        self.param_groups = [group for group in groups if not group["matrices"]]
        try:
            loss = super().step(closure)
        finally:
            self.param_groups = groups
        for group in groups:
            for p in group["params"]:
                if group["matrices"] and p.grad is not None:
                    self._move(p, group)
        return loss

    def _move(self, p, group):
        state = self.state[p]
        if not state:  # AdamW counts steps too, and looks for them in what was saved
            state |= {"step": torch.zeros(()), "momentum": torch.zeros_like(p)}
        state["step"] += 1
        average = state["momentum"].lerp_(p.grad, 1 - group["momentum"])
        ahead = p.grad.lerp(average, group["momentum"]).flatten(1)  # Nesterov's
        p.mul_(1 - group["lr"] * group["weight_decay"])
        # 0.2 is the root mean square of AdamW's usual moves, in units of lr.
        scale = 0.2 * max(ahead.shape) ** 0.5
        p.sub_(equalised(ahead).view_as(p), alpha=group["lr"] * scale)


def equalised(x: Tensor) -> Tensor:
    """A matrix (m,n) with the singular vectors of x and singular values near 1 (0.7 to 1.2).

    Singular values far below the largest need more iterations and stay smaller. All iterations run
    on the small side's Gram matrix A = x x^T: x <- (a + b A + c A^2) x commutes with A.
    """
    if x.shape[0] > x.shape[1]:
        return equalised(x.T).T
    a, b, c = COEFFICIENTS
    x = x / x.norm().clamp(min=1e-7)
    gram, one = x @ x.T, torch.eye(len(x), device=x.device, dtype=x.dtype)
    product = one
    for _ in range(ITERATIONS):
        polynomial = a * one + b * gram + c * gram @ gram
        product, gram = polynomial @ product, polynomial @ gram @ polynomial
    return product @ x
