"""guided-diffusion checkpoints: converted, they compute what the equations of 2105.05233's network
say.

`Original` is that network written from its equations. Its first run draws the weights that it asks
for and names them as guided-diffusion does, so the small checkpoint of a test and its reference are
one thing.
"""

import hashlib
import math
from dataclasses import dataclass, field

import pytest
import torch
import torch.nn.functional as F
from colour_clip import ColourClip, ColourModel

import blendlab as bl
from blendlab import cards
from blendlab.cards import card, settings
from blendlab.guidance import denoiser
from blendlab.networks import adm
from blendlab.networks.load import load
from blendlab.papers.blended import blended
from blendlab.papers.clip_guided import clip_guided
from blendlab.schedule import Schedule


@dataclass
class Original:
    """The UNet of guided-diffusion. mults: widths of the levels / width; attends: levels; head:
    channels of a head.
    """

    width: int = 32
    mults: tuple = (1, 2)
    blocks: int = 1
    attends: tuple = (1,)
    head: int = 16
    heads: int | None = None
    legacy: bool = True
    classes: int | None = None
    learned: bool = True
    resblock_updown: bool = True
    scale_shift: bool = True
    device: str = "cpu"
    state: dict = field(default_factory=dict)

    def get(self, name, *shape):
        if name not in self.state:
            spread = torch.Generator().manual_seed(len(self.state))
            if self.device == "meta":  # shapes without numbers
                self.state[name] = torch.empty(shape, device="meta")
            elif len(shape) == 1:
                self.state[name] = 0.3 * torch.randn(shape, generator=spread)
            else:
                self.state[name] = (
                    torch.randn(shape, generator=spread) / math.prod(shape[1:]) ** 0.5
                )
        return self.state[name].to(self.dtype)

    def conv(self, name, x, out, side=3, stride=1):
        weight, bias = (
            self.get(f"{name}.weight", out, x.shape[1], side, side),
            self.get(f"{name}.bias", out),
        )
        return F.conv2d(x, weight, bias, stride, side // 2)

    def dense(self, name, x, out):
        """A layer on the second axis of (B,C) or (B,C,HW); the latter is a convolution over one
        axis.
        """
        shape = (out, x.shape[1], 1) if x.ndim == 3 else (out, x.shape[1])
        weight, bias = self.get(f"{name}.weight", *shape), self.get(f"{name}.bias", out)
        y = torch.einsum("oc,bc...->bo...", weight.flatten(1), x)
        return y + (bias[:, None] if x.ndim == 3 else bias)

    def norm(self, name, x):
        weight, bias = self.get(f"{name}.weight", x.shape[1]), self.get(f"{name}.bias", x.shape[1])
        groups = x.reshape(len(x), 32, -1)
        mean, var = groups.mean(2, keepdim=True), groups.var(2, correction=0, keepdim=True)
        x = ((groups - mean) / (var + 1e-5).sqrt()).reshape(x.shape)
        axes = (1, -1) + (1,) * (x.ndim - 2)
        return x * weight.reshape(axes) + bias.reshape(axes)

    def block(self, name, x, emb, out, resize=lambda x: x):
        h = resize(F.silu(self.norm(f"{name}.in_layers.0", x)))
        x = resize(x)
        h = self.conv(f"{name}.in_layers.2", h, out)
        say = self.dense(f"{name}.emb_layers.1", F.silu(emb), 2 * out if self.scale_shift else out)[
            ..., None, None
        ]
        if self.scale_shift:
            h = self.norm(f"{name}.out_layers.0", h) * (1 + say[:, :out]) + say[:, out:]
        else:
            h = self.norm(f"{name}.out_layers.0", h + say)
        h = self.conv(f"{name}.out_layers.3", F.silu(h), out)
        return h + (
            x if x.shape[1] == out else self.conv(f"{name}.skip_connection", x, out, side=1)
        )

    def attention(self, name, x):
        flat = x.flatten(2)  # (B,C,HW)
        C = flat.shape[1]
        d = C // self.heads if self.heads else self.head
        qkv, seen = self.dense(f"{name}.qkv", self.norm(f"{name}.norm", flat), 3 * C), []
        for i in range(C // d):
            first, step = (3 * d * i, d) if self.legacy else (d * i, C)
            q, k, v = (qkv[:, first + step * j : first + step * j + d] for j in range(3))
            weight = (q.transpose(1, 2) @ k / d**0.5).softmax(-1)  # (B, HW of q, HW of k)
            seen.append(v @ weight.transpose(1, 2))
        return x + self.dense(f"{name}.proj_out", torch.cat(seen, 1), C).reshape(x.shape)

    def down(self, name, x, emb):
        if self.resblock_updown:
            return self.block(name, x, emb, x.shape[1], lambda x: F.avg_pool2d(x, 2))
        return self.conv(f"{name}.op", x, x.shape[1], stride=2)

    def up(self, name, x, emb):
        twice = lambda x: x.repeat_interleave(2, 2).repeat_interleave(2, 3)  # noqa: E731
        if self.resblock_updown:
            return self.block(name, x, emb, x.shape[1], twice)
        return self.conv(f"{name}.conv", twice(x), x.shape[1])

    def __call__(self, x, t, y=None):
        self.dtype, names = x.dtype, iter(range(10**6))
        half = self.width // 2
        angle = t[:, None].float() * torch.exp(
            -math.log(10000) * torch.arange(half, device=x.device) / half
        )
        emb = torch.cat([angle.cos(), angle.sin()], 1).to(x.dtype)  # float32 until here, as there
        emb = F.silu(self.dense("time_embed.0", emb, 4 * self.width))
        emb = self.dense("time_embed.2", emb, 4 * self.width)
        if self.classes:
            emb = emb + self.get("label_emb.weight", self.classes, 4 * self.width)[y]

        widths = [int(mult * self.width) for mult in self.mults]
        x = self.conv(f"input_blocks.{next(names)}.0", x, widths[0])
        kept = [x]
        for level, width in enumerate(widths):
            for _ in range(self.blocks):
                name = f"input_blocks.{next(names)}"
                x = self.block(f"{name}.0", x, emb, width)
                x = self.attention(f"{name}.1", x) if level in self.attends else x
                kept.append(x)
            if level < len(widths) - 1:
                x = self.down(f"input_blocks.{next(names)}.0", x, emb)
                kept.append(x)

        x = self.block("middle_block.0", x, emb, widths[-1])
        x = self.attention("middle_block.1", x)
        x = self.block("middle_block.2", x, emb, widths[-1])

        names = iter(range(10**6))
        for level in reversed(range(len(widths))):
            for _ in range(self.blocks + 1):
                name = f"output_blocks.{next(names)}"
                x = self.block(f"{name}.0", torch.cat([x, kept.pop()], 1), emb, widths[level])
                x = self.attention(f"{name}.1", x) if level in self.attends else x
            if level:
                x = self.up(f"{name}.{2 if level in self.attends else 1}", x, emb)
        return self.conv("out.2", F.silu(self.norm("out.0", x)), 6 if self.learned else 3)


def example(side=16, dtype=torch.float32, batch=2):
    x = torch.randn(
        batch,
        3,
        *((side, side) if isinstance(side, int) else side),
        dtype=torch.float64,
        generator=torch.Generator().manual_seed(1),
    )
    return x.to(dtype), torch.tensor([981, 3])[:batch]


@pytest.fixture
def small():
    """A small unconditional network and its checkpoint; its heads have the official 64 channels."""
    original = Original(head=64)
    original(*example())
    return original


# -- The numbers
# ---------------------------------------------------------------------------------------------

LAYOUTS = {
    "unconditional": dict(),
    "with classes": dict(classes=5),
    "new order": dict(legacy=False),
    "new order, with classes": dict(legacy=False, classes=3, blocks=2),
    "as 64: three blocks, all but the first attend": dict(
        mults=(1, 2, 3), blocks=3, attends=(1, 2), head=32
    ),
    "as 128: a number of heads": dict(mults=(1, 2, 3), attends=(1, 2), heads=4),
    "as 256: widths repeat": dict(mults=(1, 1, 2, 2), blocks=2, attends=(2, 3), head=32, classes=4),
    "as 512: the first level is half as wide": dict(
        width=64, mults=(0.5, 1, 1), attends=(2,), head=32
    ),
    "narrow heads, attention everywhere": dict(attends=(0, 1), head=4),
    "one head": dict(attends=(0, 1), heads=1),
    "attention in the middle only": dict(attends=()),
    "fixed variance": dict(learned=False),
    "plain resizing": dict(resblock_updown=False, attends=(1, 2), mults=(1, 1, 2)),
    "shift only": dict(scale_shift=False),
    "one level": dict(mults=(2,), attends=(0,)),
}


def both(layout, side=16, dtype=torch.float32):
    """The outputs of the original and of the converted network."""
    original, (x, t) = Original(**layout), example(side, dtype)
    y = torch.tensor([2, 0]) if original.classes else None
    expected = original(x, t, y)
    options = dict(heads=original.heads) if original.heads else dict(head_channels=original.head)
    unet = adm.convert(original.state, legacy=original.legacy, dtype=dtype, **options)
    return unet(x, t, class_labels=y).sample, expected


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_the_converted_network_computes_what_the_original_does(layout):
    for dtype, atol in ((torch.float32, 1e-4), (torch.float64, 1e-12)):
        ours, expected = both(layout, dtype=dtype)
        torch.testing.assert_close(ours, expected, rtol=0, atol=atol)
        assert expected.std() > 0.1  # so that the tolerance means something


@pytest.mark.parametrize("side", [4, 12, 20, (8, 28), (32, 4)])
def test_any_size_that_the_levels_divide_agrees(side):
    ours, expected = both(dict(mults=(1, 1, 2), attends=(1, 2)), side)
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-4)


def test_every_step_number_agrees_also_between_levels():
    original = Original()
    x = example()[0][:1].expand(6, -1, -1, -1)
    t = torch.tensor([0.0, 1.0, 10.1, 499.5, 747.0, 999.0])
    expected = original(x, t)
    torch.testing.assert_close(
        adm.convert(original.state, head_channels=16)(x, t).sample, expected, rtol=0, atol=1e-4
    )


@pytest.mark.parametrize("wrong", [dict(legacy=False), dict(head_channels=32), dict(heads=1)])
def test_what_a_checkpoint_does_not_tell_changes_the_output(wrong):
    original, (x, t) = Original(), example()
    expected = original(x, t)
    unet = adm.convert(original.state, **dict(head_channels=16) | wrong)
    assert (unet(x, t).sample - expected).abs().max() > 1e-2


@pytest.mark.parametrize(
    "name, layout, size",
    [
        ("64", dict(width=192, mults=(1, 2, 3, 4), blocks=3, attends=(1, 2, 3), classes=1000), 64),
        (
            "128",
            dict(
                width=256, mults=(1, 1, 2, 3, 4), blocks=2, attends=(2, 3, 4), heads=4, classes=1000
            ),
            128,
        ),
        (
            "256",
            dict(width=256, mults=(1, 1, 2, 2, 4, 4), blocks=2, attends=(3, 4, 5), classes=1000),
            256,
        ),
        (
            "512",
            dict(
                width=256, mults=(0.5, 1, 1, 2, 2, 4, 4), blocks=2, attends=(4, 5, 6), classes=1000
            ),
            512,
        ),
    ],
)
def test_the_official_layouts_are_recognised(name, layout, size):
    original = Original(**layout, head=64, device="meta")
    original(
        torch.empty(1, 3, size, size, device="meta"),
        torch.zeros(1, device="meta"),
        torch.zeros(1, dtype=torch.long, device="meta"),
    )
    unet = adm.convert(original.state, heads=original.heads)
    assert unet.config.sample_size == size and unet.config.num_class_embeds == 1000
    assert unet.config.block_out_channels == [
        int(mult * layout["width"]) for mult in layout["mults"]
    ]
    assert [name.startswith("Attn") for name in unet.config.down_block_types] == [
        level in layout["attends"] for level in range(len(layout["mults"]))
    ]


def test_adm_256_has_the_published_number_of_weights():
    original = Original(
        256, (1, 1, 2, 2, 4, 4), blocks=2, attends=(3, 4, 5), head=64, device="meta"
    )
    original(torch.empty(1, 3, 256, 256, device="meta"), torch.zeros(1, device="meta"))
    assert len(original.state) == 566  # as the published file
    assert sum(weight.numel() for weight in adm.convert(original.state).parameters()) == 552_814_086


# -- The keys
# ------------------------------------------------------------------------------------------------


def test_every_weight_arrives_once(small):
    theirs = torch.cat([weight.flatten() for weight in small.state.values()]).sort().values
    ours = (
        torch.cat([weight.flatten() for weight in adm.convert(small.state).parameters()])
        .sort()
        .values
    )
    assert torch.equal(theirs, ours)


def test_layers_get_the_weights_of_their_part(small):
    ours, theirs = adm.convert(small.state).state_dict(), small.state
    for new, old in {
        "time_embedding.linear_2.weight": "time_embed.2.weight",
        "conv_in.bias": "input_blocks.0.0.bias",
        "down_blocks.0.downsamplers.0.conv1.weight": "input_blocks.2.0.in_layers.2.weight",
        "up_blocks.0.upsamplers.0.norm2.bias": "output_blocks.1.2.out_layers.0.bias",
        "mid_block.attentions.0.group_norm.weight": "middle_block.1.norm.weight",
    }.items():
        assert torch.equal(ours[new], theirs[old]), old


@pytest.mark.parametrize("layout", [dict(), dict(resblock_updown=False, mults=(1, 1), attends=())])
def test_each_missing_key_is_refused_by_name(layout):
    original = Original(**layout)
    original(*example())
    for key in original.state:
        with pytest.raises(ValueError, match=f"missing in this state dict: {key};"):
            adm.convert(
                {name: value for name, value in original.state.items() if name != key},
                head_channels=16,
            )


@pytest.mark.parametrize(
    "key",
    [
        "input_blocks.1.0.skip_connection.weight",
        "input_blocks.1.1.qkv_norm.weight",
        "output_blocks.4.0.in_layers.0.weight",
        "middle_block.3.in_layers.0.weight",
        "label_emb.bias",
        "out.3.weight",
        "low_res.weight",
        "epoch",
    ],
)
def test_an_unknown_key_is_refused_by_name(small, key):
    with pytest.raises(ValueError, match=f"unknown in this state dict: {key}"):
        adm.convert(small.state | {key: torch.zeros(1)})


def test_many_unknown_keys_are_counted(small):
    with pytest.raises(ValueError, match=r"extra\.0, .* and 2 more; give an unchanged checkpoint"):
        adm.convert(small.state | {f"extra.{i}": torch.zeros(1) for i in range(10)})


def test_other_networks_are_refused(small):
    classifier = {
        key: value for key, value in small.state.items() if not key.startswith("output_blocks")
    }
    for state in (classifier, {}, {"state_dict": small.state, "epoch": 3}):
        with pytest.raises(ValueError, match="no output_blocks.0.0 .* guided-diffusion"):
            adm.convert(state)


@pytest.mark.parametrize("options", [dict(head_channels=48), dict(heads=7)])
def test_heads_that_do_not_fit_are_refused(small, options):
    with pytest.raises(
        ValueError,
        match="do not fit into attention 64 channels wide; give head_channels= or heads=",
    ):
        adm.convert(small.state, **options)


# -- A file, and the pipeline
# --------------------------------------------------------------------------------


@pytest.fixture
def file(small, tmp_path):
    torch.save(small.state, tmp_path / "mine.pt")
    return tmp_path / "mine.pt"


def test_a_local_file_loads_to_a_frozen_pipeline_and_fetches_nothing(file, small, monkeypatch):
    monkeypatch.setattr(adm, "fetch", None)
    for name in (file, str(file)):
        pipe = load(name, device="cpu")
        assert (
            type(pipe).__name__ == "DDPMPipeline"
            and pipe.unet.dtype == torch.float32
            and not pipe.unet.training
        )
        assert not any(weight.requires_grad for weight in pipe.unet.parameters())
        x, t = example()
        torch.testing.assert_close(pipe.unet(x, t).sample, small(x, t), rtol=0, atol=1e-4)
        assert card(pipe) == {}


def test_weights_come_in_the_type_asked_for_and_without_a_word(file, caplog, capfd):
    assert load(file, device="cpu", dtype=torch.float16).unet.dtype == torch.float16
    assert not caplog.records and capfd.readouterr() == ("", "")


def test_the_scheduler_is_the_one_of_the_official_code(file):
    scheduler = load(file, device="cpu").scheduler
    config = scheduler.config
    assert (config.prediction_type, config.variance_type, config.clip_sample) == (
        "epsilon",
        "learned_range",
        False,
    )
    schedule = Schedule.from_scheduler(scheduler)
    torch.testing.assert_close(
        schedule.abar, Schedule.linear().abar, rtol=1e-4, atol=0
    )  # betas are float32 there
    timesteps = schedule.timesteps(100, skip=0.25)
    assert timesteps[:2] == [747, 737] and timesteps[-3:] == [10, 0, -1]  # as respace.py for "100"
    scheduler.set_timesteps(100)
    assert scheduler.timesteps.tolist()[25:] == timesteps[:-1]


def test_the_pipeline_makes_pictures_with_its_learned_variance(file):
    pictures = load(file, device="cpu")(
        batch_size=2,
        num_inference_steps=3,
        output_type="np",
        generator=torch.Generator().manual_seed(0),
    ).images
    assert pictures.shape == (2, 16, 16, 3) and pictures.std() > 0.01


def test_a_denoiser_splits_epsilon_from_the_learned_variance(file, small):
    pipe, x = load(file, device="cpu"), example()[0]
    schedule = Schedule.from_scheduler(pipe.scheduler)
    timesteps = schedule.timesteps(10)
    t, t_next = timesteps[4], timesteps[5]
    seen = denoiser(pipe.unet, schedule, timesteps=timesteps)(x, t)

    eps, v = small(x, torch.full((2,), t)).chunk(2, dim=1)
    (a, s), (a_next, s_next) = schedule.levels(t), schedule.levels(t_next)
    beta = 1 - (a / a_next) ** 2
    share = (v + 1) / 2
    log_var = share * math.log(beta) + (1 - share) * math.log(beta * s_next**2 / s**2)
    torch.testing.assert_close(seen.x0_hat, (x - s * eps) / a, rtol=0, atol=1e-4)
    torch.testing.assert_close(seen.var.log(), log_var, rtol=0, atol=1e-4)


def test_classes_are_a_condition_of_the_denoiser():
    original, (x, _) = Original(classes=5), example()
    original(x, torch.tensor([1, 1]), torch.tensor([0, 0]))
    pipe = adm.pipeline(adm.convert(original.state, head_channels=16))
    schedule = Schedule.from_scheduler(pipe.scheduler)
    seen = denoiser(pipe.unet, schedule)(x, 500, {"class_labels": torch.tensor([4])})
    eps = original(x, torch.tensor([500, 500]), torch.tensor([4, 4]))[:, :3]
    a, s = schedule.levels(500)
    torch.testing.assert_close(
        seen.x0_hat, (x - s * eps) / a, rtol=0, atol=1e-3
    )  # divided by a = 0.28


@pytest.fixture(scope="module")
def with_classes():
    original = Original(classes=5)
    original(example()[0], torch.tensor([1, 1]), torch.tensor([0, 0]))
    return adm.pipeline(adm.convert(original.state, head_channels=16))


def test_a_network_with_classes_that_is_told_none_gets_a_sentence(with_classes):
    schedule = Schedule.from_scheduler(with_classes.scheduler)
    fix = "trained with 5 classes and is told none: pass cond=.*, as blended"
    with pytest.raises(ValueError, match=fix):
        denoiser(with_classes.unet, schedule)(example()[0], 500)


@pytest.fixture
def labels(with_classes):
    """The classes that the network is told, call after call."""
    told = []
    hook = with_classes.unet.register_forward_pre_hook(
        lambda _, args, kwargs: told.append(kwargs["class_labels"].tolist()), with_kwargs=True
    )
    yield told
    hook.remove()


def change(method, model, **options):
    """An edit of a picture of 16x16; what CLIP and the background say of it weighs nothing."""
    image, mask = torch.zeros(1, 3, 16, 16), torch.zeros(1, 1, 16, 16)
    mask[..., 4:12, 4:12] = 1
    options |= dict(scale=0.0, augmentations=1, unwarped=1, steps=4, skip=0.25, eta=1.0)
    if method is clip_guided:
        options |= dict(background=0.0, perceptual=lambda a, b: (a - b).square().mean((1, 2, 3)))
    clip = ColourClip(ColourModel())
    return method(model, clip, image, mask, "red", ranking=None, **options)


@pytest.mark.parametrize("method", [blended, clip_guided])
def test_each_sample_is_told_another_class_at_each_step_whatever_its_batch(
    method, with_classes, labels
):
    """As the authors' code draws them (gaussian_diffusion.py:504-510), but by the seed."""
    state = torch.get_rng_state()
    together = change(method, with_classes, n=12)
    assert torch.equal(torch.get_rng_state(), state)
    told = torch.tensor(labels)  # (steps,12)
    assert together.settings["classes"] == "random" and told.shape == (3, 12)
    assert set(told.flatten().tolist()) == set(range(5))
    assert (told[0] != told[1]).any() and (told[1] != told[2]).any()

    labels.clear()
    alone = change(method, with_classes, n=3, first=7, batch=2)
    torch.testing.assert_close(alone.tensor, together.tensor[7:10], rtol=0, atol=1e-3)
    assert [sum(pair, []) for pair in zip(labels[:3], labels[3:], strict=True)] == (
        told[:, 7:10].tolist()
    )
    labels.clear()
    change(method, with_classes, n=2, seed=1)
    assert labels != told[:, :2].tolist()


@pytest.mark.parametrize("method", [blended, clip_guided])
def test_one_class_can_be_chosen(method, with_classes, labels):
    change(method, with_classes, n=2, classes=3)
    assert labels == [[3, 3]] * 3


@pytest.mark.parametrize("classes", [-1, 5, 2.5, True, "cat"])
def test_a_class_that_the_network_does_not_have_is_refused(with_classes, labels, classes):
    with pytest.raises(ValueError, match="classes is .*(a class|0 to 4|choose 'random')"):
        change(blended, with_classes, classes=classes)
    assert not labels


def test_classes_are_for_networks_with_classes(small):
    model = adm.pipeline(adm.convert(small.state))
    with pytest.raises(ValueError, match="classes is 0, and this network has none: leave it out"):
        change(blended, model, classes=0)


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda x: x.to(torch.int8), "not of floats in this state dict: out.2.weight; give"),
        (lambda x: x * float("nan"), "this state dict has NaN or infinite numbers in"),
        (lambda x: x[:, :1], "this state dict holds conv_out.weight of the shape"),
        (lambda x: "no tensor", "spoilt.pt holds a str in 'out.2.weight': save"),
    ],
)
def test_weights_that_are_no_finite_floats_of_the_right_shape_are_refused(
    small, spoil, sentence, tmp_path
):
    state = small.state | {"out.2.weight": spoil(small.state["out.2.weight"])}
    torch.save(state, tmp_path / "spoilt.pt")
    with pytest.raises(ValueError, match=sentence):
        adm.load(tmp_path / "spoilt.pt", head_channels=16)


