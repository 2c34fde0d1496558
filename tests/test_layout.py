"""The noise that decides: rules that only permute, fresh noise in a region only, words that look
where told.
"""

from contextlib import nullcontext
from types import SimpleNamespace

import checkpoints
import pytest
import torch
import torch.nn.functional as F

import blendlab as bl
from blendlab import images
from blendlab.attention import capture, tokens
from blendlab.latents import decode
from blendlab.papers.inversion import invert
from blendlab.papers.layout import (
    RULES,
    attend,
    claimed,
    layout,
    looks,
    move_blocks,
    shared_out,
    swap,
)
from blendlab.papers.layout import _shapes as shapes_of
from blendlab.papers.repaint import repaint
from blendlab.papers.tendency import Landing, agreement, tendency
from blendlab.reader import NOISES, Reader
from blendlab.walk import Drawing, Walk

QUICK = dict(steps=4, w=3.0)
BOX, CAT = (0.0, 0.0, 0.5, 1.0), [("cat", (0.5, 0.0, 1.0, 0.5))]
TWO = [("cat", (0.0, 0.25, 0.5, 1.0)), ("car", (0.5, 0.0, 1.0, 0.75))]
PERMUTING = ("swap", "arrange", "paper")


def noise(n=1, seed=0):
    return bl.Noise(seed, n, "initial")((4, 8, 8))


def plain(pipe, prompt, z, **how):
    """The pictures of a prompt from noise, without any of this module."""
    walk = Walk.of(pipe, prompt, Drawing(eta=0.0, **(QUICK | how)), size=z.shape[-2:])
    return decode(pipe.vae, walk.down(z))


def state(unet):
    """Everything that could have been left in a network: its processors and hooks."""
    hooks = [
        (m._forward_pre_hooks | m._forward_hooks | m._forward_pre_hooks_with_kwargs)
        for m in unet.modules()
    ]
    return {name: id(processor) for name, processor in unet.attn_processors.items()}, hooks


# The rules


def case(g, most=4):
    """Random maps and disjoint random regions, each with a cell at least: (words,cells),
    (words,cells).
    """
    draw = lambda low, high: torch.randint(low, high, (), generator=g).item()  # noqa: E731
    cells, words = draw(8, 40), draw(1, most + 1)
    owner = torch.randint(-1, words, (cells,), generator=g)
    owner[torch.randperm(cells, generator=g)[:words]] = torch.arange(words)
    return torch.rand(words, cells, generator=g), owner == torch.arange(words)[:, None]


@pytest.mark.parametrize("rule", PERMUTING)
def test_every_rule_is_a_permutation_and_done_twice_it_is_done_once(rule):
    g, stream = torch.Generator().manual_seed(0), torch.Generator().manual_seed(1)
    for _ in range(700):
        maps, regions = case(g)
        origin = RULES[rule](maps, regions, stream)
        assert torch.equal(origin.sort().values, torch.arange(maps.shape[1]))
        again = RULES[rule](
            maps[:, origin], regions, stream
        )  # what is looked at travels with its block
        assert torch.equal(again, torch.arange(maps.shape[1]))


