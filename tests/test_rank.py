from dataclasses import dataclass

import pytest
import torch
from PIL import Image

from blendlab import images
from blendlab.rank import rank

COLOURS = {"red": (1.0, 0.0, 0.0), "green": (0.0, 1.0, 0.0), "blue": (0.0, 0.0, 1.0)}
MEAN, STD = (0.1, 0.2, 0.3), (0.5, 0.25, 0.2)


class ColourModel(torch.nn.Module):
    """A CLIP whose right answer is known: a picture is its mean colour, a prompt the colour that it
    names.
    """

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.shown = None

    def encode_image(self, x):
        self.shown = x * torch.tensor(STD).view(3, 1, 1) + torch.tensor(MEAN).view(
            3, 1, 1
        )  # back to [0,1]
        return self.shown.mean((2, 3))

    def encode_text(self, tokens):
        return torch.tensor([list(COLOURS.values())[i] for i in tokens])


@dataclass
class Clip:
    model: torch.nn.Module
    size: int = 16
    mean: tuple = MEAN
    std: tuple = STD

    def tokenizer(self, texts):
        return torch.tensor([list(COLOURS).index(text) for text in texts])


@pytest.fixture
def clip():
    return Clip(ColourModel())


def plain(colour, size=32):
    return torch.tensor(COLOURS[colour]).view(1, 3, 1, 1).expand(1, 3, size, size) * 2 - 1


@pytest.fixture
def pictures():
    """Inside the mask (left half): red, green, blue; outside: blue, blue, red."""
    left = torch.cat([plain(c) for c in ("red", "green", "blue")])
    right = torch.cat([plain(c) for c in ("blue", "blue", "red")])
    return torch.cat([left[..., :16], right[..., 16:]], -1)


@pytest.fixture
def mask():
    mask = torch.zeros(1, 1, 32, 32)
    mask[..., :16] = 1
    return mask


def test_the_mask_view_sees_the_edit_on_black(pictures, mask, clip):
    order, scores = rank(pictures, "blue", clip, mask)
    assert order[0] == 2
    # blue alone is at distance 0, red or green alone at 1; resizing mixes the border with black
    # only
    assert scores == pytest.approx([0.0, 1.0, 1.0], abs=1e-5)
    assert (clip.model.shown[..., 10:].abs() < 1e-2).all()


def test_the_image_view_sees_the_whole_picture(pictures, mask, clip):
    order, scores = rank(pictures, "red", clip, view="image")
    assert sorted(order[:2]) == [0, 2] and order[2] == 1
    assert scores[:2] == pytest.approx([1 - 0.5**0.5] * 2, abs=1e-2)  # half red, half blue


def test_both_is_the_mean_of_the_two(pictures, mask, clip):
    def by_picture(**options):
        order, scores = rank(pictures, "red", clip, mask, **options)
        return [scores[order.index(i)] for i in range(3)]

    inside, whole, both = (by_picture(view=view) for view in ("mask", "image", "both"))
    assert both == pytest.approx([(a + b) / 2 for a, b in zip(inside, whole, strict=True)])


def test_scores_are_best_first_and_ties_keep_their_order(pictures, mask, clip):
    order, scores = rank(pictures.repeat(2, 1, 1, 1), "red", clip, mask)
    assert scores == sorted(scores) and order[:2] == [0, 3]


def test_pil_pictures_and_masks_come_through_the_door(pictures, mask, clip):
    order, scores = rank(images.to_pil(pictures), "green", clip, images.to_pil(mask)[0])
    assert order[0] == 1 and scores == pytest.approx(
        rank(pictures, "green", clip, mask)[1], abs=1e-6
    )
    with pytest.raises(ValueError, match="fit_mask"):
        rank(pictures, "green", clip, Image.new("L", (8, 8), 255))


def test_bad_views_are_refused_with_the_fix(pictures, mask, clip):
    with pytest.raises(ValueError, match="mask, image or both"):
        rank(pictures, "red", clip, mask, view="crop")
    with pytest.raises(ValueError, match="pass mask=, or view='image'"):
        rank(pictures, "red", clip)


def test_without_normalisation_clip_is_shown_the_picture_as_it_is(clip, pictures, mask):
    rank(pictures, "red", clip, mask, normalised=False)
    as_it_is = clip.model.shown[
        :, :, 0, 0
    ]  # the model undoes its mean and deviation, which were not taken off
    wrong = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1]]) * torch.tensor(STD) + torch.tensor(
        MEAN
    )
    torch.testing.assert_close(as_it_is, wrong, atol=1e-5, rtol=0)