def test_a_fixed_variance_is_the_large_one():
    original = Original(learned=False)
    original(*example())
    pipe = adm.pipeline(adm.convert(original.state, head_channels=16))
    assert pipe.scheduler.config.variance_type == "fixed_large"


def test_a_saved_folder_opens_to_the_same_network(file, tmp_path):
    pipe = load(file, device="cpu")
    pipe.save_pretrained(tmp_path / "folder")
    x, t = example()
    again = load(tmp_path / "folder", device="cpu")
    assert torch.equal(again.unet(x, t).sample, pipe.unet(x, t).sample)
    assert again.scheduler.config.variance_type == "learned_range"


@pytest.mark.parametrize(
    "layout, options",
    [
        (dict(width=64, mults=(0.5, 1), head=32), dict(head_channels=32)),
        (dict(mults=(1, 2, 3), attends=(1, 2), heads=4), dict(heads=4)),
    ],
)
def test_a_network_that_a_folder_would_change_is_not_saved(layout, options, tmp_path):
    original = Original(**layout)
    original(*example())
    with pytest.raises(ValueError, match="keep the .pt and load that"):
        adm.pipeline(adm.convert(original.state, **options)).save_pretrained(tmp_path)


def test_official_files_are_known_by_name(tmp_path):
    x, t = example()
    for name, layout in {
        "64x64_diffusion.pt": dict(legacy=False, head=64),
        "128x128_diffusion.pt": dict(heads=4),
    }.items():
        original = Original(**layout)
        expected = original(x, t)
        torch.save(original.state, tmp_path / name)
        pipe = load(tmp_path / name, device="cpu")
        torch.testing.assert_close(pipe.unet(x, t).sample, expected, rtol=0, atol=1e-4)
        assert (pipe.scheduler.config.beta_schedule == "linear") == (name != "64x64_diffusion.pt")
    assert (
        adm.load(tmp_path / "64x64_diffusion.pt", betas="linear").scheduler.config.beta_schedule
        == "linear"
    )