def test_blocks_move_as_they_are():
    z = torch.randn(2, 4, 8, 12, generator=torch.Generator().manual_seed(0))
    for block in (1, 2, 4):
        cells = z[0, 0].numel() // block**2
        origin = torch.stack([torch.randperm(cells) for _ in z])
        moved = move_blocks(z, origin, block)
        assert torch.equal(
            moved.flatten().sort().values, z.flatten().sort().values
        )  # so mean and variance too
        assert torch.equal(move_blocks(moved, origin.argsort(), block), z)
        assert torch.equal(move_blocks(z, torch.arange(cells).expand(2, -1), block), z)
        (y, x), (top, left) = (divmod(i, 12 // block) for i in (3, origin[1, 3].item()))
        old = z[1, :, top * block : (top + 1) * block, left * block : (left + 1) * block]
        assert torch.equal(
            moved[1, :, y * block : (y + 1) * block, x * block : (x + 1) * block], old
        )


def test_one_word_gets_the_cells_that_it_looks_at_most():
    maps, regions = (
        torch.rand(1, 30, generator=torch.Generator().manual_seed(0)),
        torch.zeros(1, 30, dtype=torch.bool),
    )
    regions[0, 4:13] = True
    best = maps[0].topk(9).indices
    for rule in PERMUTING:
        got = RULES[rule](maps, regions, torch.Generator())[4:13]
        missing = set(best.tolist()) - set(got.tolist())
        # the paper's strict inequalities leave the cell of A_min itself where it is, if that is
        # outside
        assert missing <= ({maps[0].argsort()[-9].item()} if rule == "paper" else set())
    origin = RULES["swap"](maps, regions)
    assert torch.equal(origin[origin], torch.arange(30))  # an exchange of pairs
    assert (origin != torch.arange(30)).sum() == 2 * (
        ~regions[0, best]
    ).sum()  # and no more than has to move
    ordered = RULES["arrange"](maps, regions)
    assert torch.equal(ordered[4:13], best)  # row by row in the order of attention
    assert torch.equal(
        ordered[~regions[0]], ordered[~regions[0]].sort().values
    )  # the others close ranks


def published_choice(maps, wanted):
    """The published code's: each cell to the word with the most attention, then own ones best
    first, others' worst.
    """
    owner = maps.argmax(0)
    own = [(owner == i).nonzero()[:, 0] for i in range(2)]
    own = [cells[maps[i, cells].argsort(descending=True)] for i, cells in enumerate(own)]
    return [torch.cat([own[i], own[1 - i].flip(0)])[: wanted[i]] for i in range(2)]


def test_shared_out_is_never_worse_than_the_published_choice_for_two_words():
    g, better = torch.Generator().manual_seed(0), 0
    for _ in range(300):
        maps, regions = case(g, most=2)
        if len(maps) == 1:
            continue
        ours, theirs = shared_out(maps, regions), published_choice(maps, regions.sum(1).tolist())
        total = [
            sum(m[c].sum() for m, c in zip(maps, cells, strict=True)) for cells in (ours, theirs)
        ]
        assert total[0] > total[1] - 1e-5
        better += (total[0] > total[1] + 1e-5).item()
    assert better > 50


def test_greedy_sharing_is_the_published_choice():
    g = torch.Generator().manual_seed(0)
    for _ in range(200):
        maps, regions = case(g, most=2)
        if len(maps) == 1:
            wanted = [maps[0].argsort(descending=True)[: regions.sum()]]
        else:
            wanted = published_choice(maps, regions.sum(1).tolist())
        for mine, theirs in zip(shared_out(maps, regions, "greedy"), wanted, strict=True):
            assert set(mine.tolist()) == set(theirs.tolist())


def test_greedy_sharing_is_for_two_words_at_most(sd):
    three = [(word, (i / 3, 0.0, i / 3 + 0.3, 1.0)) for i, word in enumerate(("cat", "car", "bus"))]
    with pytest.raises(ValueError, match="one word or two, not 3: take 'best'"):
        layout(sd, "a cat and a car and a bus", three, sharing="greedy", **QUICK)


def test_swap_moves_as_the_published_code_does(monkeypatch):
    # exchange_map_perfect_match (utils.py:324-360), written as copies from the old noise, for the
    # same choice of cells
    g = torch.Generator().manual_seed(2)
    for _ in range(200):
        maps, regions = case(g, most=2)
        if len(maps) == 1:
            continue
        chosen = [set(cells.tolist()) for cells in shared_out(maps, regions)]
        area = [set(region.nonzero()[:, 0].tolist()) for region in regions]
        come = [sorted(c - a) for c, a in zip(chosen, area, strict=True)]
        go = [sorted(a - c) for c, a in zip(chosen, area, strict=True)]
        wanted = list(range(maps.shape[1]))
        for new, old in zip(come, go, strict=True):
            for i, j in zip(new, old, strict=True):
                wanted[j] = i
        empty = [i for k in (0, 1) for i in come[k] if i not in area[1 - k]]
        homeless = [j for k in (0, 1) for j in go[k] if j not in come[1 - k]]
        for i, j in zip(empty, homeless, strict=True):
            wanted[i] = j
        assert swap(maps, regions).tolist() == wanted


def test_the_paper_exchanges_only_across_a_min():
    g, stream = torch.Generator().manual_seed(3), torch.Generator().manual_seed(0)
    for _ in range(100):
        maps, regions = case(g, most=1)
        origin, (heat,), (region,) = RULES["paper"](maps, regions, stream), maps, regions
        least = heat.sort(descending=True).values[region.sum() - 1]
        came = origin[region & (origin != torch.arange(len(heat)))]
        assert (heat[came] > least).all() and not region[came].any()
        assert len(came) == (~region & (heat > least)).sum()


def test_the_exchange_at_random_is_the_samples_own():
    maps, regions = torch.rand(1, 64), torch.zeros(1, 64, dtype=torch.bool)
    regions[0, :30] = True
    one, same, other = (
        RULES["paper"](maps, regions, torch.Generator().manual_seed(s)) for s in (0, 0, 1)
    )
    assert torch.equal(one, same) and not torch.equal(one, other)


def test_what_several_boxes_claim_goes_to_the_smallest():
    boxes = [(0.0, 0.0, 1.0, 0.5), (0.25, 0.0, 0.75, 1.0), (0.5, 0.0, 1.0, 1.0)]
    a, b, c = claimed("abc", boxes, (4, 4)).long().unbind()
    assert torch.equal(
        a + 2 * b + 3 * c, torch.tensor([[1, 1, 1, 1], [1, 1, 1, 1], [0, 2, 2, 3], [0, 2, 2, 3]])
    )
    with pytest.raises(ValueError, match="smaller boxes cover all of the box of 'b'"):
        claimed("ab", [(0.0, 0.0, 0.5, 0.5), (0.0, 0.0, 0.5, 0.5)], (4, 4))


# Where the words look


def test_the_published_layer_is_read_by_default():
    down = [
        f"down_blocks.{i}.attentions.{j}.transformer_blocks.0.attn2"
        for i in range(3)
        for j in range(2)
    ]
    up = [
        f"up_blocks.{i}.attentions.{j}.transformer_blocks.0.attn2"
        for i in (1, 2, 3)
        for j in range(3)
    ]
    names = [*down, *up, "mid_block.attentions.0.transformer_blocks.0.attn2"]  # Stable Diffusion 1
    unet = torch.nn.Module()  # of the published one's names
    unet.named_modules = lambda: [(name, None) for name in names]
    unet.config = SimpleNamespace(down_block_types=range(4))
    pipe = SimpleNamespace(unet=unet, tokenizer=checkpoints.tokenizer(), name_or_path="")
    read = lambda *how: Reader.of(pipe, "A dog and a car", ["dog", "car"], (4, 64, 64), *how)  # noqa: E731
    published = read()
    assert published.layers == [down[-1]] and published.block == 4 and published.cells == (16, 16)
    assert published.places == [[2], [5]]  # as the authors' notebook has it
    assert (
        read("mid").block == 8
        and read("up_blocks.1").block == 4
        and read(("up_blocks.2", "mid")).block == 2
    )
    assert read("mid", 2).cells == (32, 32)


def test_looks_are_the_maps_of_the_first_step(sd):
    z, prompt = noise(2), "a red cat and a car"
    with capture(sd.unet, "up", steps=(0,)) as maps:
        plain(sd, prompt, z)
    found = looks(sd, prompt, ["red cat", "car"], z, layers="up", steps=4)
    places = tokens(sd, prompt, "red cat")
    wanted = maps.at()[..., places].mean(-1)
    torch.testing.assert_close(
        found[:, 0], wanted / wanted.mean((1, 2), keepdim=True), rtol=1e-4, atol=0
    )
    assert looks(sd, prompt, ["car"], z, layers=("mid", "up"), block=2, steps=4).shape == (
        2,
        1,
        4,
        4,
    )


class Wrapped(torch.nn.Module):
    """A network of one cross-attention layer."""

    def __init__(self, attn):
        super().__init__()
        self.attn2 = attn

    def forward(self, hidden, text, mask=None):
        return self.attn2(hidden, encoder_hidden_states=text, attention_mask=mask)


@pytest.mark.parametrize("masked", [False, True])
def test_guidance_adds_to_the_logits_in_the_box(sd, masked):
    g = torch.Generator().manual_seed(0)
    attn = sd.unet.get_submodule("mid_block.attentions.0.transformer_blocks.0.attn2")
    hidden, text = torch.randn(4, 16, 32, generator=g), torch.randn(4, 77, 32, generator=g)
    mask = torch.zeros(4, 1, 77)
    mask[..., 50:] = -10000.0
    shapes = shapes_of([(0.0, 0.0, 0.5, 1.0)], (8, 8), "mask")
    net = Wrapped(attn)
    before = net(hidden, text, mask if masked else None)
    with attend(net, 2, [[3, 4]], shapes, 0.5):
        out = net(hidden, text, mask if masked else None)
    q, k, v = (f(x).unflatten(-1, (attn.heads, -1)).transpose(1, 2)
               for f, x in ((attn.to_q, hidden), (attn.to_k, text), (attn.to_v, text)))  # fmt: skip
    logits = q @ k.transpose(-1, -2) * attn.scale  # (B,heads,cells,tokens)
    for i in (2, 3):  # rows with the prompt; left half of 4x4 cells
        logits[i, :, torch.arange(16) % 4 < 2, 3:5] += 0.5 * logits[i].max()
    logits = logits + mask[:, None] if masked else logits
    wanted = attn.to_out[0]((logits.softmax(-1) @ v).transpose(1, 2).flatten(2))
    torch.testing.assert_close(out, wanted, rtol=0, atol=1e-5)
    torch.testing.assert_close(out[:2], before[:2], rtol=0, atol=1e-5)
    assert not torch.isclose(out[2:], before[2:]).all()


def test_the_published_guidance_starts_at_4_508_and_ends_at_nothing(sd, monkeypatch):
    seen = []
    monkeypatch.setattr(
        "blendlab.papers.layout.attend",
        lambda unet, n, places, shapes, strength, widen: seen.append(strength) or nullcontext(),
    )
    layout(sd, "a cat", CAT, guide="mask", strength=1.0, steps=50, w=1.0)
    assert seen[0] == pytest.approx(4.508) and seen[-1] == 0 and len(seen) == 50


def test_a_widened_box_is_a_cell_of_the_layer_wider_on_each_side(sd):
    g = torch.Generator().manual_seed(0)
    attn = sd.unet.get_submodule("mid_block.attentions.0.transformer_blocks.0.attn2")
    hidden, text = torch.randn(1, 64, 32, generator=g), torch.randn(1, 77, 32, generator=g)
    net, shapes = Wrapped(attn), torch.zeros(1, 8, 8)
    shapes[0, 3:5, 3:5] = 1
    before = net(hidden, text)
    for widen, side in ((False, 2), (True, 4)):
        with attend(net, 1, [[3]], shapes, 0.5, widen):
            changed = (net(hidden, text) != before).any(-1)
        assert changed.sum() == side**2, widen


def test_the_soft_shape_falls_off_from_the_middle_of_the_box():
    hard, soft = (
        shapes_of([(0.25, 0.0, 0.75, 0.5)], (16, 16), guide)[0] for guide in ("mask", "soft")
    )
    assert hard.sum() == 64 and hard[:8, 4:12].min() == 1
    assert soft.max() == soft[3, 7] and soft.min() > 0 and soft[0, 4] < soft[0, 7] < soft[3, 7]
    y, x = 3.5 / 16 - 0.25, 4.5 / 16 - 0.5
    assert soft[3, 4].item() == pytest.approx(
        2.718281828 ** (-(x**2 + y**2) / 2 / 0.25**2), rel=1e-5
    )


@pytest.mark.parametrize("error", [None, RuntimeError, KeyboardInterrupt])
def test_the_network_is_put_back_whatever_happens(sd, error):
    before = state(sd.unet)
    try:
        with attend(sd.unet, 1, [[1]], torch.ones(1, 8, 8), 1.0):
            sd.unet(noise(), 10, torch.zeros(1, 77, 32))
            if error:
                raise error
    except (RuntimeError, KeyboardInterrupt):
        pass
    assert state(sd.unet) == before


def test_a_word_draws_attention_where_it_should(tiny):
    z, prompt = bl.Noise(0, 2, "initial")((4, 32, 32)), "a red cat"
    walk = Walk.of(tiny, prompt, Drawing(w=4.0, steps=4, eta=0.0), size=(32, 32))
    reader = Reader.of(tiny, prompt, ["cat"], z.shape, "up")
    shapes = shapes_of([BOX], (32, 32), "mask")
    free = reader.looks(walk.net, z, 999, walk.text)
    with attend(tiny.unet, 2, reader.places, shapes, 0.5):
        led = reader.looks(walk.net, z, 999, walk.text)
    assert (led[..., :4].mean((1, 2, 3)) > free[..., :4].mean((1, 2, 3)) + 0.1).all()


# Layout


@pytest.mark.parametrize("layers", ["tiny", "sd1", "sd2", "sdxl"])
def test_layout_carries_blocks_and_makes_the_picture_of_that_noise(layers, tiny):
    pipe = tiny if layers == "tiny" else getattr(checkpoints, layers)()
    edit = layout(pipe, "a red cat and a car", TWO, n=2, seed=4, **QUICK)
    h = pipe.unet.config.sample_size
    z, moved, origin = (
        bl.Noise(4, 2, "initial")((4, h, h)),
        edit.settings["noise"],
        edit.settings["origin"],
    )
    assert torch.equal(moved, move_blocks(z, origin, edit.settings["block"])) and not torch.equal(
        moved, z
    )
    assert edit.settings["attention"].shape[:2] == (2, 2) and edit.settings["cells"].shape[0] == 2
    assert edit.tensor.shape == (2, 3, *2 * [h * pipe.vae_scale_factor])
    torch.testing.assert_close(
        edit.tensor, plain(pipe, "a red cat and a car", moved), rtol=0, atol=1e-4
    )


def test_without_a_rule_and_a_guide_nothing_changes(sd):
    edit = layout(sd, "a red cat", CAT, rule="none", n=2, **QUICK)
    assert torch.equal(edit.settings["noise"], noise(2))
    torch.testing.assert_close(edit.tensor, plain(sd, "a red cat", noise(2)), rtol=0, atol=1e-5)
    assert layout(sd, "a red cat", CAT, **QUICK).settings["rule"] == "swap"


@pytest.mark.parametrize("guide", ["mask", "soft"])
@pytest.mark.parametrize("w", [3.0, 1.0])
def test_guides_run_with_every_rule_and_leave_the_network_as_it_was(sd, guide, w):
    before = state(sd.unet)
    free, led = (
        layout(sd, "a cat", CAT, rule="paper", guide=g, strength=0.5, steps=2, w=w)
        for g in (None, guide)
    )
    assert torch.equal(free.settings["noise"], led.settings["noise"])
    assert (free.latents - led.latents).abs().max() > 1e-4
    assert state(sd.unet) == before


def test_half_precision_networks_keep_a_float32_state():
    pipe = checkpoints.sd1().to(torch.bfloat16)
    edit = layout(pipe, "a cat", CAT, guide="mask", strength=0.5, n=2, steps=2, w=3.0)
    moved = repaint(pipe, "a cat", BOX, steps=2, w=3.0).settings["moved"]["looks"]
    assert (
        edit.latents.dtype
        == edit.tensor.dtype
        == edit.settings["attention"].dtype
        == moved.dtype
        == torch.float32
    )
    assert edit.tensor.isfinite().all() and moved.isfinite().all()


def test_later_steps_can_carry_blocks_too(sd):
    options = dict(rule="arrange", seed=1, **QUICK)
    first, later, both = (layout(sd, "a cat", CAT, at=at, **options) for at in ((0,), (2,), (0, 2)))
    assert torch.equal(later.settings["noise"], noise(seed=1))
    assert torch.equal(first.settings["noise"], both.settings["noise"])
    assert len({edit.latents.sum().item() for edit in (first, later, both)}) == 3


def test_a_real_picture_can_be_laid_out(sd, image):
    edit = layout(sd, "a cat", CAT, image=image, caption="a dog", n=2, refine=2, **QUICK)
    z = invert(sd, image, "a dog", steps=4, refine=2)
    moved = move_blocks(z.expand(2, -1, -1, -1), edit.settings["origin"], edit.settings["block"])
    torch.testing.assert_close(edit.settings["noise"], moved, rtol=0, atol=1e-5)


# Re-painting


def test_an_empty_caption_is_a_caption(sd, image):
    edit = layout(sd, "a cat", CAT, image=image, caption="", **QUICK)
    assert edit.settings["caption"] == ""


@pytest.mark.parametrize("how", [dict(strength=0.3), dict(widen=True)])
def test_options_of_the_guidance_need_a_guide(sd, how):
    with pytest.raises(ValueError, match="choose guide='mask' or 'soft'"):
        layout(sd, "a cat", CAT, **how, **QUICK)


def test_only_the_noise_in_the_region_is_fresh(sd):
    edit = repaint(sd, "a cat", BOX, n=2, seed=5, **QUICK)
    new, old = edit.settings["noise"], noise(2, seed=5)
    assert (
        torch.equal(new[..., 4:], old[..., 4:])
        and not torch.isclose(new[..., :4], old[..., :4]).any()
    )
    torch.testing.assert_close(edit.settings["before"], plain(sd, "a cat", old), rtol=0, atol=1e-5)
    torch.testing.assert_close(edit.tensor, plain(sd, "a cat", new), rtol=0, atol=1e-5)
    assert edit.settings["tries"] == [1, 1] and edit.settings["met"] is None
    again, other = (
        repaint(sd, "a cat", BOX, seed=5, **QUICK),
        repaint(sd, "a cat", BOX, seed=5, new_seed=2, **QUICK),
    )
    assert torch.equal(again.settings["noise"], new[:1])
    assert not torch.isclose(other.settings["noise"][..., :4], new[:1, :, :, :4]).any()


def test_how_far_the_rest_moved_is_what_it_says(sd):
    edit = repaint(
        sd, "a cat", BOX, n=2, distance=lambda a, b: (a - b).abs().amax((1, 2, 3)), **QUICK
    )
    moved, change = edit.settings["moved"], edit.tensor - edit.settings["before"]
    torch.testing.assert_close(
        moved["outside"], change[..., 32:].square().mean((1, 2, 3)).sqrt() / 2
    )
    torch.testing.assert_close(
        moved["inside"], change[..., :32].square().mean((1, 2, 3)).sqrt() / 2
    )
    torch.testing.assert_close(moved["looks"], change[..., 32:].abs().amax((1, 2, 3)))
    features = repaint(sd, "a cat", BOX, **QUICK).settings["moved"][
        "looks"
    ]  # of the model's own autoencoder
    assert features.shape == (1,) and 0 < features < 2


@pytest.mark.parametrize("layers", ["sd2", "sdxl", "tiny"])
def test_other_layouts_are_repainted(layers, tiny):
    pipe = tiny if layers == "tiny" else getattr(checkpoints, layers)()
    edit = repaint(pipe, "a red cat", (0.2, 0.2, 0.7, 0.7), negative="", **QUICK)
    side = pipe.unet.config.sample_size * pipe.vae_scale_factor
    assert (
        edit.tensor.shape == (1, 3, side, side)
        and edit.settings["moved"]["inside"] > edit.settings["moved"]["outside"]
    )


def test_regions_are_boxes_or_masks(sd):
    two = [(0.0, 0.0, 0.5, 0.5), (0.5, 0.5, 1.0, 1.0)]
    mask = torch.zeros(1, 1, 64, 64)
    mask[..., :32, :32] = mask[..., 32:, 32:] = 1
    boxes, painted = (
        repaint(sd, "a cat", two, **QUICK),
        repaint(sd, "a cat", images.to_pil(mask)[0], **QUICK),
    )
    assert torch.equal(boxes.tensor, painted.tensor)
    each = repaint(sd, "a cat", torch.cat([mask, 1 - mask]), n=2, **QUICK)
    same = each.settings["noise"] == noise(2)
    assert torch.equal(~same[:, :1], F.interpolate(torch.cat([mask, 1 - mask]), (8, 8)) > 0)


def test_it_tries_until_the_test_is_met_or_the_budget_spent(sd):
    seen = []

    def until(pictures):
        seen.append(len(pictures))
        return [len(seen) > 1 and i == 0 for i in range(len(pictures))]

    edit = repaint(sd, "a cat", BOX, n=3, new_seed=7, until=until, tries=3, steps=2, w=1.0)
    assert (
        seen == [3, 3, 2]
        and edit.settings["tries"] == [2, 3, 3]
        and edit.settings["met"] == [True, True, False]
    )
    for row, k in ((0, 1), (1, 2), (2, 2)):  # each shows its last try, which has a seed of its own
        alone = repaint(sd, "a cat", BOX, n=3, new_seed=7 + k, steps=2, w=1.0)
        torch.testing.assert_close(edit.tensor[row], alone.tensor[row], rtol=0, atol=1e-4)
        assert torch.equal(edit.settings["noise"][row], alone.settings["noise"][row])
    with pytest.raises(ValueError, match="until gave 1 answers for 3 pictures"):
        repaint(sd, "a cat", BOX, n=3, until=lambda pictures: [True], steps=2)


def test_a_picture_is_repainted_in_its_own_noise(sd, image):
    edit = repaint(sd, "a cat", BOX, image=image, caption="a dog", n=2, refine=2, **QUICK)
    z = invert(sd, image, "a dog", steps=4, refine=2).expand(2, -1, -1, -1)
    torch.testing.assert_close(edit.settings["noise"][..., 4:], z[..., 4:], rtol=0, atol=1e-5)
    assert torch.equal(edit.settings["before"], image.expand(2, -1, -1, -1))


# Tendency


class Eye:
    """A judge that takes the brightest spot for a cat, and the whole picture for a second one."""

    kinds = ("cat", "car")

    def found(self, pictures):
        def box(picture):
            y, x = divmod(picture.mean(0).argmax().item(), picture.shape[-1])
            return (x / 64, y / 64, (x + 1) / 64, (y + 1) / 64)

        seen = lambda box: SimpleNamespace(kind="cat", box=box)  # noqa: E731
        return [[seen(box(picture)), seen((0, 0, 1, 1))] for picture in pictures]


def test_tendency_says_where_each_thing_lands_and_where_the_word_looked(sd):
    cat, car = tendency(sd, Eye(), "a cat and a car", n=3, seed=2, batch=2, **QUICK)
    assert (cat.word, car.word) == ("cat", "car") and car.place.isnan().all()
    z = noise(3, seed=2)
    pictures = plain(sd, "a cat and a car", z)
    spots = [divmod(p.mean(0).argmax().item(), 64) for p in pictures]
    torch.testing.assert_close(cat.place, torch.tensor([[x + 0.5, y + 0.5] for y, x in spots]) / 64)
    both = looks(sd, "a cat and a car", ["cat", "car"], z, steps=4)
    torch.testing.assert_close(
        torch.stack([cat.attention, car.attention], 1), both, rtol=0, atol=1e-4
    )
    assert len(car.foretold()) == 0 and len(cat.foretold()) == 3 and len(agreement(cat, car)) == 0


def test_a_noise_agrees_with_itself_and_random_maps_foretell_nothing():
    g = torch.Generator().manual_seed(0)
    one = Landing("", "", torch.rand(20, 2, generator=g), torch.rand(20, 8, 8, generator=g))
    one.place[3], one.place[7] = torch.nan, 1.0
    assert (
        torch.equal(agreement(one, one), torch.ones(19)) and abs(one.foretold().mean() - 0.5) < 0.2
    )


def test_noise_stays_normal_where_a_region_covers_half_of_a_cell(sd):
    edit = repaint(
        sd, "a cat", (0, 0, 36 / 64, 1), n=64, steps=1, w=1.0, mask_rule="area",
        distance=lambda a, b: (a - b).square().mean((1, 2, 3)),
    )  # fmt: skip
    spread = edit.settings["noise"].std((0, 1, 2))  # of each column of cells; the fifth is half
    torch.testing.assert_close(spread, torch.ones(8), rtol=0, atol=0.06)


def test_what_is_no_answer_for_each_picture_is_refused(sd):
    met = repaint(sd, "a cat", BOX, until=lambda pictures: map(bool, [1]), **QUICK)
    assert met.settings["met"] == [True]
    for answer in (True, torch.tensor(True)):
        with pytest.raises(ValueError, match="give a bool for each picture"):
            repaint(sd, "a cat", BOX, until=lambda pictures, a=answer: a, **QUICK)


# Bad input: a sentence that names the fix, before any network runs

THIN = torch.zeros(1, 1, 64, 64)
THIN[..., 1] = 1
BAD = [
    (layout, dict(boxes=[]), r"pass \[\('cat'"),
    (
        layout,
        dict(boxes=[("cat", (0.1, 0.1, 0.5))]),
        "has 3 numbers: give left, top, right, bottom",
    ),
    (layout, dict(boxes=[("cat", (0.5, 0.5, 1.2, 1.0))]), "leaves the picture"),
    (layout, dict(boxes=[("cat", (0.5, 0.5, 0.4, 1.0))]), "is empty: give left"),
    (layout, dict(boxes=[("cat", (0.5, 0.5, 0.51, 0.51))]), "make it larger"),
    (layout, dict(at=(0, 7), steps=3), "at= names step 7: take steps from 0 to 2"),
    (layout, dict(at=(1,), heat="relative"), "maps of the first step"),
    (layout, dict(boxes=[("dog", BOX)]), "'dog' is not in the prompt; its words are: a, red, cat"),
    (
        layout,
        dict(boxes=[("cat", BOX), ("cat", (0.5, 0.0, 1.0, 1.0))]),
        "by phrases of the prompt, as 'red cat'",
    ),
    (
        layout,
        dict(boxes=[("cat", BOX), ("car", (0.0, 0.0, 0.5, 1.0))]),
        "cover all of the box of 'car'",
    ),
    (layout, dict(rule="move"), "'swap' or 'arrange' or 'paper' or 'none'"),
    (layout, dict(guide="hard"), "'mask' or 'soft' or 'none'"),
    (layout, dict(layers="encoder"), "they are: down_blocks"),
    (layout, dict(block=3), "blocks of 3 do not tile latents of 8x8: pass block=4"),
    (
        layout,
        dict(noise=torch.zeros(1, 4, 96, 96), layers="up", block=1),
        "9216 blocks, more than 1024.*pass block=3",
    ),
    (layout, dict(noise=torch.zeros(1, 3, 8, 8)), r"noise is \(1,3,8,8\)"),
    (repaint, dict(region=(0.1, 0.1, 0.5)), "has 3 numbers"),
    (repaint, dict(region=[]), "has 0 numbers"),
    (repaint, dict(region=(0.1, 0.1, 1.5, 0.5)), "leaves the picture"),
    (repaint, dict(region=(0.0, 0.0, 1.0, 1.0)), "region is white everywhere"),
    (repaint, dict(region=torch.zeros(1, 1, 64, 64)), "region is black everywhere"),
    (repaint, dict(region=torch.ones(1, 1, 32, 32)), "region is white everywhere|fit_mask"),
    (repaint, dict(region=THIN), "'any'"),
    (repaint, dict(tries=0), "1 or more"),
    (repaint, dict(n=0), "1 or more"),
    (repaint, dict(steps=2000), "1 to 1000"),
    (repaint, dict(prompt="a dog " * 50), "room for 75"),
    (repaint, dict(caption="a dog " * 50), "room for 75"),
    (repaint, dict(image=torch.zeros(1, 3, 60, 60)), "multiples of 8"),
    (repaint, dict(image=torch.zeros(3, 3, 64, 64), n=2), "image holds 3 for n=2"),
    (repaint, dict(image=torch.zeros(1, 3, 64, 64), eta=0.5), "pass eta=0"),
]


@pytest.mark.parametrize("method, given, sentence", BAD, ids=[sentence for *_, sentence in BAD])
def test_bad_input_is_refused_before_any_network_runs(sd, monkeypatch, method, given, sentence):
    def ran(*args, **kwargs):
        raise AssertionError("a network ran")

    for part in (sd.unet, sd.vae.encoder, sd.text_encoder):
        monkeypatch.setattr(part, "forward", ran)
    usual = dict(boxes=CAT) if method is layout else dict(region=BOX)
    with pytest.raises(ValueError, match=sentence):
        method(sd, **(dict(prompt="a red cat and a car", **QUICK) | usual | given))


def test_what_finds_no_objects_is_no_judge(sd, tiny):
    with pytest.raises(ValueError, match="a StableDiffusionPipeline finds no objects: pass"):
        tendency(sd, tiny, ["a cat"], **QUICK)


def test_a_judge_that_knows_no_word_is_refused(sd, tiny):
    with pytest.raises(ValueError, match="the judge knows no word of 'a dog'; it knows cat, car"):
        tendency(sd, Eye(), ["a cat", "a dog"], **QUICK)
    with pytest.raises(ValueError, match="does not know 'dragon'"):
        layout(tiny, "a red dragon", [("dragon", BOX)])


def test_out_of_memory_says_which_option_halves_it(sd, monkeypatch):
    def full(*args, **kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(sd.unet, "forward", full)
    for method, given in ((layout, CAT), (repaint, BOX)):
        with pytest.raises(MemoryError, match="batch=2 halves it"):
            method(sd, "a red cat", given, n=4, **QUICK)


def test_a_relative_map_is_one_on_average_over_the_noises_and_published_ones_over_cells(sd):
    z = bl.Noise("usual", NOISES, "initial")((4, 8, 8))
    told = [looks(sd, "a red cat", ["cat"], z, layers="up", steps=4, heat=h)
            for h in ("relative", "plain")]  # fmt: skip
    torch.testing.assert_close(told[0].mean(0), torch.ones_like(told[0][0]), atol=1e-3, rtol=0)
    torch.testing.assert_close(told[1].mean((2, 3)), torch.ones(len(z), 1), atol=1e-3, rtol=0)


def test_the_published_preset_and_the_default_compare_a_map_with_nothing(sd):
    how = dict(n=2, steps=2, layers="up", w=1.0)
    changes = dict(preset="published"), dict(), dict(heat="relative")
    edits = [layout(sd, "a red cat", CAT, **how, **change) for change in changes]
    assert [edit.settings["heat"] for edit in edits] == ["plain", "plain", "relative"]
    plain, _, relative = (edit.settings["attention"] for edit in edits)
    z = bl.Noise(0, 2, "initial")((4, 8, 8))
    told = looks(sd, "a red cat", ["cat"], z, layers="up", steps=2, heat="relative")
    torch.testing.assert_close(relative, told, atol=1e-4, rtol=1e-3)
    assert not torch.allclose(plain, relative, atol=1e-3)
