"""OpenAI's guided-diffusion networks (ADM: 2105.05233, section 3) as diffusers networks.

Blended Diffusion (2111.14818) edits with the 256x256 one without classes. How a network is built is
read from its checkpoint: widths, levels, where it attends, classes, learned variance. Facts:
openai/guided-diffusion (MIT), unet.py and README.md. Next: ../papers/blended.py, which edits with
what comes out.
"""

from itertools import count
from pathlib import Path

import torch

from ..errors import Refused
from .weights import FLOATS, check_weights, read_pickle

# Their names of a part's layers -> diffusers' names.
BLOCK = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}
ATTENTION = {"norm": "group_norm", "qkv": "to_q to_k to_v", "proj_out": "to_out.0"}
HALVE, DOUBLE = {"op": "conv"}, {"conv": "conv"}  # with resblock_updown they are blocks
WHOLE = {
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "label_emb": "class_embedding",
    "input_blocks.0.0": "conv_in",
    "out.0": "conv_norm_out",
    "out.2": "conv_out",
}

# What a checkpoint does not tell, where it is not the default (guided-diffusion, README.md,
# "Sampling").
OFFICIAL = {
    "64x64_diffusion.pt": {"legacy": False, "betas": "squaredcos_cap_v2"},
    "128x128_diffusion.pt": {"heads": 4},
}