class Trap:
    def __reduce__(self):
        return print, ("code from a file ran",)


@pytest.mark.parametrize(
    "content", [Trap(), {"input_blocks.0.0.weight": Trap()}, b"", b"<html>404</html>"]
)
def test_a_file_that_is_not_weights_alone_is_refused_and_runs_nothing(tmp_path, capfd, content):
    file = tmp_path / "bad.pt"
    file.write_bytes(content) if isinstance(content, bytes) else torch.save(content, file)
    with pytest.raises(ValueError, match="bad.pt is not a file of weights alone"):
        load(file)
    assert "code" not in capfd.readouterr().out


def test_a_file_of_one_tensor_or_no_file_is_refused(tmp_path):
    torch.save(torch.zeros(3), tmp_path / "tensor.pt")
    with pytest.raises(ValueError, match="holds a Tensor: give a file with a state_dict"):
        load(tmp_path / "tensor.pt")
    with pytest.raises(FileNotFoundError, match="there is no file .*nowhere.pt"):
        load("nowhere.pt")


# -- The download
# --------------------------------------------------------------------------------------------


@pytest.fixture
def hub(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    return tmp_path / "hub" / "checkpoints"


def test_adm_256_is_fetched_once_and_has_a_card(hub, small, monkeypatch):
    asked = []

    def download(url, dst, hash_prefix=None, progress=True):
        asked.append((url, hash_prefix, progress))
        torch.save(small.state, dst)

    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    pipe = load("adm-256", device="cpu")
    assert torch.equal(load("adm-256", device="cpu").unet.conv_in.weight, pipe.unet.conv_in.weight)
    url, sha256 = cards.CONVERTED["adm-256"].mirrors[0]
    assert asked == [(url, sha256, True)] and len(sha256) == 64
    assert [file.name for file in hub.iterdir()] == ["256x256_diffusion_uncond.pt"]
    assert card(pipe)["size"] == 256 and card(pipe)["licence"] == "MIT"
    assert settings(pipe, "blended") == dict(scale=1000.0, steps=100, skip=0.25, eta=1.0)


def test_half_a_download_is_never_taken_for_the_whole(hub, file):
    url, whole = file.as_uri(), hashlib.sha256(file.read_bytes()).hexdigest()
    with pytest.raises(OSError, match="could not be downloaded .invalid hash value"):
        adm.fetch(url, "0" * 64)
    assert not list(hub.iterdir())
    assert adm.fetch(url, whole) == hub / "mine.pt" and len(list(hub.iterdir())) == 1


def test_offline_one_sentence_says_what_to_do(hub):
    with pytest.raises(
        OSError, match="connect to the internet, or get that file elsewhere and give its path"
    ):
        adm.fetch((hub / "gone.pt").as_uri(), "")


def test_a_name_close_to_adm_256_is_suggested():
    with pytest.raises(ValueError, match="did you mean 'adm-256'"):
        bl.load("adm256")
