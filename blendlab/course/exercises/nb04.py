"""Checkers of notebook 04, decoder tuning."""

from collections.abc import Callable

import torch

from ...noise import Noise
from ...papers.decoder import background_loss
from .common import advise, close, fresh, guarded, say, tried, writes

loss = background_loss  # the package's, for `attempt`


@writes("my_loss")
def check_04_1(my_loss: Callable) -> bool:
    """my_loss(picture, target, image, mask, lam) -> section 4.2's loss, as means of all pixels."""
    picture, target, image = Noise(10, 3, "initial")((3, 6, 6)).split(1)
    picture = picture.clone().requires_grad_()
    mask = torch.zeros(1, 1, 6, 6)
    mask[..., :2] = 1
    mine = tried(my_loss, picture, target, image, mask, 100.0)
    if mine is not None:
        inside, outside = (
            (mask * (picture - target)).square(),
            ((1 - mask) * (picture - image)).square(),
        )
        swapped = ((1 - mask) * (picture - target)).square().mean() + 100 * (
            mask * (picture - image)
        ).square().mean()
        wrong = {
            "1 is edit: the target inside, the image outside.": close(mine, swapped),
            "lam weighs the outside.": close(mine, 100 * inside.mean() + outside.mean()),
            "squares, then means: an L1 loss lets faces blur.": close(
                mine, inside.sqrt().mean() + 100 * outside.sqrt().mean()
            ),
            "means, not sums, or the size of the picture weighs too.": close(
                mine, inside.sum() + 100 * outside.sum()
            ),
            "means over the whole picture, zeros included, not over the mask.": close(
                mine, inside.sum() / (3 * mask.sum()) + 100 * outside.sum() / (3 * (1 - mask).sum())
            ),
            "two terms: which pictures does each compare, and which one has lam?": not close(
                mine, inside.mean() + 100 * outside.mean()
            ),
            "training follows its gradient: give back a tensor, without .item() or .detach().": (
                not getattr(mine, "requires_grad", False)
            ),
        }
        return advise(wrong, "the edit is kept, and the background counts lam times as much.")


@guarded
def check_04_2(safely: Callable) -> bool:
    """safely(net, work): runs work(), which changes net and may raise; net is as before."""
    net = torch.nn.Linear(2, 2)
    before = {name: value.clone() for name, value in net.state_dict().items()}

    def spoil():
        with torch.no_grad():
            for weight in net.parameters():
                weight.add_(1)

    def stopped(by):
        spoil()
        raise by

    def there():
        return all(torch.equal(value, before[name]) for name, value in net.state_dict().items())

    try:
        safely(net, spoil)
    except NotImplementedError as hint:
        return print(f"○ Not done yet: {hint}")
    restored, back, through = there(), True, 0
    for error in (KeyboardInterrupt, ZeroDivisionError):
        net.load_state_dict(before)
        try:
            safely(net, lambda: stopped(error))  # noqa: B023
        except error:
            through += 1
        back = back and there()
    wrong = {
        "the weights are still the changed ones; did you clone them first?": not restored,
        "after an interrupt or error the weights are not back: put that into `finally`.": not back,
        "an interrupt or error got lost: `finally` lets it through, `except` does not.": through
        < 2,
    }
    return advise(wrong, "whatever happens, the network is as it was.")


@guarded
def check_04_3(soft_paste: Callable) -> bool:
    """soft_paste(mask, edit, image, width) -> the source; inside the edit fades in over width."""
    mask, edit, image = (
        torch.zeros(1, 1, 16, 16),
        torch.ones(1, 3, 16, 16),
        -torch.ones(1, 3, 16, 16),
    )
    mask[..., 3:13, 3:13] = 1
    soft_paste = fresh(soft_paste)
    mine = tried(soft_paste, mask, edit, image, 3)
    if mine is None:
        return None
    if not isinstance(mine, torch.Tensor) or mine.shape != edit.shape:
        return say(False, "", "a picture (1,3,H,W) has to come out.")
    wider = soft_paste(mask, edit, image, 5)
    row, wide = mine[0, 0, 8, 3:9], wider[0, 0, 8, 3:9]  # from the border inwards, -1 to 1
    wrong = {
        "outside the mask it is not the source any more: fade inside.": not torch.equal(
            mine * (1 - mask), image * (1 - mask)
        ),
        "in the middle of the mask the edit has to be whole.": bool(row[5] < 0.99),
        "that is a hard paste: the first pixels inside are a mixture.": bool(
            ((row > -0.99) & (row < 0.99)).sum() == 0
        ),
        "it fades from one side only: do all four alike.": not all(
            close(x, mine) for x in (mine.flip(-1), mine.flip(-2), mine.mT)
        ),
        "at the border it jumps: begin with little of the edit.": bool(row[0] > 0.2),
        "the further inside, the more of the edit.": bool((row.diff() < -1e-6).any()),
        "width must matter: a larger one fades for longer.": bool((wide >= row - 1e-6).all()),
    }
    return advise(wrong, "no edge to see, and not one pixel outside has changed.")


@guarded
def check_04_4(my_choice: Callable) -> bool:
    """my_choice({name: tensor}) -> names of the weights to tune, at most a third of all numbers."""
    sizes = {
        "conv_in.weight": 9,
        "mid.conv.weight": 30,
        "up.0.conv.weight": 30,
        "up.0.norm.bias": 3,
        "up.1.conv.weight": 20,
        "up.1.norm.bias": 3,
        "conv_norm_out.weight": 2,
        "conv_out.weight": 8,
    }
    weights = {f"decoder.{name}": torch.zeros(size) for name, size in sizes.items()}
    mine = tried(my_choice, weights)
    if mine is not None:
        mine = list(mine)
        known = set(mine) <= set(weights)
        share = sum(weights[name].numel() for name in mine) / sum(sizes.values()) if known else 0
        wrong = {
            "names of weights, as they are in the dictionary.": not known,
            "choose at least one.": not mine,
            f"that is {share:.0%} of the numbers: at most a third.": share > 1 / 3,
        }
        return advise(wrong, f"{share:.0%} of the numbers. What background do they reach?")
