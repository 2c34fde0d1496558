"""Options: who is asked first, and what is refused."""

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Literal

import pytest

from blendlab import cards
from blendlab.options import Options, settle


@dataclass(frozen=True)
class Baking(Options):
    oven: Literal["gas", "wood"] = "gas"
    crust: Literal["thin", "thick"] | None = None
    minutes: float | None = None


PRESETS = {"naples": Baking(oven="wood", minutes=1.5)}


@pytest.fixture
def choose(monkeypatch):
    monkeypatch.setattr(
        cards, "settings", lambda model, method: {"minutes": model.minutes} if model.minutes else {}
    )

    def choose(preset=None, minutes_of_model=None, **asked):
        model = SimpleNamespace(minutes=minutes_of_model)
        return settle(Baking, "bake", model, PRESETS, {"minutes": 12.0}, preset, asked)

    return choose


def test_what_was_asked_for_comes_first_then_preset_model_and_fallback(choose):
    assert choose().minutes == 12 and choose(minutes_of_model=8.0).minutes == 8
    assert choose("naples", minutes_of_model=8.0) == Baking("wood", None, 1.5)
    assert choose("naples", minutes=3.0, oven=None) == Baking("wood", None, 3.0)
    assert choose(Baking(crust="thin")).crust == "thin"


def test_words_that_a_field_does_not_know_are_refused():
    with pytest.raises(ValueError, match="oven is 'coal'; choose 'gas' or 'wood'"):
        Baking(oven="coal")
    with pytest.raises(ValueError, match="crust is 'none'; choose 'thin' or 'thick'"):
        Baking(crust="none")
    with pytest.raises(ValueError, match="oven is None; choose"):
        Baking(oven=None)
    assert Baking(crust=None).crust is None


def test_unknown_options_and_presets_are_named(choose):
    with pytest.raises(TypeError, match="bake has no option 'salt'; it has oven, crust, minutes"):
        choose(salt=1)
    with pytest.raises(ValueError, match="no preset 'rome'; choose naples, or pass a Baking"):
        choose("rome")
