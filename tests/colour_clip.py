"""A CLIP whose answers are known: a picture is its mean colour, a prompt the colour that it
names.
"""

from dataclasses import dataclass

import torch

COLOURS = {"red": (1.0, 0.0, 0.0), "green": (0.0, 1.0, 0.0), "blue": (0.0, 0.0, 1.0)}


class ColourModel(torch.nn.Module):
    """A CLIP that sees nothing but the mean colour, and is asked to count its calls."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.calls, self.shown = 0, None

    def encode_image(self, x):
        self.calls, self.shown = self.calls + 1, x
        return x.mean((2, 3)) + 0.1

    def encode_text(self, tokens):
        return torch.tensor([list(COLOURS.values())[i] for i in tokens])


@dataclass
class ColourClip:
    model: torch.nn.Module
    size: int = 16
    mean: tuple = (0.0, 0.0, 0.0)
    std: tuple = (1.0, 1.0, 1.0)
    words: tuple = tuple(COLOURS)

    def tokenizer(self, texts):
        return torch.tensor([list(COLOURS).index(text) for text in texts])
