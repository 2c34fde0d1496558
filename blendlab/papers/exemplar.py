"""Paint by Example (2211.13227): a picture in place of words; what it shows appears inside the mask.

The UNet sees nine channels: noisy latent, latent of the picture with its hole, mask. The exemplar goes through
CLIP and a mapper and arrives as one token (section 3.2). Next: training/exemplar.py, which trains one.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from . import images, masks
from .blend import blend
from .clip import load_clip
from .edit import Edit, memory_advice, one_or_n, take
from .guidance import cfg, denoiser
from .latents import decode, encode
from .noise import Noise
from .options import Options, settle
from .sampler import sample
from .schedule import Schedule

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # OpenAI's CLIP
LARGEST = 2**26  # pixels of a reference: a gigabyte while it is made small


@dataclass(frozen=True)
class Painting(Options):
    """How to paint. The defaults are diffusers' port with the posterior's mode, so that runs repeat."""

    # The mask's channel at latent size: diffusers' pipeline_paint_by_example.py:318-320, or ddpm.py:688.
    mask_channel: Literal["nearest", "bilinear"] = "nearest"
    # What is put back outside the mask: nothing (as published), the source's latent after each move, or its pixels.
    paste: Literal["none", "latent", "pixels"] = "none"
    # Which cells paste="latent" leaves to the edit, see masks.to_latent; "any": all that the hole touches.
    mask_rule: Literal["any", "centre", "corner", "area"] = "any"
    # Latents of the picture: the posterior's mode, or a sample of it (both published codes).
    posterior: Literal["mode", "sample"] = "mode"
    eta: float | None = None  # 0 is DDIM; None: what the model recommends, also below
    w: float | None = None
    steps: int | None = None
    skip: float | None = None


# Weight 5 and 50 steps: the authors' test.sh, and diffusers' pipeline_paint_by_example.py:405-406.
FALLBACK = {"w": 5.0, "steps": 50, "skip": 0.0, "eta": 0.0}
PRESETS = {
    "official": Painting(mask_channel="bilinear", posterior="sample", **FALLBACK),
    "diffusers": Painting(posterior="sample", **FALLBACK),
}


# What the exemplar becomes


class Block(nn.Module):
    """A transformer block, normalised first, with one head. Over a single token its attention is a linear map."""

    def __init__(self, width):
        super().__init__()
        linear = lambda: nn.Linear(width, width)  # noqa: E731
        self.norm1, self.norm3 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn1 = nn.ModuleDict({"to_q": linear(), "to_k": linear(), "to_v": linear()})
        self.attn1["to_out"] = nn.ModuleList([linear()])
        wide = nn.ModuleDict({"proj": nn.Linear(width, 4 * width)})
        self.ff = nn.ModuleDict({"net": nn.ModuleList([wide, nn.Identity(), nn.Linear(4 * width, width)])})

    def forward(self, x):  # (B,L,width)
        h = self.norm1(x)
        q, k, v = (self.attn1[name](h) for name in ("to_q", "to_k", "to_v"))
        x = x + self.attn1["to_out"][0](F.scaled_dot_product_attention(q, k, v))
        wide, _, narrow = self.ff["net"]
        return x + narrow(F.gelu(wide["proj"](self.norm3(x))))


class TokenHead(nn.Module):
    """What is trained beside the UNet: from what CLIP saw (B,L,width) to tokens (B,L,d), and the null vector."""

    def __init__(self, width, depth, d):
        super().__init__()
        self.mapper = nn.ModuleDict({"blocks": nn.ModuleList([Block(width) for _ in range(depth)])})
        self.final_layer_norm, self.proj_out = nn.LayerNorm(width), nn.Linear(width, d)
        self.uncond_vector = nn.Parameter(torch.randn(1, 1, d))

    def forward(self, x):
        for block in self.mapper["blocks"]:
            x = block(x)
        return self.proj_out(self.final_layer_norm(x))


class ExemplarEncoder(TokenHead):
    """CLIP's image tower, then the head; parameters have the published checkpoint's names.

    config: a transformers CLIPVisionConfig; config.tokens is "class" (one token, the paper) or "all" (the naive
    way). The mapper has a block for each five layers of the tower, so that ViT-L has the paper's 5.
    """

    def __init__(self, config, d=None):
        from transformers import CLIPVisionModel

        d = d or config.projection_dim
        super().__init__(config.hidden_size, (config.num_hidden_layers + 1) // 5, d)
        config.tokens, config.projection_dim = getattr(config, "tokens", "class"), d
        self.config, self.model = config, CLIPVisionModel(config)

    def forward(self, pixels):  # (B,3,S,S), normalised
        dtype = self.uncond_vector.dtype
        return super().forward(features(self.model, pixels.to(dtype), self.config.tokens))


def features(tower, pixels: Tensor, tokens: str) -> Tensor:
    """What CLIP's image tower saw: its class token (B,1,width), or all its tokens (B,L,width)."""
    seen = tower(pixel_values=pixels)
    if tokens == "class":
        return seen.pooler_output[:, None]
    return getattr(tower, "vision_model", tower).post_layernorm(seen.last_hidden_state)


