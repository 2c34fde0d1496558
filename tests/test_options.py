"""Options: who is asked first, and what is refused."""

import inspect
import math
import warnings
from dataclasses import dataclass, fields
from types import SimpleNamespace
from typing import Literal

import numpy as np
import pytest
import torch

from blendlab import cards
from blendlab.options import Options, number, settle
from blendlab.papers import methods


@dataclass(frozen=True)
class Baking(Options):
    oven: Literal["gas", "wood"] = "gas"
    crust: Literal["thin", "thick"] | None = None
    minutes: float | None = None


def bake(*, steps=None, seed=0, **options):
    """A method, whose further options are those of Baking."""


PRESETS = {"naples": Baking(oven="wood", minutes=1.5)}


@pytest.fixture
def choose(monkeypatch):
    monkeypatch.setattr(
        cards, "settings", lambda model, method: {"minutes": model.minutes} if model.minutes else {}
    )

    def choose(preset=None, minutes_of_model=None, **asked):
        model = SimpleNamespace(minutes=minutes_of_model)
        return settle(Baking, bake, model, PRESETS, {"minutes": 12.0}, preset, asked)

    return choose


def test_what_was_asked_for_comes_first_then_preset_model_and_fallback(choose):
    assert choose().minutes == 12 and choose(minutes_of_model=8.0).minutes == 8
    assert choose("naples", minutes_of_model=8.0) == Baking("wood", None, 1.5)
    assert choose("naples", minutes=3.0, oven=None) == Baking("wood", None, 3.0)
    assert choose(Baking(crust="thin")).crust == "thin"


@pytest.mark.parametrize("method", methods().values(), ids=list(methods()))
def test_help_shows_every_option_of_a_method(method):
    shown = inspect.signature(method.change).parameters
    assert {f.name for f in fields(method.kind)} < shown.keys() and "options" not in shown


def test_words_that_a_field_does_not_know_are_refused():
    with pytest.raises(ValueError, match="oven is 'coal'; choose 'gas' or 'wood'"):
        Baking(oven="coal")
    with pytest.raises(ValueError, match="crust is 'none'; choose 'thin' or 'thick'"):
        Baking(crust="none")
    with pytest.raises(ValueError, match="oven is None; choose"):
        Baking(oven=None)
    assert Baking(crust=None).crust is None


def test_unknown_options_and_presets_are_named(choose):
    wanted = "bake has no option 'salt'; it has oven, crust, minutes, steps, seed"
    with pytest.raises(TypeError, match=wanted):
        choose(salt=1)
    with pytest.raises(ValueError, match="no preset 'rome'; choose naples, or pass a Baking"):
        choose("rome")
    with pytest.raises(TypeError, match=wanted):  # a card's own
        settle(Baking, bake, None, PRESETS, {}, None, {}, recommended={"salt": 1})


# Types and ranges

BAD_NUMBERS = [
    ("w", math.nan, "w is nan; a guidance weight"),
    ("w", 1e38, "-1000 to 1000"),
    ("w", "4", "w is '4', not a number"),
    ("w", True, "w is True, not a number"),
    ("eta", -1, "eta is -1; the share of fresh noise.*0 to 1"),
    ("eta", 10.0, "0 to 1"),
    ("steps", 2.5, "steps is 2.5, not an integer"),
    ("steps", True, "not an integer"),
    ("skip", 25, "0.25 leaves out a quarter"),
    ("scale", math.inf, "scale is inf"),
    ("scale", 1e30, "scale is 1e.30"),
    ("lr", 1e9, "it says how far a step goes"),
    ("resamplings", 0, "the passes at each level"),
    ("around", 0.5, "1 to 100"),
    ("paste", "no", "paste is 'no'; choose True or False"),
    ("paste", 1, "paste is 1; choose True or False"),
]


@dataclass(frozen=True)
class Numbers(Options):
    w: float | None = None
    eta: float | None = None
    steps: int | None = None
    skip: float | None = None
    scale: float | None = None
    lr: float | None = None
    resamplings: int = 1
    around: float | None = None
    paste: bool = False


@pytest.mark.parametrize("name, value, sentence", BAD_NUMBERS)
def test_numbers_of_another_type_or_out_of_range_are_refused(name, value, sentence):
    with pytest.raises(ValueError, match=sentence):
        Numbers(**{name: value})


def test_usual_numbers_pass():
    Numbers(w=4, eta=1, steps=50, skip=0, scale=1000, lr=0.1, resamplings=3, around=1.5, paste=True)
    Numbers(w=np.float32(7.5), steps=np.int64(50))


def test_the_seed_is_an_integer_and_a_generator_gets_its_fix():
    for bad in (True, 1.0, None, "0"):
        with pytest.raises(ValueError, match="seed is .*, not an integer"):
            number("seed", bad)
    with pytest.raises(ValueError, match=r"pass generator.initial_seed\(\)"):
        number("seed", torch.Generator())
    for good in (0, -3, 2**40, np.int64(5)):
        number("seed", good)
    with pytest.raises(ValueError, match="n is 9{21}; it counts the edits"):
        number("n", int("9" * 21))


@pytest.mark.parametrize(
    "name, meant", [("minute", "minutes"), ("num_inference_steps", "steps"), ("generator", "seed")]
)
def test_an_unknown_option_names_the_one_that_is_meant(name, meant):
    with pytest.raises(TypeError, match=f"you may mean '{meant}'"):
        settle(Baking, bake, None, {}, {}, None, {name: 1})


def test_a_model_without_recommended_settings_is_said_once():
    stranger = SimpleNamespace(name_or_path="")
    with pytest.warns(UserWarning, match="no settings for bake, so it runs with w=7.5, steps=50"):
        settle(Numbers, bake, stranger, {}, {"w": 7.5, "steps": 50}, None, {})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        settle(Numbers, bake, stranger, {}, {"w": 7.5}, None, {"w": 3.0})
