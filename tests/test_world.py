"""tinyworld keeps its promises: one scene whatever the batch, true masks and boxes,
counterfactuals.
"""

import pytest
import torch

from blendlab import world


def test_a_scene_depends_only_on_its_seed_and_number():
    together, alone = world.sample(12, seed=3), world.sample(1, seed=3, start=7)
    for name in ("kind", "colour", "x", "size", "look"):
        assert torch.equal(getattr(together, name)[7:8], getattr(alone, name))
    assert not torch.equal(together.x, world.sample(12, seed=4).x)


def test_a_picture_does_not_depend_on_the_batch_or_the_chunk():
    scenes = world.sample(9, seed=5)
    whole = world.render(scenes, 32)
    for view, rows in (
        (world.render(scenes, 32, chunk=2), slice(None)),
        (world.render(scenes[4:6], 32), slice(4, 6)),
    ):
        assert torch.equal(view.image, whole.image[rows])
        assert torch.equal(view.masks, whole.masks[rows])


def test_a_bigger_picture_shows_the_same_scene():
    scenes = world.sample(16, seed=8)
    small, big = world.render(scenes, 48), world.render(scenes, 192)
    shrunk = torch.nn.functional.avg_pool2d(big.image, 4)
    assert (shrunk - small.image).abs().mean() < 0.06  # textures finer than a pixel differ
    assert (torch.nn.functional.avg_pool2d(big.masks, 4) - small.masks).abs().mean() < 0.005


def test_images_and_masks_are_in_range():
    view = world.render(world.sample(64, seed=1), 32)
    assert view.image.shape == (64, 3, 32, 32) and view.masks.shape == (64, world.SLOTS, 32, 32)
    assert view.image.min() >= -1 and view.image.max() <= 1
    assert view.masks.min() >= 0 and view.masks.sum(1).max() <= 1 + 1e-5  # a pixel shows one thing
    empty = view.scenes.kind < 0
    assert view.masks[empty].max() == 0


def test_every_kind_colour_ground_and_time_turns_up():
    scenes = world.sample(2000, seed=2)
    there = scenes.kind >= 0
    assert set(scenes.kind[there].tolist()) == set(range(len(world.KINDS)))
    assert set(scenes.colour[there].tolist()) == set(range(len(world.COLOURS)))
    assert set(scenes.ground.tolist()) == set(range(len(world.GROUNDS)))
    assert set(scenes.time.tolist()) == set(range(len(world.TIMES)))
    assert (scenes.accent != scenes.colour)[there].all()
    assert set(scenes.count.tolist()) == set(range(world.SLOTS + 1))


@pytest.mark.parametrize("kind", world.KINDS)
def test_each_kind_fills_a_fair_part_of_its_square(kind):
    view = world.render(
        world.scene("grass", "day", [dict(kind=kind, colour="red", x=0.5, y=0.5, size=0.4)]), 64
    )
    x0, y0, x1, y1 = view.boxes[0, 0].tolist()
    assert 0.05 <= x0 and x1 <= 0.95 and 0.05 <= y0 and y1 <= 0.95, "it leaves its square"
    assert (x1 - x0) > 0.2 and (y1 - y0) > 0.2
    mask = view.masks[0, 0] > 0.5
    worn = -torch.nn.functional.max_pool2d(
        -mask[None].float(), 7, stride=1, padding=3
    )  # three pixels off every side
    left = (worn.sum() / mask.sum()).item()
    assert (
        (left < 0.05)
        if kind in world.FAMILIES["thin"]
        else (left > 0.15 and mask.float().mean() > 0.12)
    )


def test_labels_follow_the_masks_and_boxes_hold_them():
    view = world.render(world.sample(32, seed=6), 64)
    kinds, colours = view.kinds(), view.colours()
    assert ((kinds > 0) == (colours > 0)).all()
    assert torch.equal(kinds > 0, view.masks.amax(1) > 0.5)
    for i in range(32):
        for slot in range(int(view.scenes.count[i])):
            seen = (view.masks[i, slot] > 0.5).nonzero()
            if len(seen):
                y0, x0 = (seen.amin(0) / 64).tolist()
                y1, x1 = ((seen.amax(0) + 1) / 64).tolist()
                assert view.boxes[i, slot].tolist() == pytest.approx([x0, y0, x1, y1])


