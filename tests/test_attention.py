"""Cross-attention maps: that looking changes nothing, that each map is what its label says, and
where words are.
"""

import checkpoints
import pytest
import torch

import blendlab as bl
from blendlab import prompts
from blendlab.attention import Maps, capture, tokens

DOWN, MID = (
    "down_blocks.2.attentions.0.transformer_blocks.0.attn2",
    "mid_block.attentions.0.transformer_blocks.0.attn2",
)


def noise(n, h=8, w=8, seed=0):
    return torch.randn(n, 4, h, w, generator=torch.Generator().manual_seed(seed))


def text(n, width=32, length=77, seed=1):
    return torch.randn(n, length, width, generator=torch.Generator().manual_seed(seed))


def state(unet):
    """Everything that an observer could have left in a network: its processors and hooks."""
    hooks = [
        m._forward_pre_hooks | m._forward_hooks | m._forward_pre_hooks_with_kwargs
        for m in unet.modules()
    ]
    return {name: id(processor) for name, processor in unet.attn_processors.items()}, hooks


# --- looking changes nothing
# --------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["tiny", "sd1", "sd2", "sdxl"])
def test_the_output_is_the_same_bit_for_bit_and_no_map_comes_twice(layout, tiny):
    pipe = tiny if layout == "tiny" else getattr(checkpoints, layout)()
    size = pipe.unet.config.sample_size
    cond, null = prompts.encode(pipe, ["a red cat"])
    net = bl.denoiser(pipe.unet, bl.Schedule.from_scheduler(pipe.scheduler))
    denoise = bl.cfg(net, cond, null, 4.0)
    plain = denoise(noise(1, size, size), 500).x0_hat
    with capture(pipe.unet) as maps:
        seen = denoise(noise(1, size, size), 500).x0_hat
    assert torch.equal(seen, plain)

    layers = [name for name, _ in pipe.unet.named_modules() if name.endswith("attn2")]
    assert sorted(m.layer for m in maps) == sorted(layers) and {m.step for m in maps} == {0}
    for m in maps:
        assert (
            m.weights.dtype == torch.float32
            and m.weights.shape[-1] == pipe.tokenizer.model_max_length
        )
        # float32 rounds each of up to 77 weights by 6e-8
        torch.testing.assert_close(
            m.weights.sum(-1), torch.ones(m.weights.shape[:-1]), rtol=0, atol=1e-5
        )


def test_the_weights_are_those_that_the_layer_applies_to_its_values(sd):
    attn = sd.unet.get_submodule(MID)
    hidden, cond = text(2, 32, 16, seed=2), text(2)
    net = Wrapped(attn)
    with capture(net, branch="both") as maps:
        out = net(noise(2, 2, 8), hidden, cond)
    assert maps[0].size == (2, 8)
    heads = attn.to_v(cond).unflatten(-1, (attn.heads, -1)).transpose(1, 2)  # (B,heads,tokens,d)
    by_hand = maps[0].weights.flatten(2, 3) @ heads  # (B,heads,cells,d)
    torch.testing.assert_close(
        attn.to_out[0](by_hand.transpose(1, 2).flatten(2)), out, rtol=0, atol=1e-5
    )


class Wrapped(torch.nn.Module):
    """A network of one cross-attention layer."""

    def __init__(self, attn):
        super().__init__()
        self.attn2 = attn

    def forward(self, x, hidden, cond):
        return self.attn2(hidden, encoder_hidden_states=cond)


@pytest.mark.parametrize("error", [None, RuntimeError, KeyboardInterrupt])
def test_the_network_is_put_back_whatever_happens(sd, error):
    before = state(sd.unet)

    def use():
        with capture(sd.unet) as maps:
            sd.unet(noise(1), 10, text(1))
            if error:
                raise error
        return maps

    if error:
        with pytest.raises(error):
            use()
    else:
        maps = use()
        sd.unet(noise(1), 10, text(1))
        assert len(maps) == 4, "a closed capture sees no further call"
    assert state(sd.unet) == before