def load(path, device="cpu", dtype=torch.float32, betas=None, **options):
    """Open a guided-diffusion checkpoint as a DDPMPipeline, frozen and in inference mode.

    path: a local .pt; official ones are known by their names. options: of `convert`, for all
          others.
    betas: of `pipeline`. ValueError: not a checkpoint of this family; FileNotFoundError: no file
           there.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path.absolute()}; check the path")
    state = read_pickle(path)
    told = {"betas": "linear"} | OFFICIAL.get(path.name, {}) | options
    usual = told.pop("betas")
    return pipeline(convert(state, dtype=dtype, **told).to(device), betas or usual)


def fetch(url, sha256):
    """Return the local copy of a published file; the first time, download it to torch.hub's folder.

    A bar shows progress. The file appears under its name when it is complete and its hash is right.
    """
    file = Path(torch.hub.get_dir(), "checkpoints", url.rsplit("/", 1)[-1])
    if not file.is_file():
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(file), hash_prefix=sha256)
        except Exception as error:  # no connection, a full disk, half a file: each has its own
            raise OSError(
                f"{url} could not be downloaded ({error}); connect to the internet, or get that "
                "file elsewhere and give its path as the name"
            ) from error
    return file


def pipeline(unet, betas="linear"):
    """A DDPMPipeline around a converted network, with its noise: 1000 levels, 0 to 999.

    betas: "linear" from 0.0001 to 0.02, or "squaredcos_cap_v2", the cosine of 2102.09672.
    The network sees level numbers of training, however few steps are made. (The official
    rescale_timesteps stretches them to 0..1000, so with 1000 levels it changes nothing.) Fewer
    steps are spread from 0 to 999, ends included, as in the official respace.py: "linspace".
    """
    from diffusers import DDPMPipeline, DDPMScheduler

    learned = unet.config.out_channels == 2 * unet.config.in_channels
    scheduler = DDPMScheduler(
        num_train_timesteps=1000,
        beta_start=1e-4,
        beta_end=0.02,
        beta_schedule=betas,
        clip_sample=False,
        variance_type="learned_range" if learned else "fixed_large",
        timestep_spacing="linspace",
    )
    pipe = DDPMPipeline(unet, scheduler)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def convert(state, size=None, head_channels=64, heads=None, legacy=True, dtype=torch.float32):
    """Return a frozen UNet2DModel that computes what the network of an ADM state dict does.

    size: side of its pictures, pixels; left out, such that the deepest level is 8x8, as in the
          official networks.
    head_channels, or heads: the width of an attention head, or the number of heads in every layer.
    legacy: qkv holds q, k, v of head 0, then of head 1, ...; False: all q, all k, all v
            (use_new_attention_order).
    Classes are given as `unet(x, t, class_labels=labels)`, to a denoiser as cond={"class_labels":
    labels}. ValueError names the keys that are unknown or missing.
    """
    blocks, attends, plain, names = _layout(state)
    unet = _empty(state, blocks, attends, plain, size, head_channels, heads)

    # {their key: our keys}; what this network does not have (classes, a skip that widens) has no
    # place in it.
    params = unet.state_dict()
    table = {
        f"{theirs}.{kind}": [f"{name}.{kind}" for name in ours]
        for theirs, ours in names.items()
        for kind in ("weight", "bias")
        if f"{ours[0]}.{kind}" in params
    }
    _refuse("unknown", state.keys() - table.keys())
    _refuse("missing", table.keys() - state.keys())
    _refuse("not of floats", {key for key in table if state[key].dtype not in FLOATS})

    weights = {}
    for key, ours in table.items():
        value = state[key].to(dtype)
        # attention layers are 1D convolutions there
        value = value.squeeze(-1) if value.ndim == 3 else value
        parts = [value]
        if len(ours) == 3:  # (3 * width, ...) -> q, k and v, (width, ...) each, head after head
            n = heads or len(value) // (3 * head_channels)
            form, axis = ((n, 3, -1), 1) if legacy else ((3, n, -1), 0)
            parts = value.unflatten(0, form).unbind(axis)
            parts = [part.flatten(0, 1).clone() for part in parts]
        weights |= zip(ours, parts, strict=True)
    check_weights(unet, weights, "this state dict")
    unet.load_state_dict(weights, assign=True)
    return unet.eval().requires_grad_(False)


def _layout(state):
    """What names alone tell: parts, levels that attend, plain resizing, {their name: ours}.

    Parts are recognised by words that several keys share, so one missing key does not look like
    another layout.
    """
    words = {".".join(key.split(".")[:4]) for key in state}  # "output_blocks.5.2.in_layers"
    total = next(k for k in count() if f"output_blocks.{k}.0.in_layers" not in words)
    if not total:
        raise Refused(
            "there is no output_blocks.0.0 in this state dict; give that of a guided-diffusion "
            "UNet (a classifier of theirs has no way up)"
        )
    # A level upwards ends by doubling the picture, the last one excepted. It has as many parts as a
    # level downwards, where the last is what halves the picture.
    ups = sum(
        f"output_blocks.{k}.{j}.{word}" in words
        for k in range(total)
        for j in (1, 2)
        for word in ("in_layers", "conv")
    )
    levels, blocks = ups + 1, total // (ups + 1)
    attends = [f"input_blocks.{1 + level * blocks}.1.qkv" in words for level in range(levels)]
    plain = f"input_blocks.{blocks}.0.op" in words
    names = {theirs: [ours] for theirs, ours in WHOLE.items()}

    def part(theirs, ours, table):
        for key, several in table.items():
            names[f"{theirs}.{key}"] = [f"{ours}.{name}" for name in several.split()]

    def block(theirs, ours, j, attends):
        part(f"{theirs}.0", f"{ours}.resnets.{j}", BLOCK)
        if attends:
            part(f"{theirs}.1", f"{ours}.attentions.{j}", ATTENTION)

    for i in range(levels):  # input_blocks.0 is conv_in
        for j in range(blocks - 1):
            block(f"input_blocks.{1 + i * blocks + j}", f"down_blocks.{i}", j, attends[i])
        if i < levels - 1:
            halve = HALVE if plain else BLOCK
            part(f"input_blocks.{(i + 1) * blocks}.0", f"down_blocks.{i}.downsamplers.0", halve)
    block("middle_block", "mid_block", 0, True)
    part("middle_block.2", "mid_block.resnets.1", BLOCK)
    for i, deep in enumerate(reversed(attends)):
        for k in range(i * blocks, (i + 1) * blocks):
            block(f"output_blocks.{k}", f"up_blocks.{i}", k - i * blocks, deep)
        if i < levels - 1:
            double = DOUBLE if plain else BLOCK
            part(f"output_blocks.{k}.{1 + deep}", f"up_blocks.{i}.upsamplers.0", double)
    return blocks, attends, plain, names


def _empty(state, blocks, attends, plain, size, head_channels, heads):
    """The network that the shapes in a state dict ask for, without weights (on "meta")."""
    from diffusers import UNet2DModel
    from diffusers.models.attention_processor import Attention
    from diffusers.models.embeddings import TimestepEmbedding, Timesteps

    def shape(key):
        _refuse("missing", {key} - state.keys())
        return state[key].shape

    firsts = range(1, 1 + blocks * len(attends), blocks)  # the first part of each level
    widths = [shape(f"input_blocks.{k}.0.out_layers.3.weight")[0] for k in firsts]
    attending = {width for width, yes in zip(widths, attends, strict=True) if yes} | {widths[-1]}
    odd = [width for width in attending if width % (heads or head_channels)]
    if odd:
        raise Refused(
            f"{f'{heads} heads' if heads else f'heads of {head_channels} channels'} do not fit "
            f"into attention {odd[0]} channels wide; give head_channels= or heads= as it was "
            "trained with"
        )
    head_widths = {width // heads for width in attending} if heads else {head_channels}
    one_width = head_widths.pop() if len(head_widths) == 1 else None  # None: one head
    hidden, spread = shape("time_embed.0.weight")  # spread: sines and cosines of the level number
    both = shape("input_blocks.1.0.emb_layers.1.weight")[0] == 2 * widths[0]
    resize, kinds = "resnet", ("ResnetDownsampleBlock2D", "ResnetUpsampleBlock2D")
    if plain:
        resize, kinds = "conv", ("DownBlock2D", "UpBlock2D")
    down = ["AttnDownBlock2D" if yes else kinds[0] for yes in attends]
    up = ["AttnUpBlock2D" if yes else kinds[1] for yes in reversed(attends)]

    with torch.device("meta"):
        unet = UNet2DModel(
            sample_size=size or 8 * 2 ** (len(widths) - 1),
            in_channels=shape("input_blocks.0.0.weight")[1],
            out_channels=shape("out.2.weight")[0],
            block_out_channels=widths,
            layers_per_block=blocks - 1,
            down_block_types=down,
            up_block_types=up,
            downsample_type=resize,
            upsample_type=resize,
            time_embedding_dim=hidden,
            flip_sin_to_cos=True,
            freq_shift=0,  # cosines first
            resnet_time_scale_shift="scale_shift" if both else "default",
            norm_num_groups=32,
            attn_norm_num_groups=32,
            norm_eps=1e-5,
            attention_head_dim=one_width,
            num_class_embeds=shape("label_emb.weight")[0] if "label_emb.weight" in state else None,
        )
        own_heads = one_width is None and heads > 1
        if own_heads:
            for layer in unet.modules():
                if isinstance(layer, Attention):
                    layer.heads, layer.scale = heads, (layer.to_q.out_features // heads) ** -0.5
        if spread != widths[0]:  # 512: the first level is half as wide
            unet.time_proj = Timesteps(spread, True, 0)
            unet.time_embedding = TimestepEmbedding(spread, hidden)
    if own_heads or spread != widths[0]:
        unet.save_pretrained = _no_folder
    return unet


def _no_folder(*args, **kwargs):
    raise Refused(
        "a folder cannot hold this network, because diffusers has no setting for its heads or its "
        "first width; keep the .pt and load that"
    )


def _refuse(what, keys):
    if keys:
        first = sorted(keys)[:8]
        more = f" and {len(keys) - 8} more" if len(keys) > 8 else ""
        fix = "give an unchanged checkpoint of a guided-diffusion UNet"
        raise Refused(f"{what} in this state dict: {', '.join(first)}{more}; {fix}")
