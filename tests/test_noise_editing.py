"""What the tables of papers measure with, on cases whose answers are known."""

import math

import pytest
import torch

from blendlab import world
from blendlab.measuring import exemplars, noise_editing, tables


def test_things_are_different_kinds_in_a_prompt_that_names_them_all():
    for count in (1, 2, 3):
        for phrases, prompt in noise_editing.naming(12, count):
            kinds = [phrase.split()[-1] for phrase in phrases]
            assert len(set(kinds)) == count and all(phrase in prompt for phrase in phrases)
            assert set(kinds) <= set(world.KINDS)


def test_attention_beside_the_thing_costs_the_logarithm_of_what_falls_on_it():
    nouns = torch.tensor([7, 9])  # ids of the first and second kind
    kind = torch.zeros(2, 4, 4, dtype=torch.long)
    kind[0, :, :2] = 1  # a thing of the first kind in the left half
    ids = torch.tensor([[0, 7, 1], [0, 9, 1]])  # the second caption names what is not there
    batch = {"kind": kind, "ids": ids, "t": torch.tensor([900, 900])}
    heat = torch.full((2, 4, 4, 3), 0.5)
    assert noise_editing.beside(heat, batch, nouns).item() == pytest.approx(math.log(2))
    heat[0, :, 2:, 1] = 0
    assert noise_editing.beside(heat, batch, nouns).item() == pytest.approx(0)
    clean = batch | {"t": torch.tensor([100, 900])}
    # little noise does not count, nor what no caption names
    assert noise_editing.beside(1 - heat, clean, nouns) == 0


@pytest.mark.parametrize("table, networks", [(exemplars.ladder, 3), (tables.optimizers, 2)])
def test_a_table_says_how_to_train_what_does_not_ship(table, networks, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(exemplars, "side", lambda pipe: 64)
    how = f"it does not ship; train it as {table.__module__}.{table.__name__} says"
    with pytest.raises(FileNotFoundError, match=how):
        table(3, *[None] * networks)