def vision_tower(visual):
    """An open_clip VisionTransformer as transformers' CLIPVisionModel, frozen: the same class token.

    The projection to the space that CLIP shares with texts is left out: references go on unprojected.
    """
    from transformers import CLIPVisionConfig, CLIPVisionModel

    blocks = visual.transformer.resblocks
    side, patch = visual.image_size, visual.patch_size
    config = CLIPVisionConfig(
        hidden_size=visual.conv1.out_channels,
        intermediate_size=blocks[0].mlp.c_fc.out_features,
        num_hidden_layers=len(blocks),
        num_attention_heads=blocks[0].attn.num_heads,
        image_size=side if isinstance(side, int) else side[0],
        patch_size=patch if isinstance(patch, int) else patch[0],
        hidden_act="quick_gelu" if "Quick" in type(blocks[0].mlp.gelu).__name__ else "gelu",
    )
    weights = {
        "embeddings.class_embedding": visual.class_embedding,
        "embeddings.patch_embedding.weight": visual.conv1.weight,
        "embeddings.position_embedding.weight": visual.positional_embedding,
    }
    parts = {"pre_layrnorm": visual.ln_pre, "post_layernorm": visual.ln_post}
    for i, block in enumerate(blocks):
        here = f"encoder.layers.{i}."
        for kind in ("weight", "bias"):  # open_clip keeps the three projections in one matrix
            for which, part in zip("qkv", getattr(block.attn, f"in_proj_{kind}").chunk(3), strict=True):
                weights[f"{here}self_attn.{which}_proj.{kind}"] = part
        parts[f"{here}self_attn.out_proj"] = block.attn.out_proj
        parts[f"{here}layer_norm1"], parts[f"{here}layer_norm2"] = block.ln_1, block.ln_2
        parts[f"{here}mlp.fc1"], parts[f"{here}mlp.fc2"] = block.mlp.c_fc, block.mlp.c_proj
    for name, part in parts.items():
        weights |= {f"{name}.weight": part.weight, f"{name}.bias": part.bias}
    tower = CLIPVisionModel(config)
    take_weights(tower, weights)
    return tower.float().eval().requires_grad_(False)


def take_weights(module, weights: dict) -> None:
    """Load weights whose names may hold "vision_model.", which some versions of transformers write."""
    plain = lambda key: key.replace("vision_model.", "")  # noqa: E731
    mine = {plain(key): key for key in module.state_dict()}
    weights = {plain(key): value for key, value in weights.items() if not key.endswith("position_ids")}
    module.load_state_dict({mine.get(key, key): value for key, value in weights.items()})