def test_an_error_inside_the_network_also_leaves_it_clean(sd):
    before = state(sd.unet)
    with pytest.raises(RuntimeError), capture(sd.unet):
        sd.unet(noise(1), 10, text(1, width=31))
    assert state(sd.unet) == before


def test_two_captures_at_once_do_not_disturb_each_other(sd):
    with capture(sd.unet, "down") as down, capture(sd.unet, "mid", steps=()) as mid:
        sd.unet(noise(1), 10, text(1))
    assert len(down) == 1 and not mid


def test_gradients_pass_through_and_maps_hold_none(sd):
    x = noise(1).requires_grad_()
    with capture(sd.unet) as maps:
        sd.unet(x, 10, text(1)).sample.sum().backward()
    assert x.grad.abs().sum() > 0 and not maps[0].weights.requires_grad


def test_a_network_can_be_trained_on_where_its_words_look(sd):
    unet = sd.unet
    x = noise(1).requires_grad_()
    with capture(unet, branch="both", grad=True) as maps:
        unet(x, 500, text(1))
    for heads in (99, "max", -1, True):
        with pytest.raises(ValueError, match="take 'mean', or a number from 0 to"):
            maps.at(0, size=maps[0].size, heads=heads)
    (slope,) = torch.autograd.grad(maps.at(0, size=maps[0].size)[..., 1].mean(), x)
    assert slope.abs().max() > 0


@pytest.mark.parametrize("dtype, atol", [(torch.float16, 0.005), (torch.bfloat16, 0.04)])
def test_half_precision_gives_float32_maps(dtype, atol):
    pipe = checkpoints.sd1()
    with capture(pipe.unet) as full:
        pipe.unet(noise(2), 10, text(2))
    pipe.unet.to(dtype)
    with capture(pipe.unet) as half:
        pipe.unet(noise(2).to(dtype), 10, text(2).to(dtype))
    for m, n in zip(full, half, strict=True):
        assert n.weights.dtype == torch.float32
        torch.testing.assert_close(
            n.weights.sum(-1), torch.ones(n.weights.shape[:-1]), rtol=0, atol=1e-5
        )
        torch.testing.assert_close(
            n.weights, m.weights, rtol=0, atol=atol
        )  # what the features lost


# --- branches
# -----------------------------------------------------------------------------------------


def test_branch_picks_its_half_of_cfgs_batch(sd):
    net = bl.denoiser(sd.unet, bl.Schedule.from_scheduler(sd.scheduler))
    x, cond, null = noise(2), text(2), text(1, seed=3)
    alone = {}
    for name, c in {"cond": cond, "uncond": null}.items():
        with capture(sd.unet) as maps:
            net(x, 500, c)
        alone[name] = maps

    found = {}
    for branch in ("cond", "uncond", "both"):
        with capture(sd.unet, branch=branch) as found[branch]:
            bl.cfg(net, cond, null, 7.5)(x, 500)
    for i in range(4):
        for branch in ("cond", "uncond"):
            # a batch of 4 rounds otherwise than one of 2
            close = dict(rtol=0, atol=1e-5)
            torch.testing.assert_close(found[branch][i].weights, alone[branch][i].weights, **close)
        both = torch.cat([found["uncond"][i].weights, found["cond"][i].weights])
        torch.testing.assert_close(found["both"][i].weights, both, **close)
    assert not torch.allclose(alone["cond"][0].weights, alone["uncond"][0].weights, atol=1e-3)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_without_guidance_the_only_branch_is_the_one_with_the_prompt(sd, n):
    net = bl.denoiser(sd.unet, bl.Schedule.from_scheduler(sd.scheduler))
    denoise = bl.cfg(net, text(n), text(1, seed=3), 1)
    with capture(sd.unet) as maps:
        denoise(noise(n), 500)
    assert {len(m.weights) for m in maps} == {n}
    with pytest.raises(ValueError, match="no branch without the prompt: take branch='cond'"):
        with capture(sd.unet, branch="uncond"):
            denoise(noise(n), 500)


