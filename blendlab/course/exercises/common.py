"""What all checkers share: try your function, and say in one sentence how it went."""

from collections.abc import Callable

import torch


def say(done: bool, well: str, hint: str) -> None:
    print(f"✓ {well}" if done else f"✗ Not yet: {hint}")


def advise(wrong: dict[str, bool], well: str) -> None:
    """Say the first hint whose mistake was made, or that all is well."""
    hint = next((hint for hint, made in wrong.items() if made), "")
    say(not hint, well, hint)


def tried(function: Callable, *arguments):
    """What the function returns, or None with a hint printed while its line, or its `return`, is
    still missing.
    """
    try:
        mine = function(*arguments)
    except NotImplementedError as hint:
        return print(f"○ Not done yet: {hint}")
    if mine is None:
        print("✗ Not yet: your function gives nothing back; end it with `return`.")
    return mine


def close(mine, right) -> bool:
    return (
        isinstance(mine, torch.Tensor)
        and mine.shape == right.shape
        and torch.allclose(mine, right, atol=1e-5)
    )


def check_augmentation(
    mine_of: Callable, pictures, u, also: dict[str, Callable], well: str
) -> None:
    """What an augmentation of pictures (B,3,S,S) by u (B,) has to do; also: hints and tests of its
    own.
    """
    mine = tried(mine_of, pictures, u)
    if mine is not None:
        shaped = isinstance(mine, torch.Tensor) and mine.shape == pictures.shape
        wrong = {
            "as many pictures must come out as went in, of the same size.": not shaped,
            **{hint: shaped and made(mine) for hint, made in also.items()},
            "nothing was changed.": shaped and torch.equal(mine, pictures),
            "the same number must give the same change: take it from u.": shaped
            and not torch.equal(mine, mine_of(pictures, u)),
            "u must matter.": shaped and torch.equal(mine, mine_of(pictures, u.flip(0))),
        }
        advise(wrong, well)