@dataclass
class ExemplarPipeline:
    """The parts of Paint by Example; diffusers' own pipeline for it is deprecated and no longer loads."""

    vae: nn.Module
    unet: nn.Module  # 9 channels: noisy latent (4), latent of the picture with its hole (4), mask (1, 1 = keep)
    encoder: ExemplarEncoder
    scheduler: object
    mean: tuple = MEAN  # what CLIP's pictures in [0,1] are normalised by
    std: tuple = STD
    name_or_path: object = None

    @property
    def size(self):
        """Side of the pictures that the encoder takes, in pixels."""
        return self.encoder.config.image_size

    @property
    def vae_scale_factor(self):
        return 2 ** (len(self.vae.config.block_out_channels) - 1)

    def to(self, device=None, dtype=None):
        for part in (self.vae, self.unet, self.encoder):
            nn.Module.to(part, device=device, dtype=dtype)  # diffusers' own `to` warns about every cast
            part.eval().requires_grad_(False)
        return self

    @classmethod
    def from_folder(cls, folder, vae=None, clip=None):
        """Open a folder of the published layout, part by part, on the CPU in float32; never downloads.

        vae, clip: folders of an autoencoder and of an open_clip model, for a folder that leaves these out.
        """
        import diffusers
        from safetensors.torch import load_file
        from transformers import CLIPVisionConfig

        folder = Path(folder)
        read = lambda name: json.loads(Path(folder, name).read_text(encoding="utf-8"))  # noqa: E731

        file = folder / "image_encoder" / "model.safetensors"
        if file.is_file():
            weights = load_file(file)
        else:
            weights = torch.load(file.with_name("pytorch_model.bin"), map_location="cpu", weights_only=True)
        config = CLIPVisionConfig.from_pretrained(folder / "image_encoder")
        encoder = ExemplarEncoder(config, weights["uncond_vector"].shape[-1])
        if clip and not any(key.startswith("model.") for key in weights):
            weights |= vision_tower(load_clip(clip).model.visual).state_dict(prefix="model.")
        take_weights(encoder, weights)

        kinds = {"vae": "AutoencoderKL", "unet": "UNet2DConditionModel"}
        kinds["scheduler"] = read("scheduler/scheduler_config.json")["_class_name"]
        places = {name: folder / name for name in kinds}
        if vae and not places["vae"].is_dir():
            places["vae"] = vae
        parts = {
            name: getattr(diffusers, kind).from_pretrained(places[name], local_files_only=True)
            for name, kind in kinds.items()
        }
        shown = read("feature_extractor/preprocessor_config.json")
        numbers = {"mean": tuple(shown["image_mean"]), "std": tuple(shown["image_std"])}
        return cls(encoder=encoder, **parts, **numbers, name_or_path=folder).to(dtype=torch.float32)

    def save_pretrained(self, folder):
        """Write the folder that from_folder opens: the published layout, as safetensors."""
        from safetensors.torch import save_file

        folder = Path(folder)
        for name in ("vae", "unet", "scheduler"):
            getattr(self, name).save_pretrained(folder / name)
        encoder = folder / "image_encoder"
        self.encoder.config.save_pretrained(encoder)
        names = {}  # with the prefix, which every version of transformers reads
        for key, value in self.encoder.state_dict().items():
            bare = key.removeprefix("model.").removeprefix("vision_model.")
            names[f"model.vision_model.{bare}" if key.startswith("model.") else key] = value.contiguous()
        save_file(names, encoder / "model.safetensors", metadata={"format": "pt"})
        side = {"height": self.size, "width": self.size}
        shown = {"image_mean": self.mean, "image_std": self.std, "size": side, "crop_size": side, "resample": 3}
        (folder / "feature_extractor").mkdir(exist_ok=True)
        (folder / "feature_extractor" / "preprocessor_config.json").write_text(json.dumps(shown, indent=2) + "\n")
        (folder / "model_index.json").write_text('{"_class_name": "PaintByExamplePipeline"}\n')


# The edit


