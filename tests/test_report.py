"""The tables of phenomena: their tasks and their arithmetic, on networks that know nothing; and the
page.
"""

import math
from dataclasses import replace

import checkpoints
import pytest
import torch

from blendlab import cards, files, viz, world
from blendlab.measuring import (
    exemplars,
    index,
    latent_blending,
    metrics,
    noise_editing,
    pixel_blending,
    report,
    results,
    tables,
)
from blendlab.networks import load as loading
from blendlab.networks.clip import load_clip
from blendlab.networks.judge import Judge
from blendlab.papers.tendency import Landing, agreement


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    """Small networks of every kind, with random weights."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("clip")
    checkpoints.open_clip_folder(folder)
    judge = Judge(world.KINDS, world.COLOURS, widths=(8, 8)).eval().requires_grad_(False)
    return {
        "tinyworld": checkpoints.sd1(),
        "tinyworld-judge": judge,
        "tinyworld-clip": load_clip(folder),
    }


@pytest.fixture
def quick(networks, monkeypatch):
    monkeypatch.setattr(loading, "load", lambda name, device=None: networks[name])
    monkeypatch.setattr(
        cards, "settings", lambda pipe, method: dict(w=3.0, steps=4, skip=0.0, eta=0.0)
    )


# Tables, with random weights


@pytest.mark.parametrize("name, rows", [("losses", 4), ("light", 2), ("signs", 3)])
def test_a_smaller_table_is_the_beginning_of_a_larger_one(quick, name, rows):
    whole, part = results.measure(name, n=3), results.measure(name, n=2)
    assert len(whole["rows"]) == rows and whole["figure"].width <= viz.WIDTH
    assert results.reproduces(whole, part).endswith("outcomes of the first 2 tasks are as saved")


def test_thin_masks_are_thin_outlines_of_thin_things():
    tasks = latent_blending.thin(6, 64)
    assert set(tasks.kind) == {"lamp", "fence", "lightning"}
    narrow = torch.nn.functional.max_pool2d(
        1 - tasks.mask, 7, 1, 3
    )  # 0 only in the middle of squares of 7 pixels
    assert ((1 - narrow) * tasks.mask).sum() == 0 < tasks.mask.sum()
    changed = (tasks.image != tasks.truth).any(1, keepdim=True)
    assert (changed | (tasks.mask == 0)).all()


def test_a_part_of_the_tasks_keeps_pictures_and_words_together():
    tasks = metrics.tasks(4)
    part = tables.part(tasks, [2, 0])
    assert part.prompts == [tasks.prompts[2], tasks.prompts[0]] and len(part.scenes) == 2
    assert torch.equal(part.image, tasks.image[[2, 0]])


# Where objects land


def agree(a, b):
    return agreement(*(Landing("", "", place, torch.zeros(4, 2, 2)) for place in (a, b)))


def test_prompts_of_one_noise_count_once():
    maps = torch.eye(4).view(4, 2, 2)  # noise i looks at cell i
    place = torch.tensor([[0.2, 0.2], [0.7, 0.2], [0.2, 0.7], [math.nan, math.nan]])
    right = Landing("", "", place, maps)
    wrong = Landing("", "", place, maps.roll(1, 0))
    assert noise_editing.foretold([right, right]).tolist() == right.foretold().tolist() == [1, 1, 1]
    both = (right.foretold() + wrong.foretold()) / 2
    assert noise_editing.foretold([right, wrong]).tolist() == both.tolist()


def foretold(maps, place):
    return Landing("", "", place, maps).foretold()


def test_the_same_place_for_the_same_noise_is_always_nearer():
    a = torch.tensor([[0.1, 0.5], [0.5, 0.5], [0.9, 0.5], [torch.nan, torch.nan]])
    b = a + 0.05
    assert agree(a, b).tolist() == [1, 1, 1]  # where one is missing, nothing is said
    assert agree(a, b[[1, 2, 0, 3]]).mean() < 0.5
    assert agree(a, torch.full((4, 2), 0.3)).tolist() == [0.5, 0.5, 0.5]  # all alike: chance


def test_a_map_points_where_it_is_higher_than_others():
    place = torch.tensor([[0.1, 0.1], [0.9, 0.1], [0.9, 0.9]])  # x, y
    maps = torch.zeros(3, 2, 2)
    maps[0, 0, 0] = maps[1, 0, 1] = maps[2, 1, 1] = 1
    assert foretold(maps, place).tolist() == [1, 1, 1]
    assert foretold(maps.roll(1, 0), place).tolist() == [0.25, 0.25, 0.25]
    assert foretold(torch.ones(3, 2, 2), place).tolist() == [0.5, 0.5, 0.5]


# References and signs


def test_references_show_the_same_thing_in_another_light():
    tasks, box, reference, pasted, truths, where = exemplars.references(6, 64)
    outside = metrics.box_mask(box, 64) == 0
    assert torch.equal(pasted[outside.expand_as(pasted)], tasks.image[outside.expand_as(pasted)])
    assert ((pasted != tasks.image).any(1, keepdim=True) <= (where > 0)).all() and (
        where[outside] == 0
    ).all()
    assert reference.shape == (6, 3, 128, 128) and not torch.equal(pasted, tasks.truth)
    assert [torch.equal(truths[i % 3, i], tasks.truth[i]) for i in range(6)] == [True] * 6


def test_a_perfect_object_at_another_place_still_has_its_own_pattern():
    tasks, box, _, _, truths, _ = exemplars.references(12, 64)
    each, scenes = torch.arange(12), tasks.scenes
    x, size = scenes.x.clone(), scenes.size.clone()
    x[each, tasks.slot] += 0.04
    size[each, tasks.slot] *= 1.15
    moved = world.render(replace(scenes, x=x, size=size), 64).image
    right = exemplars.nearest(moved, truths, tasks, box) == exemplars.pattern_of(tasks)
    assert right.sum() >= 11
    wrong = exemplars.nearest(moved, truths.roll(1, 0), tasks, box) == exemplars.pattern_of(tasks)
    assert wrong.sum() <= 1


def test_a_frame_maps_the_square_onto_a_box():
    frame = exemplars.frame(torch.tensor([[0.0, 0.5, 0.5, 1.0]]))  # the lower left quarter
    corners = torch.tensor([[-1.0, -1.0, 1.0], [1.0, 1.0, 1.0]])
    torch.testing.assert_close(
        (frame[0] @ corners.T).T[:, :2], torch.tensor([[-1.0, 0.0], [0.0, 1.0]])
    )


def test_signs_and_things_stand_at_the_same_place():
    words, box, views = pixel_blending._signs(30, 64)
    outside = (1 - metrics.box_mask(box, 64)).expand(-1, 3, -1, -1) > 0
    sign, other = views["a sign that says it"], views["a sign that says something else"]
    assert (sign != other).flatten(1).any(1).all()  # the words differ
    assert (sign[outside] == other[outside]).all()
    assert (views["another red object"] != views["the object itself"]).flatten(1).any(1).all()
    assert words[:2] == ["cat", "dog"]


def test_something_appeared_where_the_picture_changed_enough_inside_the_mask():
    before, mask = torch.zeros(3, 3, 8, 8), torch.zeros(1, 1, 8, 8)
    mask[..., 2:4] = 1
    after = before.clone()
    after[0] += 0.17 * mask[0]  # 8.5% of the range
    after[1] += 0.15 * mask[0]
    after[2] += 1 - mask[0]  # beside the mask only
    assert metrics.appeared(after, before, mask).tolist() == [True, False, False]


def test_strokes_are_as_wide_as_asked_and_cross_their_object():
    tasks = latent_blending.upright(6, 64, 3)
    widths = tasks.mask.any(2).sum(-1).flatten()
    assert (widths == 3).all() and {*tasks.kind} == {*latent_blending.UPRIGHT}
    there = world.render(tasks.scenes, 64).masks[torch.arange(6), tasks.slot]
    assert ((there * tasks.mask[:, 0]).flatten(1).sum(1) > 0).all()


# The page


def test_the_page_says_of_each_phenomenon_whether_it_is_confirmed(monkeypatch):
    section = report.Section(
        "Twos are more", "toy", ("two", "share"), ("one", "share"), "It is {more}, not {less}."
    )
    rows = [{"label": "one", "share": [0.2, 0.1, 0.3]}, {"label": "two", "share": [0.5, 0.4, 0.6]}]
    made = {
        "what": "Toys.",
        "n": 9,
        "command": "blendlab results toy",
        "seconds": 1,
        "device": "x",
        "rows": rows,
    }
    monkeypatch.setattr(report, "SECTIONS", (section,))
    monkeypatch.setattr(results, "load", lambda name: made)
    assert (
        "## 1. Twos are more: confirmed\n\nIt is **50% [40, 60]**, not **20% [10, 30]**."
        in report.page()
    )
    rows[1]["share"] = [0.5, 0.25, 0.6]
    assert "Twos are more: not confirmed" in report.page() and "Confirmed: 0 of 1" in report.page()
    monkeypatch.setattr(
        report, "SECTIONS", (report.Section("A", "toy", ("one", "share"), 0.05, "{more}, {less}"),)
    )
    assert "A: confirmed\n\n**20% [10, 30]**, **5%**" in report.page()


def test_the_saved_page_is_that_of_the_saved_tables():
    saved = files.data() / "phenomena.md"
    assert saved.read_text(encoding="utf-8") == report.page(), (
        "make it again with `blendlab results phenomena`"
    )


def test_the_saved_index_holds_every_saved_table_as_it_is():
    saved = files.data() / "results" / "index.md"
    assert saved.read_text(encoding="utf-8") == index.page(), (
        "make it again with `blendlab results index`"
    )
    names = {path.stem for path in saved.parent.glob("*.json")}
    assert names == {line[4:] for line in index.page().splitlines() if line.startswith("### ")}
