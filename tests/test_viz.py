"""Figures for notebooks: pixels stay crisp, pictures stay what they were, and files stay small."""

import importlib
import io
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from blendlab import images, viz


def pictures(n, size=64, seed=0):
    """n smooth random pictures (n,3,size,size) in [-1, 1]."""
    noise = torch.rand(n, 3, 5, 5, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    return torch.nn.functional.interpolate(noise, (size, size), mode="bilinear")


def square(size=64):
    mask = torch.zeros(1, 1, size, size)
    mask[..., size // 4 : size // 2, size // 4 : size // 2] = 1
    return mask


def pixels(picture):
    return np.asarray(picture).astype(int)


def kilobytes(figure):
    file = io.BytesIO()
    figure.save(file, "PNG") if isinstance(figure, Image.Image) else figure.savefig(
        file, bbox_inches="tight"
    )
    return len(file.getvalue()) / 1000


def test_show_enlarges_small_pictures_by_a_whole_factor_and_changes_no_colour():
    x = pictures(4)
    grid = viz.show(x)
    assert grid.size == (4 * 192 + 3 * 8, 192)
    third = pixels(grid)[:, 400:592]
    assert np.array_equal(third[1::3, 1::3], pixels(images.to_pil(x)[2]))
    assert np.array_equal(third, third[1::3, 1::3].repeat(3, 0).repeat(3, 1))


@pytest.mark.parametrize("n, columns", [(1, 1), (5, 5), (6, 6), (7, 4), (8, 4), (12, 6), (13, 5)])
def test_show_fills_even_rows_within_the_width_of_a_notebook(n, columns):
    grid = viz.show(pictures(n, size=16))
    side = min(256, (viz.WIDTH - 8 * (columns - 1)) // columns) // 16 * 16
    assert grid.width == columns * (side + 8) - 8 <= viz.WIDTH
    assert grid.height == -(-n // columns) * (side + 8) - 8


def test_large_pictures_are_scaled_down_to_the_column():
    assert viz.show(pictures(3, size=512)).size == (3 * 256 + 2 * 8, 256)


def test_one_title_may_be_a_text_and_too_many_are_refused():
    assert viz.show(torch.zeros(1, 3, 8, 8), "a red mushroom").alt == "a red mushroom"
    with pytest.raises(ValueError, match="2 titles for 1 pictures: pass one for each"):
        viz.show(torch.zeros(1, 3, 8, 8), ["one", "two"])


def test_titles_are_written_above_and_wrapped():
    bare, short = viz.show(pictures(2)), viz.show(pictures(2), ["before", "after"])
    long = viz.show(
        pictures(2), ["before", "a blue cat and a green bus on sand at sunset, seen from afar"]
    )
    assert bare.width == short.width == long.width
    assert bare.height < short.height < long.height
    head = short.height - bare.height
    assert np.array_equal(pixels(short)[head:], pixels(bare))
    # ink, not cut off above
    assert pixels(short)[:head].min() < 100 and pixels(short)[0].min() == 255


def test_titles_of_a_grid_that_a_page_shows_smaller_are_larger():
    def head(n):
        bare, titled = (viz.show(pictures(n), text, n, panel=256) for text in (None, ["a cat"]))
        return titled.height - bare.height

    assert head(6) > 1.3 * head(3)


def test_anything_that_is_a_picture_can_be_shown(tmp_path):
    x = pictures(1)
    (picture,) = images.to_pil(x)
    picture.save(tmp_path / "x.png")
    grid = pixels(
        viz.show([x, x[0], picture, str(tmp_path / "x.png"), tmp_path / "x.png"], columns=5)
    )
    assert all(np.array_equal(grid[:, i * 136 : i * 136 + 128], grid[:, :128]) for i in range(5))
    assert viz.show(square()).getpixel((70, 70)) == (255, 255, 255)
    assert viz.show(square()[0, 0].bool()).getpixel((70, 70)) == (255, 255, 255)


def test_the_outline_lies_around_the_mask_and_leaves_the_edit_alone():
    x = pictures(2)
    plain, outlined = pixels(viz.show(x)), pixels(viz.show(x, mask=square()))
    changed = np.argwhere((plain != outlined).any(2)[:, :256])  # factor 4: the square is 64..127
    assert changed.min() == 61 and changed.max() == 130
    assert np.array_equal(plain[64:128, 64:128], outlined[64:128, 64:128])
    assert (outlined[62, 64:128] == 255).all() and (outlined[61, 64:128] == 0).all()
    with pytest.raises(ValueError, match="2 masks for 3 pictures: pass one, or one for each"):
        viz.show(pictures(3), mask=[square(), square()])


def test_nothing_to_show_is_refused():
    with pytest.raises(ValueError, match="no picture to show: pass at least one"):
        viz.show([])


def test_a_strip_has_a_column_for_each_frame_and_a_row_for_each_sample():
    frames = [pictures(2, seed=i) for i in range(3)]
    film = pixels(viz.strip(frames))
    assert film.shape == (2 * 256 + 3, 3 * 256 + 2 * 3, 3)
    assert np.array_equal(film[2::4, 2::4][-64:, 129:193], pixels(images.to_pil(frames[2])[1]))


def test_a_strip_of_unequal_frames_or_titles_is_refused():
    with pytest.raises(ValueError, match="the frames hold 2, 1 pictures"):
        viz.strip([pictures(2), pictures(1)])
    with pytest.raises(ValueError, match="the frames hold no pictures"):
        viz.strip([])
    with pytest.raises(ValueError, match="1 titles for 2 frames"):
        viz.strip([pictures(1), pictures(1)], ["one"])
    with pytest.raises(ValueError, match="most is 1: take 2 or more"):
        viz.strip([pictures(1), pictures(1)], most=1)


@pytest.mark.parametrize("n", [7, 8, 25, 50])
def test_a_long_strip_keeps_its_first_and_last_frame(n):
    frames = [pictures(1, seed=i) for i in range(n)]
    film = viz.strip(frames, [f"t={t}" for t in range(n)])
    assert film.width == 7 * 128 + 6 * 3 <= viz.WIDTH
    for left, frame in ((0, frames[0]), (6 * 131, frames[-1])):
        shown = pixels(film.crop((left, film.height - 128, left + 128, film.height)))
        assert np.array_equal(shown[::2, ::2], pixels(images.to_pil(frame)[0]))


def test_overlay_tints_the_mask_and_only_the_mask():
    x, grey = pictures(1), torch.zeros(1, 3, 64, 64)
    plain, tinted = pixels(viz.show(x)), pixels(viz.overlay(x, square()))
    assert (
        np.array_equal(plain[140:], tinted[140:])
        and (plain[64:128, 64:128] != tinted[64:128, 64:128]).any()
    )
    red, green, _ = pixels(viz.overlay(grey, square()))[100, 100]
    assert red > 150 > 100 > green


def test_overlay_takes_one_picture_and_one_mask():
    with pytest.raises(ValueError, match="not 1 and 3: pass image"):
        viz.overlay(torch.zeros(1, 3, 32, 32), torch.ones(3, 1, 32, 32))


def test_overlay_draws_a_mask_at_latent_size_as_its_cells():
    x = pictures(1)
    assert np.array_equal(pixels(viz.overlay(x, square(16))), pixels(viz.overlay(x, square(64))))
    assert np.array_equal(
        pixels(viz.overlay(x, square() * 0)), pixels(viz.show(x))
    )  # vanished: nothing drawn


def test_attention_tints_where_a_map_is_above_one_and_nowhere_else():
    x, heat = pictures(2), torch.ones(2, 4, 4)
    heat[1, 0, 0] = 2.0
    with pytest.raises(ValueError, match="2 pictures, 1 maps and most=2"):
        viz.attention(x, heat[:1])
    still, tinted = viz.attention(x, heat)
    plain = [pixels(viz.overlay(one, square() * 0)) for one in x]
    assert np.array_equal(pixels(still), plain[0])
    changed = (pixels(tinted) != plain[1]).any(2)
    assert changed[:64, :64].all() and not changed[64:].any() and not changed[:, 64:].any()


def test_a_sheet_is_the_pictures_pixel_by_pixel():
    x = pictures(5, size=8)
    grid = viz.sheet(x, columns=3)
    assert grid.size == (3 * 8 + 2 * 2, 2 * 8 + 2)
    assert np.array_equal(pixels(grid)[10:18, 10:18], pixels(images.to_pil(x)[4]))
    assert (pixels(grid)[8:10] == 255).all()


def test_plots_are_small_and_hold_what_was_measured():
    steps = np.arange(1, 9)
    lines = {"plain": steps / 10, "ranked": (steps / 9, steps / 9 - 0.1, steps / 9 + 0.1)}
    figure = viz.curve(steps, lines, "steps", "precision", "A claim")
    axes = figure.axes[0]
    assert [t.get_text() for t in axes.texts] == ["plain", "ranked"]
    assert np.array_equal(axes.lines[1].get_ydata(), steps / 9) and len(axes.collections) == 1
    assert axes.texts[1].xy[1] - axes.texts[0].xy[1] > 0.05  # the names do not overlap
    assert kilobytes(figure) < 60

    figure = viz.intervals([("a", 0.5, 0.4, 0.6), ("b", 0.25, 0.2, 0.31)], "precision")
    assert [t.get_text() for t in figure.axes[0].texts] == [
        "0.50   [0.40, 0.60]",
        "0.25   [0.20, 0.31]",
    ]
    assert kilobytes(figure) < 60


def test_figures_of_small_pictures_stay_small():
    assert kilobytes(viz.show(pictures(12), ["a red mushroom on grass"] * 12, mask=square())) < 100


def test_plots_leave_no_open_figure_that_a_notebook_would_show_twice():
    from matplotlib import pyplot

    viz.intervals([("a", 0.5, 0.4, 0.6)])
    assert pyplot.get_fignums() == []


def test_a_sheet_needs_no_matplotlib(monkeypatch):
    for name in ("matplotlib", "matplotlib.pyplot"):
        monkeypatch.setitem(sys.modules, name, None)  # importing it fails
    assert importlib.reload(viz).sheet(pictures(2)).size == (130, 64)


def test_a_figure_tells_a_screen_reader_what_it_shows():
    picture = torch.zeros(2, 3, 8, 8)
    _, said = viz.show(picture, ["before", "after"])._repr_png_()
    assert said == {"alt": "before; after"}
    assert viz.strip([picture, picture], alt="two frames")._repr_png_()[1] == {"alt": "two frames"}


@pytest.mark.parametrize("size", [64, 96, 128])
def test_panels_are_as_wide_as_asked_by_a_whole_factor(size):
    shown = viz.show(torch.zeros(4, 3, size, size), columns=4, panel=192)
    panel = (shown.width + 8) // 4 - 8
    assert panel >= 192 and panel % size == 0


def test_a_crop_is_a_square_around_the_mask_with_its_pixels():
    picture = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    mask = torch.zeros(1, 1, 32, 32)
    mask[..., 8:16, 10:18] = 1
    part = viz.crop(picture, mask, 1.5)
    assert part.shape == (1, 3, 12, 12) and torch.equal(part, picture[..., 6:18, 8:20])
    other = torch.zeros(1, 1, 32, 32)
    other[..., 8:16, 18:26] = 1
    both = viz.crop(picture, torch.cat([mask, other]), 1.0)
    assert torch.equal(both, picture[..., 4:20, 10:26])  # one square holds both boxes
    with pytest.raises(ValueError, match="the mask is 16x16 and the pictures 32x32"):
        viz.crop(picture, mask[..., :16, :16])


def test_a_column_of_a_table_is_compared_row_by_row():
    rows = [{"label": "a", "class": [0.5, 0.4, 0.6]}, {"label": "b", "time (s)": [1.0, 0.5, 2.0]}]
    table = {"n": 10, "rows": rows}
    assert viz.compare(table, "class").alt == "class: a 50 [40, 60]"
    assert viz.compare(table, "time (s)", {"b": "ours"}).alt == "time (s): ours 1 [0.5, 2]"
    with pytest.raises(ValueError, match="'class' has no row 'b'; its rows are a"):
        viz.compare(table, "class", ["b"])
    with pytest.raises(ValueError, match="no column 'clas'; its columns are label, class, time"):
        viz.compare(table, "clas")


def test_a_row_without_a_value_is_no_row_of_a_figure():
    rows = [
        {"label": "a", "d (x)": [None, None, None], "p": [0, 0, 1]},
        {"label": "b", "d (x)": [1, 0, 2], "p": [1, 0, 1]},
    ]
    assert viz.compare({"n": 2, "rows": rows}, "d (x)").alt == "d (x): b 1 [0, 2]"
    with pytest.raises(ValueError, match="no row 'a'"):
        viz.compare({"n": 2, "rows": rows}, "d (x)", ["a"])
    with pytest.raises(ValueError, match="no row 'a' has"):
        viz.against({"n": 2, "rows": rows}, "d (x)", "p", {"a": "a"})


def test_two_columns_are_drawn_against_each_other_in_percent_where_they_are_shares():
    rows = [
        {"label": "a", "class": [0.5, 0.4, 0.6], "time (s)": [2, 1, 3]},
        {"label": "b", "class": [1, None, None], "time (s)": [3, None, None]},
    ]
    drawn = viz.against({"n": 9, "rows": rows}, "time (s)", "class", {"a": "ours", "b": "theirs"})
    assert drawn.alt == "time (s) and class, %: ours: 2 and 50; theirs: 3 and 100"
    assert drawn.width == 760 and drawn.getpixel((0, 0)) == (255, 255, 255)
    with pytest.raises(ValueError, match="no row 'c' has 'time .s.' and 'class'; these have: a, b"):
        viz.against({"n": 9, "rows": rows}, "time (s)", "class", {"c": "another"})


def test_points_are_drawn_over_their_marks_on_white():
    drawn = viz.points([torch.zeros(5, 2)] * 2, ["one", "two"], torch.eye(2))
    assert drawn.alt == "Clouds of points: one; two" and drawn.getpixel((0, 0)) == (255, 255, 255)
