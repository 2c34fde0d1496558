"""A network of one's own: the same weights, and nothing else that is shared.

Hooks, other weights and modes go to a twin, so the network that everybody uses never changes: not
for another thread, and not when an interrupt falls between two lines. The exception is
attention.capture, which watches the network itself. Next: latents.py and attention.py.
"""

import copy
import threading
from collections.abc import Callable
from weakref import WeakKeyDictionary

from torch import Tensor, nn

_locks: WeakKeyDictionary = WeakKeyDictionary()
_guard = threading.Lock()


def lock(network: nn.Module) -> threading.RLock:
    """The one lock of a network. A thread that wants it waits.

    It is held while hooks come and go and while a twin is made, which takes milliseconds, and never
    while a network runs.
    """
    with _guard:
        return _locks.setdefault(network, threading.RLock())


def twin(network: nn.Module, convert: Callable[[str, Tensor], Tensor] | None = None) -> nn.Module:
    """A network with the same modules, modes and hooks, each its own; the weights are shared.

    convert: gives from the name of a weight or buffer, and from its values, what the twin has in
             its place; the twin then wants no gradients and has none.
    """
    with lock(network):
        memo = {}  # what deepcopy finds here, it does not copy
        for name, x in [*network.named_parameters(), *network.named_buffers()]:
            y = x if convert is None else convert(name, x.detach())
            same = convert is None or not isinstance(x, nn.Parameter)
            memo[id(x)] = y if same else nn.Parameter(y, requires_grad=False)
        for module in network.modules():  # accelerate's hooks know the whole pipeline
            hook = getattr(module, "_hf_hook", None)
            memo[id(hook)] = hook
        return copy.deepcopy(network, memo)