def test_a_window_is_a_part_of_the_whole():
    scenes = world.sample(4, seed=12)
    whole = world.render(scenes, 64)
    part = world.render(scenes, 32, window=torch.tensor([[0.5, 0.25, 1.0, 0.75]]).expand(4, 4))
    assert (part.image - whole.image[:, :, 16:48, 32:]).abs().max() < 1e-3


def test_taking_an_object_out_changes_nothing_but_it_and_its_shadow():
    scenes = world.sample(64, seed=7)
    scenes = scenes[scenes.count > 0]
    before, after = world.render(scenes, 64), world.render(world.without(scenes, 0), 64)
    assert torch.equal(after.scenes.count, scenes.count - 1)
    assert (before.image - after.image).abs().flatten(1).amax(1).min() > 0.05
    # Adding it again by hand gives the first picture back (for scenes of one object, where order
    # does not matter).
    one = scenes.count == 1
    fields = {
        f: getattr(scenes, f)[one, 0]
        for f in ("kind", "colour", "accent", "pattern", "word", "x", "y", "size", "tilt", "flip")
    }
    again = world.added(world.without(scenes, 0)[one], **fields)
    assert torch.equal(world.render(again, 64).image, before.image[one])


def test_changing_the_colour_leaves_the_rest_alone():
    scenes = world.sample(32, seed=9)
    scenes = scenes[(scenes.count == 1) & (scenes.ground != world.GROUNDS.index("water"))]
    blue = world.changed(scenes, 0, colour="blue")
    a, b = world.render(scenes, 48), world.render(blue, 48)
    assert torch.equal(a.masks, b.masks)
    outside = (a.masks.sum(1, keepdim=True) == 0).expand_as(a.image)
    assert torch.equal(a.image[outside], b.image[outside])


def test_another_time_keeps_every_mask():
    scenes = world.sample(8, seed=10)
    assert torch.equal(
        world.render(scenes, 32).masks,
        world.render(world.elsewhere(scenes, time="night"), 32).masks,
    )


def test_an_added_object_is_drawn_where_there_is_room():
    scenes = world.sample(200, seed=11)
    scenes = scenes[scenes.count < 3]
    more = world.added(scenes, seed=5)
    assert torch.equal(more.count, scenes.count + 1)
    before, after = world.render(scenes, 48), world.render(more, 48)
    covered = (before.masks.sum((1, 2, 3)) - after.masks[:, :3].sum((1, 2, 3))).clamp(min=0)
    lost = covered.sum() / before.masks.sum()
    assert lost < 0.15, "new objects hide too much of the old ones"


def test_night_is_darker_and_shadows_fall_on_the_ground():
    scenes = world.sample(32, seed=13)
    light = [
        world.render(world.elsewhere(scenes, time=t), 32).image.mean() for t in ("day", "night")
    ]
    assert light[0] > light[1] + 0.4
    ball = dict(kind="ball", colour="red", x=0.5, y=0.7, size=0.15)
    with_ball = world.render(world.scene("snow", "day", [ball]), 64)
    bare = world.render(world.scene("snow", "day"), 64)
    darker = ((bare.image - with_ball.image).mean(1) > 0.1) & (with_ball.masks[:, 0] == 0)
    rows = darker.nonzero()[:, 1]
    assert len(rows) > 20 and rows.min() > 64 * 0.55