def test_one_noise_with_two_prompts_needs_both(sd):
    x = noise(1).repeat(2, 1, 1, 1)
    with capture(sd.unet, branch="both") as maps:
        sd.unet(x, 500, text(2))
    assert {len(m.weights) for m in maps} == {2}


# --- labels
# -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("h, w", [(8, 8), (6, 10), (10, 6), (4, 16), (7, 9), (5, 3)])
def test_sizes_are_those_of_the_features_that_the_network_has_there(sd, h, w):
    features = {}  # the block around a layer still sees (B,C,h,w)
    hooks = []
    for name in [name for name, _ in sd.unet.named_modules() if name.endswith("attn2")]:
        block = sd.unet.get_submodule(name.split(".transformer_blocks")[0])
        keep = lambda _, args, name=name: features.update({name: tuple(args[0].shape[-2:])})  # noqa: E731
        hooks.append(block.register_forward_pre_hook(keep))
    with capture(sd.unet) as maps:
        sd.unet(noise(2, h, w), 10, text(2))
    for hook in hooks:
        hook.remove()
    assert {m.layer: m.size for m in maps} == features
    assert set(features.values()) == {(h, w), (-(-h // 2), -(-w // 2))}
    assert all(m.weights.shape[2:4] == m.size for m in maps)


def test_steps_count_the_calls_and_some_can_be_left_out(sd):
    with capture(sd.unet, "down") as every:
        for t in (900, 500, 100):
            sd.unet(noise(1), t, text(1))
    with capture(sd.unet, "down", steps=(0, 2)) as some:
        for t in (900, 500, 100):
            sd.unet(sample=noise(1), timestep=t, encoder_hidden_states=text(1))
    assert [m.step for m in every] == [0, 1, 2] and [m.step for m in some] == [0, 2]
    assert torch.equal(some.at(2), every.at(2)) and not torch.equal(every.at(2), every.at(0))


def test_layers_are_chosen_by_parts_of_their_names(tiny):
    def layers(which):
        with capture(tiny.unet, which) as maps:
            tiny.unet(noise(1, 16, 16), 10, text(1, 128, 32))
        return [m.layer for m in maps]

    assert (
        len(layers(None)) == 4
        and layers("down") == [DOWN]
        and layers(["mid", "down"]) == [DOWN, MID]
    )
    with pytest.raises(
        ValueError, match=rf"no cross-attention layer has 'encoder' in its name; they are: {DOWN}, "
    ):
        layers("encoder")


def test_a_tokens_mask_counts_as_it_does_in_the_network(sd):
    seen = torch.ones(2, 77)
    seen[0, 40:], seen[1, 10:] = 0, 0
    arguments = dict(encoder_hidden_states=text(2), encoder_attention_mask=seen)
    plain = sd.unet(noise(2), 10, **arguments).sample
    with capture(sd.unet) as maps:
        assert torch.equal(sd.unet(noise(2), 10, **arguments).sample, plain)
    for m in maps:
        assert m.weights[0, ..., 40:].max() == 0 and m.weights[1, ..., 10:].max() == 0
        torch.testing.assert_close(
            m.weights.sum(-1), torch.ones(m.weights.shape[:-1]), rtol=0, atol=1e-5
        )
    with capture(
        sd.unet
    ) as short:  # a mask is the same as not having the tokens, in the first layer
        sd.unet(noise(2), 10, text(2)[:, :10])
    torch.testing.assert_close(maps[0].weights[1, ..., :10], short[0].weights[1], rtol=0, atol=1e-5)


def test_at_is_the_mean_over_heads_and_over_layers_of_one_size(sd):
    with capture(sd.unet) as maps:
        sd.unet(noise(2), 10, text(2))
    fine = [m.weights for m in maps if m.size == (8, 8)]
    assert len(fine) == 3 and maps.at(size=(8, 8)).shape == (2, 8, 8, 77)
    torch.testing.assert_close(maps.at(size=[8, 8]), torch.stack(fine).mean(2).mean(0))
    torch.testing.assert_close(maps.at(layers="mid"), maps[1].weights.mean(1))
    torch.testing.assert_close(maps.at(layers="down", heads=3), fine[0][:, 3])


def test_at_says_what_there_is(sd):
    with capture(sd.unet, ["down", "mid"]) as maps:
        sd.unet(noise(1), 10, text(1))
    with pytest.raises(
        ValueError, match=r"size is None; these maps have \(4, 4\), \(8, 8\) cells: choose one"
    ):
        maps.at()
    with pytest.raises(
        ValueError, match=r"size is \(16, 16\); these maps have \(4, 4\), \(8, 8\) cells"
    ):
        maps.at(size=(16, 16))
    with pytest.raises(
        ValueError, match=r"no map is of step 3 and layers 'up'; there are steps \[0\] of down.*mid"
    ):
        maps.at(3, "up")
    with pytest.raises(ValueError, match="there are steps"):
        Maps().at()


@pytest.mark.parametrize(
    "wrong, says", [({"branch": "text"}, "'cond' or 'uncond' or"), ({"steps": 0}, r"\(0,\)")]
)
def test_wrong_options_are_refused_before_the_network_runs(sd, wrong, says):
    with pytest.raises(ValueError, match=says), capture(sd.unet, **wrong):
        pass


# --- words
# --------------------------------------------------------------------------------------------


def test_words_of_tinyworld_have_places(tiny):
    prompt = "a red cat and a blue cat on grass at night"
    assert tokens(tiny, prompt, "cat") == [3, 7] and tokens(tiny, prompt, "Grass") == [9]
    assert tokens(tiny, prompt, "a") == [1, 5] and tokens(tiny, prompt, "red cat") == [2, 3]
    with pytest.raises(
        ValueError, match="'dog' is not in the prompt; its words are: a, red, cat, and, blue, on, g"
    ):
        tokens(tiny, prompt, "dog")
    with pytest.raises(ValueError, match="does not know 'dragon'"):
        tokens(tiny, "a dragon", "dragon")


def test_words_of_several_pieces_have_several_places(sd):
    prompt = "A bobcat's cat, a Gryffindorian bus; zebra-fish and naïve cats"
    ids = sd.tokenizer(prompt).input_ids
    for word in ("bobcat", "Gryffindorian", "naïve", "zebra-fish", "a Gryffindorian bus"):
        places = tokens(sd, prompt, word)
        assert [ids[i] for i in places] == sd.tokenizer(word).input_ids[1:-1]
        assert places == list(range(places[0], places[-1] + 1)) and (
            len(places) > 1 or word == "bobcat"
        )
    assert len(tokens(sd, prompt, "cat")) == 1 and len(tokens(sd, prompt, "a")) == 2


@pytest.mark.parametrize("word", ["", "  ", "cats", "ca", "at"])
def test_what_is_no_word_of_the_prompt_is_refused(sd, word):
    with pytest.raises(
        ValueError, match="is not in the prompt; its words are: a, red, cat, bobcatt$"
    ):
        tokens(sd, "a red cat, a bobcatt", word)


def test_places_are_those_of_the_embeddings_that_the_unet_gets(sd):
    with_cat, _ = prompts.encode(sd, ["a red cat"])
    with_dog, _ = prompts.encode(sd, ["a red dog"])
    # the text encoder looks only back
    first = (with_cat != with_dog).any(-1)[0].nonzero()[0].item()
    assert [first] == tokens(sd, "a red cat", "cat") == tokens(sd, "a red dog", "dog")
