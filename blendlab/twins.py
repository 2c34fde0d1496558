"""A network of one's own: the same weights, and nothing else that is shared.

Hooks, other weights and modes go to a twin, so the network that everybody uses never changes: not
for another thread, and not when an interrupt falls between two lines. That is why editing takes no
locks. The exception is attention.capture, which watches the network itself, and there minds its own
thread only. Next: latents.py and attention.py.
"""

import copy
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn


def twin(network: nn.Module, convert: Callable[[str, Tensor], Tensor] | None = None) -> nn.Module:
    """A network with the same modules, modes and hooks, in lists of its own; weights are shared.

    convert: gives from the name of a weight or buffer, and from its values, what the twin has in
             its place; the twin then wants no gradients and has none.
    """
    memo: dict[int, Any] = {}  # what deepcopy finds here, it does not copy
    for name, x in [*network.named_parameters(), *network.named_buffers()]:
        y = x if convert is None else convert(name, x.detach())
        same = convert is None or not isinstance(x, nn.Parameter)
        memo[id(x)] = y if same else nn.Parameter(y, requires_grad=False)
    for module in network.modules():
        for name, value in list(vars(module).items()):
            if name == "_hf_hook":  # accelerate's: it knows the whole pipeline
                memo[id(value)] = value
            elif "_hooks" in name and isinstance(value, dict):
                memo[id(value)] = value.copy()  # at one go, whatever other threads add meanwhile
    return copy.deepcopy(network, memo)