def test_captions_name_what_is_there_in_both_orders():
    scenes = world.sample(400, seed=14)
    texts = world.captions(scenes)
    two = scenes.count == 2
    first = second = 0
    for i in two.nonzero()[:, 0].tolist():
        names = [
            f"{world.COLOURS[c]} {world.KINDS[k]}"
            for k, c in zip(scenes.kind[i].tolist(), scenes.colour[i].tolist(), strict=True)
            if k >= 0
        ]
        assert all(name in texts[i] for name in names)
        if names[0] != names[1]:
            order = texts[i].index(names[0]) < texts[i].index(names[1])
            first, second = first + order, second + (not order)
    assert first > 20 and second > 20


def test_rich_captions_say_what_plain_ones_leave_out():
    apple = dict(
        kind="ball", colour="red", accent="green", pattern="striped", x=0.5, y=0.6, size=0.2
    )
    scenes = world.scene("grass", "night", [apple])
    assert world.captions(scenes, setting=0.0) == ["a red ball"]
    assert world.captions(scenes, rich=1.0, setting=0.0) == ["a striped red ball with green"]
    board = world.scene(
        "sand", "day", [dict(kind="sign", colour="blue", word="stop", x=0.5, y=0.5, size=0.3)]
    )
    assert world.captions(board, rich=1.0, setting=0.0) == ["a blue sign that says stop"]
    assert world.describe(board, 0) == ["a blue sign"] and world.describe(board, 1) == ["nothing"]
    assert world.describe(board, 0, rich=True) == ["a blue sign that says stop"]
    assert world.describe(scenes, 0, rich=True) == ["a striped red ball with green"]


def test_captions_use_known_words_only():
    scenes = world.sample(500, seed=15)
    for text in world.captions(scenes) + world.captions(scenes, rich=1.0):
        assert set(text.replace(",", " ,").split()) <= set(world.words()), text


def test_a_caption_does_not_depend_on_the_batch():
    scenes = world.sample(6, seed=16)
    assert (
        world.captions(scenes)[3:] != []
        and world.captions(scenes[:3]) == world.captions(scenes)[:3]
    )


def test_signs_are_legible_and_never_mirrored():
    words = [
        dict(kind="sign", colour="red", word=w, x=0.5, y=0.5, size=0.45, flip=f)
        for w, f in (("cat", 1), ("cat", -1), ("dog", 1))
    ]
    a, b, c = (world.render(world.scene("snow", "day", [w]), 64).image for w in words)
    assert torch.equal(a, b) and not torch.equal(a, c)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: world.scene("lava"), "tinyworld has no ground 'lava'; it has grass"),
        (lambda: world.scene("sand", "noon"), "tinyworld has no time 'noon'"),
        (
            lambda: world.scene("sand", "day", [dict(kind="dragon", colour="red")]),
            "tinyworld has no kind 'dragon'",
        ),
        (
            lambda: world.scene("sand", "day", [dict(kind="cat", color="red")]),
            "objects have no 'color'",
        ),
        (
            lambda: world.scene("sand", "day", [dict(kind="cat", colour="red")] * 5),
            "at most 4 objects",
        ),
        (lambda: world.added(world.sample(60, seed=1)), "at most 4 objects"),
    ],
)
def test_bad_scenes_are_refused_with_a_sentence(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()


def test_the_simple_world_keeps_everything_but_kinds_and_patterns():
    scenes = world.sample(200, seed=5)
    simple = world.simple(scenes)
    kinds = {world.KINDS[k] for k in simple.kind[simple.kind >= 0].tolist()}
    assert kinds == set(world.SIMPLE) and simple.pattern.eq(0).all()
    assert torch.equal(simple.kind < 0, scenes.kind < 0)
    for name in ("ground", "time", "horizon", "colour", "accent", "x", "y", "size", "tilt"):
        assert torch.equal(getattr(simple, name), getattr(scenes, name)), name
    sky = torch.tensor([world.KINDS.index(kind) for kind in world.FAMILIES["sky"]])
    flying = torch.isin(scenes.kind, sky)  # what flew flies on
    assert {world.KINDS[k] for k in simple.kind[flying].tolist()} <= set(world.SIMPLE[:4])
