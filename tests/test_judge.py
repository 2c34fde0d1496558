"""The judge's rules, on verdicts painted by hand; its accuracy is a figure of the model card, not a
test.
"""

import pytest
import torch

from blendlab.networks.judge import Judge, Verdict, per_object

KINDS, COLOURS = ("cat", "bus", "moon"), ("red", "blue")


class Painted(Judge):
    """A judge whose verdict is painted by hand: labels instead of a network."""

    def __init__(self, n=1):
        super().__init__(KINDS, COLOURS, widths=(8, 8))
        self.kind, self.colour = torch.zeros(2, n, 64, 64, dtype=torch.long)

    def paint(self, rows, columns, kind, colour, i=0):
        self.kind[i, rows, columns] = 1 + KINDS.index(kind)
        self.colour[i, rows, columns] = 1 + COLOURS.index(colour)

    def forward(self, images):
        one_hot = torch.nn.functional.one_hot
        return Verdict(
            *(one_hot(x, n).movedim(-1, 1).float() for x, n in ((self.kind, 4), (self.colour, 3)))
        )


IMAGE = torch.zeros(1, 3, 64, 64)


def box(rows, columns, size=64):
    mask = torch.zeros(1, 1, size, size)
    mask[..., rows, columns] = 1
    return mask


def test_found_lists_connected_things_with_area_and_box_largest_first():
    judge = Painted()
    judge.paint(slice(0, 16), slice(0, 8), "cat", "red")
    judge.paint(slice(32, 64), slice(32, 64), "cat", "blue")
    judge.paint(slice(20, 21), slice(20, 22), "moon", "red")  # too small to count
    (objects,) = judge.found(IMAGE)
    assert [(t.kind, t.colour, t.area, t.box) for t in objects] == [
        ("cat", "blue", 0.25, (0.5, 0.5, 1.0, 1.0)),
        ("cat", "red", 128 / 4096, (0.0, 0.0, 0.125, 0.25)),
    ]
    (inside,) = judge.found(IMAGE, box(slice(0, 32), slice(0, 64)))
    assert [t.colour for t in inside] == ["red"]


def test_the_judge_is_sure_of_a_patch_of_one_class_and_not_of_a_medley():
    judge = Painted(3)
    judge.paint(slice(0, 16), slice(0, 16), "cat", "red", 0)
    judge.paint(slice(0, 16), slice(16, 24), "bus", "red", 0)  # touches the cat
    judge.paint(slice(40, 56), slice(0, 16), "bus", "red", 1)
    judge.paint(slice(0, 1), slice(0, 8), "cat", "red", 2)  # too small
    e = torch.tensor(1.0).exp()
    high, low = e / (e + 3), 1 / (e + 3)  # softmax of the logits 1, 0, 0, 0
    medley = (2 * high + low) / 3
    torch.testing.assert_close(
        judge.sure(IMAGE.expand(3, -1, -1, -1)), torch.stack([medley, high, torch.tensor(0.0)])
    )


def test_agrees_takes_the_most_frequent_class_inside_the_mask_and_its_most_frequent_colour():
    judge = Painted()
    judge.paint(slice(0, 20), slice(0, 20), "cat", "red")
    judge.paint(slice(0, 5), slice(0, 20), "cat", "blue")
    judge.paint(slice(0, 64), slice(40, 64), "bus", "blue")
    mask = box(slice(0, 32), slice(0, 32))
    assert judge.agrees(IMAGE, mask, "cat").item()
    assert judge.agrees(IMAGE, mask, "cat", "red").item()
    assert not judge.agrees(IMAGE, mask, "cat", "blue").item()
    assert not judge.agrees(IMAGE, mask, "bus").item()
    assert judge.agrees(IMAGE, torch.ones(1, 1, 64, 64), "bus", "blue").item()


def test_agrees_wants_a_share_of_the_mask():
    judge = Painted()
    judge.paint(slice(0, 4), slice(0, 4), "cat", "red")
    assert not judge.agrees(IMAGE, torch.ones(1, 1, 64, 64), "cat").item()
    assert judge.agrees(IMAGE, torch.ones(1, 1, 64, 64), "cat", share=0.001).item()
    assert not judge.agrees(IMAGE, box(slice(32, 64), slice(0, 64)), "cat", share=0.0).item()


def test_a_mask_of_another_size_is_brought_to_the_judges_size():
    judge = Painted()
    judge.paint(slice(0, 32), slice(0, 32), "cat", "red")
    assert judge.agrees(
        torch.zeros(1, 3, 128, 128), box(slice(0, 64), slice(0, 64), size=128), "cat"
    ).item()


def test_unknown_names_get_a_sentence():
    with pytest.raises(
        ValueError, match="does not know the class 'dragon'; it knows cat, bus, moon"
    ):
        Painted().agrees(IMAGE, torch.ones(1, 1, 64, 64), "dragon")
    with pytest.raises(ValueError, match="colour 'teal'; it knows red, blue"):
        Painted().agrees(IMAGE, torch.ones(1, 1, 64, 64), "cat", "teal")


def test_per_object_counts_objects_that_show_and_what_is_right():
    judge = Painted(n=2)
    judge.paint(slice(0, 20), slice(0, 20), "cat", "red", i=0)
    judge.paint(slice(0, 20), slice(0, 20), "bus", "red", i=1)
    masks = torch.zeros(2, 2, 64, 64)
    masks[:, 0, :20, :20] = 1
    masks[:, 1, :1, :1] = 1  # hidden but for one pixel
    kind, colour = torch.tensor([[0, 1], [0, -1]]), torch.tensor([[0, 1], [0, 0]])
    total = per_object(judge, IMAGE.expand(2, -1, -1, -1), masks, kind, colour)
    assert total == {"objects": 2, "kind": 1, "colour": 2}


def test_save_and_load_give_the_same_verdict_within_half_precision(tmp_path):
    judge = Judge(KINDS, COLOURS, widths=(8, 8, 16)).eval()
    judge.save(tmp_path)
    loaded = Judge.load(tmp_path)
    images = torch.rand(2, 3, 64, 64) * 2 - 1
    verdict = loaded(images)
    assert verdict.kind.shape == (2, 4, 64, 64) and verdict.colour.shape == (2, 3, 64, 64)
    assert loaded.kinds == KINDS and not loaded.training and verdict.kind.dtype == torch.float32
    torch.testing.assert_close(verdict.kind, judge(images).kind, atol=0.02, rtol=0.02)
