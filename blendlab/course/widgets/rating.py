"""Blind pairs: two pictures side by side, three plain buttons, and the answers.

    study = Rating(ours, theirs, ("blended", "pasted"))   # two lists of pictures, one pair a place
    study                                                 # shown by a cell that ends with it
    study.votes                                           # 0: ours, 1: theirs, None: no difference

Which one stands on the left, and which pair comes first, is drawn from a seed, and nothing on the
page says it. No paper. Next: panel.py.
"""

import html

import ipywidgets as widgets
import torch

from ... import images, viz
from ...errors import Refused
from .common import encoded, picture

ANSWERS = ("left", "right", "no difference")


class Rating(widgets.VBox):
    """Asks once for each pair. questions: what to ask, one text for each pair."""

    def __init__(self, first, second, names=("first", "second"), questions=(), seed=0, panel=256):
        first, second = ([picture(x) for x in _each(side)] for side in (first, second))
        if len(first) != len(second) or not first:
            raise Refused(
                f"{len(first)} and {len(second)} pictures: pass as many of one as of the other"
            )
        questions = list(questions) or [""] * len(first)
        if len(questions) != len(first):
            given = f"{len(questions)} questions for {len(first)} pairs"
            raise Refused(f"{given}: pass one for each, or none")
        draw = torch.Generator().manual_seed(seed)
        self.names, self.pairs = tuple(names), list(zip(first, second, strict=True))
        self.order = torch.randperm(len(first), generator=draw).tolist()
        self.swapped = (torch.rand(len(first), generator=draw) < 0.5).tolist()
        self.votes: list[int | None] = []
        self._sides = [widgets.Image(format="png", width=panel, height=panel) for _ in range(2)]
        self._says, self.questions = widgets.HTML(), questions
        self.buttons = {word: widgets.Button(description=word) for word in ANSWERS}
        for word, button in self.buttons.items():
            button.on_click(lambda _, word=word: self.answer(word))
        super().__init__(
            [self._says, widgets.HBox(self._sides), widgets.HBox([*self.buttons.values()])]
        )
        self._show()

    def answer(self, word: str):
        """What a button does: keep the vote, and show the next pair."""
        if word not in ANSWERS:
            raise Refused(f"{word!r} is no answer; choose {', '.join(ANSWERS)}")
        if len(self.votes) < len(self.pairs):
            left = self.swapped[self.order[len(self.votes)]]  # which of the two stands there
            self.votes.append({"left": int(left), "right": int(not left)}.get(word))
            self._show()

    def _show(self):
        done = len(self.votes)
        if done == len(self.pairs):
            self._says.value = f"Thank you: {done} pairs are rated. Run the next cell."
            for button in self.buttons.values():
                button.disabled = True
            return
        i = self.order[done]
        pair = self.pairs[i][::-1] if self.swapped[i] else self.pairs[i]
        text = f"Pair {done + 1} of {len(self.pairs)}. {self.questions[i]}"
        for side, image, shown in zip(ANSWERS, self._sides, pair, strict=False):
            image.value = encoded(viz.enlarged(shown, int(image.width)))
            image.tooltip = f"The {side} picture. {text}".strip()  # for screen readers
        self._says.value = html.escape(text)


def _each(side):
    return images.to_pil(side) if isinstance(side, torch.Tensor) else list(side)
