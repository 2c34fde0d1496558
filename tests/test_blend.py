import pytest
import torch

from blendlab import masks
from blendlab.blend import blend


def test_one_is_edit_and_zero_is_keep_bit_for_bit():
    edit, keep = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    mask = torch.zeros(1, 1, 4, 4)
    mask[..., :2] = 1
    out = blend(mask, edit=edit, keep=keep)
    assert torch.equal(out[..., :2], edit[..., :2]) and torch.equal(out[..., 2:], keep[..., 2:])


def test_a_ruined_edit_does_not_leak_out_of_the_mask():
    keep = torch.randn(1, 3, 4, 4)
    assert torch.equal(
        blend(torch.zeros(1, 1, 4, 4), edit=torch.full_like(keep, torch.nan), keep=keep), keep
    )


def test_a_soft_mask_mixes():
    out = blend(
        torch.full((1, 1, 1, 1), 0.25), edit=torch.ones(1, 3, 2, 2), keep=torch.zeros(1, 3, 2, 2)
    )
    assert (out == 0.25).all()


def test_one_source_serves_a_batch():
    out = blend(torch.ones(2, 1, 4, 4), edit=torch.ones(2, 3, 4, 4), keep=torch.zeros(1, 3, 4, 4))
    assert out.shape == (2, 3, 4, 4)


def test_bools_are_refused_with_the_fix():
    x = torch.zeros(1, 3, 4, 4)
    with pytest.raises(ValueError, match="mask is a torch.bool.*mask.float"):
        blend(x[:, :1] > 0, x, x)
    with pytest.raises(ValueError, match="mask holds bools: pass mask.float"):
        masks.dilate(x[:, :1] > 0, 1)
    x[..., 1:3, 2] = 1
    assert masks.box(x[:, :1] > 0) == masks.box(x[:, :1]) == (0.5, 0.25, 0.75, 0.75)  # may be bools
