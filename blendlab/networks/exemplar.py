"""The networks of Paint by Example (2211.13227): what the exemplar becomes, and all as a pipeline.

The exemplar goes through CLIP and a mapper and arrives as one token (section 3.2). Next:
../papers/exemplar.py.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from .. import cards, files
from ..errors import Refused
from . import folders, opening
from .clip import load_clip
from .weights import described, read, take_weights

MEAN = (0.48145466, 0.4578275, 0.40821073)  # OpenAI's CLIP
STD = (0.26862954, 0.26130258, 0.27577711)


class TokenHead(nn.Module):
    """What is trained beside the UNet: CLIP's (B,L,width) to tokens (B,L,d); a null vector."""

    def __init__(self, width, depth, d):
        from diffusers.models.attention import BasicTransformerBlock

        super().__init__()
        # One head: over one token its attention is a linear map.
        how: dict = dict(activation_fn="gelu", attention_bias=True)
        blocks = [BasicTransformerBlock(width, 1, width, **how) for _ in range(depth)]
        self.mapper = nn.ModuleDict({"blocks": nn.ModuleList(blocks)})
        self.final_layer_norm, self.proj_out = nn.LayerNorm(width), nn.Linear(width, d)
        self.uncond_vector = nn.Parameter(torch.randn(1, 1, d))

    def forward(self, x):
        for block in self.mapper["blocks"]:
            x = block(x)
        return self.proj_out(self.final_layer_norm(x))


class ExemplarEncoder(TokenHead):
    """CLIP's image tower, then the head; parameters have the published checkpoint's names.

    config: a transformers CLIPVisionConfig; config.tokens is "class" (one token, the paper) or
            "all" (the naive way). The mapper has a block for each five layers of the tower, so
            that ViT-L has the paper's 5.
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
    """An open_clip VisionTransformer as transformers' CLIPVisionModel, frozen: same class token.

    The projection to the space that CLIP shares with texts is left out: references go on
    unprojected.
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
            three = getattr(block.attn, f"in_proj_{kind}").chunk(3)
            for which, part in zip("qkv", three, strict=True):
                weights[f"{here}self_attn.{which}_proj.{kind}"] = part
        parts[f"{here}self_attn.out_proj"] = block.attn.out_proj
        parts[f"{here}layer_norm1"], parts[f"{here}layer_norm2"] = block.ln_1, block.ln_2
        parts[f"{here}mlp.fc1"], parts[f"{here}mlp.fc2"] = block.mlp.c_fc, block.mlp.c_proj
    for name, part in parts.items():
        weights |= {f"{name}.weight": part.weight, f"{name}.bias": part.bias}
    tower = CLIPVisionModel(config)
    take_weights(tower, weights)
    return tower.float().eval().requires_grad_(False)


@dataclass
class ExemplarPipeline:
    """The parts of Paint by Example; diffusers' own pipeline is deprecated and no longer loads."""

    vae: nn.Module
    # 9 channels: noisy latent (4), latent of the picture with its hole (4), mask (1, 1 = keep)
    unet: nn.Module
    encoder: ExemplarEncoder
    scheduler: object
    mean: tuple = MEAN  # what CLIP's pictures in [0,1] are normalised by
    std: tuple = STD
    name_or_path: object = None
    card: dict | None = None  # what it says about itself (cards.py)

    @property
    def size(self):
        """Side of the pictures that the encoder takes, in pixels."""
        return self.encoder.config.image_size

    @property
    def vae_scale_factor(self):
        return 2 ** (len(self.vae.config.block_out_channels) - 1)

    @property
    def _execution_device(self):  # by this name methods ask every pipeline where it runs
        return self.vae.device

    def to(self, device=None, dtype=None):
        for part in (self.vae, self.unet, self.encoder):
            # diffusers' own `to` warns about every cast
            nn.Module.to(part, device=device, dtype=dtype).eval().requires_grad_(False)
        return self

    @classmethod
    @opening.undisturbed()
    def from_folder(cls, folder, vae=None, clip=None):
        """Open a folder of the published layout on the CPU in float32; never downloads.

        vae, clip: folders of an autoencoder and of an open_clip model, for a folder that leaves
                   these out.
        """
        folder = Path(folder)
        own = ["unet", "scheduler", "image_encoder", "feature_extractor"]
        lent = vae and not (folder / "vae").is_dir()
        folders.check(folder, own if lent else [*own, "vae"])
        mean, std = _normalisation(folder / "feature_extractor" / "preprocessor_config.json")
        pipe = cls(
            vae=opening.network(Path(vae if lent else folder / "vae"), "AutoencoderKL", safe=False),
            unet=opening.network(folder / "unet", "UNet2DConditionModel", safe=False),
            encoder=_encoder(folder / "image_encoder", clip),
            scheduler=opening.part(folder / "scheduler", folders.scheduler(folder / "scheduler")),
            mean=mean,
            std=std,
            name_or_path=folder,
            card=cards.read(folder),
        )
        return pipe.to(dtype=torch.float32)

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
            name = f"model.vision_model.{bare}" if key.startswith("model.") else key
            names[name] = value.contiguous()
        save_file(names, encoder / "model.safetensors", metadata={"format": "pt"})

        side = {"height": self.size, "width": self.size}
        shown = {"image_mean": self.mean, "image_std": self.std, "resample": 3}
        shown |= {"size": side, "crop_size": side}
        (folder / "feature_extractor").mkdir(exist_ok=True)
        files.write_json(folder / "feature_extractor" / "preprocessor_config.json", shown)
        files.write_json(folder / "model_index.json", {"_class_name": folders.EXEMPLAR})
        if self.card:
            files.write_json(folder / "blendlab.json", self.card)


def _encoder(folder, clip):
    """The encoder in a published folder; clip: a folder that lends it CLIP's tower."""
    from transformers import CLIPVisionConfig

    stored, _ = folders.weight_files(folder, "model", half=False, safe=False)
    weights = {key: value for file in stored for key, value in read(file).items()}
    if "uncond_vector" not in weights:
        raise Refused(f"{folder} lacks uncond_vector, the null vector: take the exemplar model")
    said = folders.read_json(folder / "config.json")
    with described(folder / "config.json", "encoder"):
        config = CLIPVisionConfig.from_dict(said)
        encoder = ExemplarEncoder(config, weights["uncond_vector"].shape[-1])
    if clip and not any(key.startswith("model.") for key in weights):
        weights |= vision_tower(load_clip(clip).model.visual).state_dict(prefix="model.")
    take_weights(encoder, weights, folder)
    return encoder


def _normalisation(file):
    """The mean and the standard deviation of CLIP's pictures, from a preprocessor_config.json."""
    said = folders.read_json(file)
    numbers = [said.get(name) for name in ("image_mean", "image_std")]
    for name, three in zip(("image_mean", "image_std"), numbers, strict=True):
        if not isinstance(three, list) or [type(x) in (int, float) for x in three] != [True] * 3:
            raise Refused(f"{file}: {name} is {three!r}; it has to be three numbers")
    return tuple(numbers[0]), tuple(numbers[1])
