"""What all checkers share: try your function, compare it, and say in one sentence how it went.

A checker prints its sentence and returns whether the exercise is done, true or false; a notebook
does not echo that below the sentence.
"""

from collections.abc import Callable
from functools import wraps

import torch
from torch import Tensor

from ...noise import Noise

CHECKERS: dict[str, Callable] = {}  # name of a function that the reader writes: its checker


def guarded(check: Callable) -> Callable:
    """The checker, with a sentence where an odd answer would end it in an error."""

    @wraps(check)
    def safe(mine):
        try:
            return check(mine)
        except Exception as error:
            hint = f"your answer stops the check with {type(error).__name__}: {error}"
            return say(False, "", hint)

    return safe


def writes(name: str):
    """Register the decorated checker for the reader's function `name`, see `attempt`."""

    def register(check):
        CHECKERS[name] = guarded(check)
        return CHECKERS[name]

    return register


def attempt(mine: Callable, package: Callable) -> Callable:
    """Your function once its checker accepts it, the package's until then; says which.

    So the rest of a notebook runs on your own code, and also before you have written it.
    """
    if mine.__name__ not in CHECKERS:
        known = ", ".join(CHECKERS)
        raise ValueError(f"no exercise is called {mine.__name__!r}; the names are {known}")
    done = CHECKERS[mine.__name__](mine)
    whose = f"your {mine.__name__}" if done else "the package's version, until yours passes"
    print(f"  The cells below use {whose}.")
    return mine if done else package


def fresh(function: Callable) -> Callable:
    """The function, on copies of the tensors that it is given: it may work in place."""
    return lambda *given: function(*(g.clone() if isinstance(g, Tensor) else g for g in given))


def points(check: Callable, mine: Callable, worth: float = 1) -> float:
    """All points if the checker passes, else none; nbgrader takes the number that a cell shows."""
    return float(worth) if check(mine) else 0.0


class Verdict(int):
    """True or false, and nothing to see where a cell ends with it."""

    def _ipython_display_(self):
        pass


def say(done: bool, well: str, hint: str) -> Verdict:
    print(f"✓ {well}" if done else f"✗ Not yet: {hint}")
    return Verdict(bool(done))


def advise(wrong: dict[str, bool], well: str) -> Verdict:
    """Say the first hint whose mistake was made, or that all is well."""
    hint = next((hint for hint, made in wrong.items() if made), "")
    return say(not hint, well, hint)


def tried(function: Callable, *arguments):
    """What the function returns for copies of these arguments, or None with a hint printed while
    its line or its `return` is still missing, or when it raises an error.
    """
    try:
        mine = fresh(function)(*arguments)
    except NotImplementedError as hint:
        return print(f"○ Not done yet: {hint}")
    except Exception as error:
        return print(f"✗ Not yet: your function stops with {type(error).__name__}: {error}")
    if mine is None or isinstance(mine, (list, tuple)) and any(one is None for one in mine):
        return print("✗ Not yet: your function gives nothing back; end it with `return`.")
    return mine


def tensor(mine) -> Tensor | None:
    """Numbers, lists of tensors, booleans: all as one float tensor; None for anything else."""
    try:
        if isinstance(mine, (list, tuple)) and any(isinstance(one, Tensor) for one in mine):
            each = [torch.as_tensor(one).detach().float() for one in mine]
            numbers = all(one.numel() == 1 for one in each)
            mine = torch.stack([one.reshape(()) if numbers else one for one in each])
        return torch.as_tensor(mine).detach().float()
    except (TypeError, ValueError, RuntimeError):
        return None


def close(mine, right) -> bool:
    """Whether two answers are equal up to rounding; (B,1) serves for (B,), booleans for 0 and 1."""
    mine, right = tensor(mine), tensor(right)
    if mine is None or mine.numel() != right.numel():
        return False
    mine, plain = mine.squeeze(), right.squeeze()
    return mine.shape == plain.shape and torch.allclose(mine, plain, atol=1e-5)


def sized(mine, right) -> bool:
    """Whether an answer has the shape of the right one, apart from axes of length 1."""
    mine = tensor(mine)
    return mine is not None and mine.squeeze().shape == right.squeeze().shape


def smooth_pictures(n: int, seed: int) -> Tensor:
    """Pictures (n,3,16,16) in [-1,1] of soft patches, each with a colour of its own."""
    patches = Noise(seed, n, "initial")((3, 4, 4)) * 0.3
    colour = 0.4 * torch.eye(3)[torch.arange(n) % 3].view(n, 3, 1, 1) - 0.1
    shown = torch.nn.functional.interpolate(patches, (16, 16), mode="bilinear")
    return (shown + colour).clamp(-1, 1)


def check_augmentation(
    mine_of: Callable, pictures: Tensor, u: Tensor, also: dict, well: str
) -> Verdict | None:
    """What an augmentation of pictures (B,3,S,S) by u (B,) has to do; also: {hint: own test}."""
    mine_of = fresh(mine_of)
    mine = tried(mine_of, pictures, u)
    if mine is None:
        return None
    shaped = isinstance(mine, Tensor) and mine.shape == pictures.shape
    if not shaped:
        hint = "as many pictures must come out as went in, of the same size, in one tensor."
        return say(False, "", hint)
    change = (mine - pictures).square().mean().sqrt()
    kept = mine.flatten(1).std(1) / pictures.flatten(1).std(1)
    wrong = {
        "some numbers in it are NaN or infinite.": not mine.isfinite().all(),
        "nothing was changed.": change == 0,
        "the change is too small to see: make it stronger.": change < 0.02,
        "the pictures are lost: what they show has to survive.": bool((kept < 0.2).any()),
        **{hint: bool(made(mine)) for hint, made in also.items()},
        "the same number must give the same change: take it from u.": not torch.equal(
            mine, mine_of(pictures, u)
        ),
        "u must matter.": torch.equal(mine, mine_of(pictures, u.flip(0))),
        "each picture must follow its own number, whatever is beside it.": not close(
            mine, torch.cat([mine_of(pictures[i : i + 1], u[i : i + 1]) for i in range(len(u))])
        ),
    }
    return advise(wrong, well)