@torch.no_grad()
def exemplar(
    pipe, image, mask, reference, *, region=None, w=None, steps=None, skip=None, paste=None, preset=None,
    n=1, seed=0, batch=None, **options,
) -> Edit:  # fmt: skip
    """Paint what the reference shows inside the mask, in the light and place of the picture; return an `Edit`.

    pipe:      an ExemplarPipeline, as bl.load("tinyworld-exemplar") or of the published checkpoint gives
    image:     PIL, a path or (1 or n,3,H,W) in [-1,1]; sides are multiples of the autoencoder's factor
    mask:      PIL, a path or (1 or n,1,H,W) in {0,1}; 1 (white) = edit, whatever the checkpoint takes inside
    reference: PIL, a path or (1 or n,3,h,w) in [-1,1], of any size, or a list of n; CLIP sees it squashed to its
               square. Where PIL or a file is see-through it goes on grey, which is also what fills the hole
    region:    the part of the reference to look at, a box (x0, y0, x1, y1) in fractions of it
    w, steps, skip: guidance weight, number of levels, share left out at the noisy end (more than 0: the edit
               starts from the noised source). Left out, they and eta come from the preset, else from the model,
               else from the published code (5, 50, 0, 0)
    paste:     "none": outside the mask the picture is what the network and the autoencoder make of it, as
               published; "latent": its latent is the source's exactly; "pixels": its pixels are, bit for bit
    preset:    "official", "diffusers", or a Painting; options: any field of Painting
    n, seed, batch: how many, from which seed, how many at once. Sample i is the same whatever n and batch are

    Bad input raises ValueError (TypeError, OSError) with the fix before any network runs.
    """
    asked = {"w": w, "steps": steps, "skip": skip, "paste": paste} | options
    how = settle(Painting, "exemplar", pipe, PRESETS, FALLBACK, preset, asked)
    image, mask, shown = _admit(pipe, image, mask, reference, region, n)
    schedule = Schedule.from_scheduler(pipe.scheduler)
    timesteps = schedule.timesteps(how.steps, how.skip)
    size = [side // pipe.vae_scale_factor for side in image.shape[-2:]]  # h, w
    keep = F.interpolate(1 - mask, size, mode=how.mask_channel)  # inside, 1 = keep
    if (keep.flatten(1).amin(1) == 1).any():
        raise ValueError(f"the mask vanishes at latent size {size[1]}x{size[0]}: paint it thicker")
    mask_small = masks.to_latent(mask, size, how.mask_rule, allow_empty=how.paste != "latent")
    at_once = batch or n

    with memory_advice(at_once):
        # What stands beside the noisy latent: the picture with a grey hole, then the mask.
        holed = image * (1 - mask)
        shape = (pipe.vae.config.latent_channels, *size)
        hidden = encode(pipe.vae, holed, _posterior(how, seed, holed, "holed posterior", shape))
        beside = torch.cat([hidden, keep.expand(len(hidden), -1, -1, -1)], dim=1)  # (1 or n,5,h,w)
        source = encode(pipe.vae, image, _posterior(how, seed, image, "posterior", shape))  # (1 or n,4,h,w)

        # What the exemplar says, and what the null vector says in its place.
        tokens = pipe.encoder(_normalised(pipe, shown)).float()  # (1 or n,L,d)
        nothing = pipe.encoder.uncond_vector.float().expand(1, *tokens.shape[1:])
        text, null = ({"encoder_hidden_states": said, "beside": beside} for said in (tokens, nothing))
        net = denoiser(nine_channels(pipe.unet), schedule, pipe.scheduler.config.get("prediction_type", "epsilon"))

        latents, tensors = [], []
        for start in range(0, n, at_once):
            rows = range(start, min(start + at_once, n))
            denoise = cfg(net, take(text, rows), take(null, rows), how.w)
            z = _run(denoise, take(source, rows), take(mask_small, rows), schedule, timesteps, how, seed, rows)
            latents.append(z)
            tensors.append(decode(pipe.vae, z))

    latents, tensor = torch.cat(latents), torch.cat(tensors)  # (n,C,h,w), (n,3,H,W)
    if how.paste == "pixels":
        tensor = blend(mask, edit=tensor, keep=image)
    used = dict(region=region, n=n, seed=seed, order=list(range(n)))
    return Edit(tensor, latents, None, used | asdict(how))


def nine_channels(unet):
    """The network on a noisy latent (B,4,h,w) with what stands beside it (B,5,h,w), in the order of its training."""

    def net(z, t, encoder_hidden_states, beside):
        return unet(torch.cat([z, beside], dim=1), t, encoder_hidden_states)

    net.dtype = unet.dtype
    return net


def _run(denoise, source, mask_small, schedule, timesteps, how, seed, rows):
    """The final latents of the samples in `rows`, each with its own streams of noise."""
    shape, device = source.shape[1:], source.device
    initial = Noise(seed, len(rows), "initial", device, rows.start)(shape)  # (B,C,h,w)
    fresh = Noise(seed, len(rows), "step", device, rows.start)
    z = schedule.add_noise(source, timesteps[0], initial) if how.skip else initial
    for step in sample(denoise, z, schedule, timesteps, how.eta, lambda: fresh(shape)):
        if how.paste == "latent":
            level = source if step.t_next < 0 else schedule.add_noise(source, step.t_next, initial)
            step.x = blend(mask_small, edit=step.x, keep=level)
    return step.x


def _posterior(how, seed, picture, purpose, shape):
    """The noise that draws from the posterior, or None for its mode."""
    return Noise(seed, len(picture), purpose, picture.device)(shape) if how.posterior == "sample" else None


def _normalised(pipe, pictures):
    mean, std = (torch.tensor(v, device=pictures.device).view(3, 1, 1) for v in (pipe.mean, pipe.std))
    return ((pictures + 1) / 2 - mean) / std


# Input, and what is wrong with it


def _admit(pipe, image, mask, reference, region, n):
    """Picture, mask, and references at CLIP's size (1 or n,3,S,S), or a sentence that says what is wrong."""
    if n < 1:
        raise ValueError(f"n is {n}; it counts the edits to make, so take 1 or more")
    if not hasattr(pipe, "encoder"):
        kind = type(pipe).__name__
        raise ValueError(f"a {kind} has no encoder for exemplars: pass bl.load('tinyworld-exemplar')")
    channels, latent = pipe.unet.config.in_channels, pipe.vae.config.latent_channels
    if channels != 2 * latent + 1:
        raise ValueError(
            f"this UNet takes {channels} channels, not {2 * latent + 1} (noisy latent {latent}, masked latent "
            f"{latent}, mask 1): pass bl.load('tinyworld-exemplar')"
        )
    image = images.image(image, size_multiple=pipe.vae_scale_factor).to(pipe.unet.device)
    mask = images.mask(mask, like=image, allow_full=True)
    several = reference if isinstance(reference, (list, tuple)) else [reference]
    if not len(several):
        raise ValueError("reference is an empty list: give a picture of a thing, or n of them")
    shown = torch.cat([see(one, pipe.size, region).to(image.device) for one in several])  # (1 or n,3,S,S)
    one_or_n(n, {"image": len(image), "mask": len(mask), "reference": len(shown)})
    return image, mask, shown


def see(reference, size: int, region=None) -> Tensor:
    """A reference as the encoder gets it, (B,3,size,size) in [-1,1]: its region, on grey, squashed (bicubic)."""
    cover = 1.0
    if not isinstance(reference, Tensor):
        reference = images._open(reference, "reference")
        width, height = reference.size
        if not width * height:
            raise ValueError(f"reference is {width}x{height}, which holds no pixel: give a picture of a thing")
        if width * height > LARGEST:
            fix = "reference.thumbnail((1024, 1024))"
            raise ValueError(f"reference is {width}x{height}, and {size}x{size} of it are seen: shrink it, {fix}")
        if reference.has_transparency_data:
            rgba = reference.convert("RGBA").split()
            if rgba[3].getextrema()[1] == 0:
                raise ValueError("reference is transparent everywhere, so it shows nothing: check its alpha channel")
            reference, cover = Image.merge("RGB", rgba[:3]), images.mask(rgba[3], soft=True, allow_full=True)
    picture = images.image(reference, name="reference") * cover  # (B,3,H,W); see-through is grey, 0
    if region is not None:
        inside = masks.from_box(region, picture.shape[-2:])[0, 0].nonzero()  # (pixels,2)
        (y0, x0), (y1, x1) = inside[0].tolist(), (inside[-1] + 1).tolist()
        picture = picture[..., y0:y1, x0:x1]
    if ((picture.amax((2, 3)) - picture.amin((2, 3))).amax(1) < 0.02).any():  # two grey levels
        raise ValueError("reference is of one colour, so it shows nothing to paint: give a picture of a thing")
    if picture.shape[-2:] != (size, size):
        picture = F.interpolate(picture, (size, size), mode="bicubic", antialias=True).clamp(-1, 1)
    return picture
