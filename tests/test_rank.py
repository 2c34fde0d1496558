from dataclasses import dataclass
from types import SimpleNamespace

import open_clip
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

import blendlab as bl
from blendlab import images
from blendlab.rank import fit, rank, read

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
    for view in ("crop", "Mask", None, [], 3):
        with pytest.raises(ValueError, match="choose 'mask' or 'image' or 'both'"):
            rank(pictures, "red", clip, mask, view=view)
    with pytest.raises(ValueError, match="pass mask=, or view='image'"):
        rank(pictures, "red", clip)


def test_without_normalisation_clip_is_shown_the_picture_as_it_is(clip, pictures, mask):
    parts = {part: getattr(clip, part) for part in ("model", "tokenizer", "size", "mean", "std")}
    rank(pictures, "red", SimpleNamespace(**parts), mask, normalised=False)
    as_it_is = clip.model.shown[
        :, :, 0, 0
    ]  # the model undoes its mean and deviation, which were not taken off
    wrong = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1]]) * torch.tensor(STD) + torch.tensor(
        MEAN
    )
    torch.testing.assert_close(as_it_is, wrong, atol=1e-5, rtol=0)


# Texts


@pytest.fixture(scope="module")
def tinyworld_clip():
    return bl.load("tinyworld-clip", device="cpu")


def test_a_text_that_tinyworlds_clip_would_cut_is_refused_and_the_end_named(tinyworld_clip):
    assert read(tinyworld_clip, ["dog " * 30]).shape == (1, 128)
    with pytest.raises(ValueError, match="31 tokens and CLIP room for 30, .* drop 'cat'"):
        read(tinyworld_clip, ["dog " * 30 + "cat"])


def test_a_text_that_openais_tokenizer_would_cut_is_refused_and_the_end_named(clip):
    class Reads(ColourModel):
        def encode_text(self, tokens):
            return tokens.float()

    published = Clip(Reads())
    published.tokenizer = open_clip.SimpleTokenizer()
    read(published, ["dog " * 75])
    with pytest.raises(ValueError, match="76 tokens and CLIP room for 75, .* drop 'cat'"):
        read(published, ["dog " * 75 + "cat"])


@pytest.mark.parametrize("text", ["a red \N{MUSHROOM}", "a dog!", "\u7ea2"])
def test_tinyworlds_clip_refuses_symbols(tinyworld_clip, text):
    with pytest.raises(ValueError, match="this CLIP does not know"):
        read(tinyworld_clip, [text])


@pytest.mark.parametrize("prompt", [None, 3, ["red"], b"red"])
def test_a_prompt_is_one_text(pictures, clip, prompt):
    with pytest.raises(TypeError, match='the prompt is .*: pass a text, "" for none'):
        rank(pictures, prompt, clip, view="image")


# Sizes


def test_tinyworlds_clip_sees_means_of_areas_and_published_ones_bicubic_pictures(clip):
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert torch.equal(fit(clip, x), F.interpolate(x, (16, 16), mode="bicubic", antialias=True))
    clip.words = ("red",)
    torch.testing.assert_close(fit(clip, x), x.view(2, 3, 16, 2, 16, 2).mean((3, 5)))
    small = x[..., :16, :16]
    assert fit(clip, small) is small


def test_pictures_of_two_sizes_are_refused_with_a_fix_that_runs(clip):
    images = [Image.new("RGB", (20, 10)), Image.new("RGB", (20, 10)), Image.new("RGB", (30, 30))]
    with pytest.raises(ValueError, match=r"images\[0\] is 20x10 and images\[2\] 30x30") as refused:
        rank(images, "red", clip, view="image")
    images[2] = eval(str(refused.value).split("with ")[1], {"bl": bl, "images": images})
    assert len(rank(images, "red", clip, view="image")[0]) == 3


@pytest.mark.parametrize(
    "bad, error",
    [
        ([], ValueError),
        (None, TypeError),
        ([None], TypeError),
        ("nowhere.png", OSError),
        ([3], TypeError),
    ],
)
def test_what_is_no_picture_gets_a_sentence(clip, bad, error):
    with pytest.raises(error, match="(pass|check)"):
        rank(bad, "red", clip, view="image")


def test_pictures_in_0_to_1_are_warned_of(pictures, mask, clip):
    with pytest.warns(UserWarning, match=r"if it is in \[0, 1\], pass image \* 2 - 1"):
        rank((pictures + 1) / 2, "red", clip, mask)


def test_the_warning_points_at_the_line_of_the_caller(pictures, mask, clip):
    with pytest.warns(UserWarning) as caught:
        rank((pictures + 1) / 2, "red", clip, mask)
    assert caught[0].filename == __file__
