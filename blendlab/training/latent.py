"""Latent diffusion (2112.10752): text encoder and UNet, trained together in latents.

The network predicts v (arXiv 2202.00512, appendix D); little noise counts less in the loss, as in
min-SNR-5 (arXiv 2303.09556), but much noise keeps its weight: there the caption decides what stands
where. What ships is a StableDiffusionPipeline folder that diffusers opens without blendlab. Read
next: tokenizer.py.
"""

import copy
import json
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import files, world
from ..cards import RECOMMENDED
from ..errors import Refused
from ..networks import opening
from ..networks.weights import take_weights
from ..options import choice
from . import dense
from .diffusion import begin, levels, noised, scheduler
from .harness import Job, Pool, find_autoencoder, go_on_from
from .pictures import crop, enlarged, looks, one_object, sheet
from .tokenizer import LENGTH, load_tokenizer, save_tokenizer, tokenize

FACTOR = 4  # pixels a side of a cell: what the autoencoder divides by
EMPHASIS = 4.0  # how much more a cell full of object counts in the loss than an empty one
DENSE = 0.05  # weight of a second loss: the middle layers name the object at each place
# Stable Diffusion's noise schedule.
BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
VARIANTS = 4  # captions kept for each scene


class Latent(Job):
    name = "latent"
    batch_size = 32
    # Its first 120 steps lower the loss as far as 173 with AdamW and 8e-4, on the same batches.
    lr = 2e-3
    levels = (2, 5)
    groups = 16
    ema = 0.997

    def __init__(
        self, size=128, widths=(32, 80, 160), text_width=128, text_layers=2, inner=None, pool=None,
        autoencoder=None, optimizer="muon", **kwargs,
    ):  # fmt: skip
        """size: side of the pictures. widths: of the levels, from the latents inwards. optimizer:
        "muon", or "adamw", which wants lr=8e-4 beside it: lr stays 2e-3.

        inner: folder of a text-to-image model whose text encoder and inner levels to begin with.
        """
        super().__init__(**kwargs)
        choice("optimizer", optimizer, ("muon", "adamw"))
        if size % (FACTOR * 2 ** len(widths)):  # the crops are half as wide
            least = FACTOR * 2 ** len(widths)
            raise Refused(
                f"size is {size}; with {len(widths)} widths take a multiple of {least}, or fewer"
            )
        if text_width % 4:
            raise Refused(f"text_width is {text_width}; take a multiple of 4")
        self.optimizer = optimizer
        torch.manual_seed(self.seed)
        self.words = world.words()
        self.tokenizer = load_tokenizer(self.words)
        self.net = nn.ModuleDict({
            "text_encoder": text_encoder(self.tokenizer, text_width, text_layers),
            "unet": unet(widths, text_width, size // FACTOR),
            "dense": dense.head(widths[-1]),
        })  # fmt: skip
        self.vae = find_autoencoder(autoencoder, self.device)
        self.smaller = 2 ** (len(widths) - 1)  # how much smaller the innermost maps are
        self.scheduler, self.size, self.crop = scheduler(**BETAS), size, size // FACTOR // 2
        self.pool_size = self.pool_of(pool, 4096, 65536)
        if inner:
            begin(self.net["unet"], Path(inner) / "unet")
            weights = read_text_encoder(inner).state_dict()
            take_weights(self.net["text_encoder"], weights, Path(inner) / "text_encoder")

    def fill(self, step):
        renew = 256 if self.device.type == "cuda" else 4
        self.pool = Pool(
            self.render, self.pool_size, renew, step, chunk=max(32, renew), progress="encoding"
        )

    @torch.no_grad()
    def render(self, start, n):
        """Scenes start .. start+n-1 as scaled latents, with VARIANTS captions each as ids.

        The last caption names one object alone; `middle` is the cell (y, x) where that one stands.
        """
        scenes = world.sample(n, seed=self.world_seed(), start=start, device=self.device)
        slot = one_object(scenes, start)
        window, closer = looks(scenes, slot, start)
        view = world.render(scenes, size=self.size, window=window)
        posteriors = [
            self.vae.encode(x).latent_dist for x in enlarged(view.image, closer, start).split(16)
        ]
        scale = self.vae.config.scaling_factor
        mean = scale * torch.cat([p.mean for p in posteriors])  # (n,4,h,w)
        std = scale * torch.cat([p.std for p in posteriors])
        shown = dense.shown(view)
        shown["planes"] = F.interpolate(
            view.masks, mean.shape[-2:], mode="area"
        ).half()  # (n,SLOTS,h,w)
        texts = captions(scenes, slot, start)
        ids = torch.stack(
            [tokenize(self.tokenizer, c) for c in texts], dim=1
        )  # (n,VARIANTS,LENGTH)
        ids = torch.where(
            closer.cpu()[:, None, None], ids[:, -1:], ids
        )  # others may be out of sight
        x0, y0, x1, y1 = view.boxes[torch.arange(n), slot].unbind(1)
        middle = torch.stack([y0 + y1, x0 + x1], dim=1) / 2 * mean.shape[-1]  # (n,2)
        return {
            "mean": mean.half(),
            "std": std.half(),
            "ids": ids.to(torch.int16).to(self.device),
            "middle": middle.to(torch.int16),
        } | shown

    def batch(self, step):
        """Whole scenes, and in every other step three times as many crops around a named object.

        A step costs the same, but the network sees eight times the objects: what edits are about.
        """
        g, crops = self.generator(step), step % 2
        B = self.batch_size * (3 if crops else 1)
        data = self.pool.draw(B, step, g)
        draw = lambda high, *shape: torch.randint(high, shape, generator=g).to(self.device)  # noqa: E731
        variant = draw(VARIANTS, B)
        mean, std, planes = (
            data[key].float() for key in ("mean", "std", "planes")
        )  # (B,4,h,w) each
        if crops:
            reach = self.crop // 8
            y, x = (data["middle"].long() + draw(2 * reach + 1, B, 2) - reach).unbind(1)
            mean, std, planes = (crop(maps, y, x, self.crop) for maps in (mean, std, planes))
            variant = torch.full_like(variant, VARIANTS - 1)
        posterior, noise = (torch.randn(mean.shape, generator=g).to(self.device) for _ in range(2))
        t = levels(B, g)
        ids = data["ids"][torch.arange(B, device=self.device), variant].long()
        # No caption in one of ten (arXiv 2207.12598).
        ids = torch.where(draw(10, B, 1) == 0, tokenize(self.tokenizer, [""]).to(self.device), ids)
        kind, colour = dense.labels(
            planes, data["kind"], data["colour"], mean.shape[-1] // self.smaller
        )
        drawn = {"z0": mean + std * posterior, "noise": noise, "t": t.to(self.device), "ids": ids}
        return drawn | {"objects": planes.sum(1, keepdim=True), "kind": kind, "colour": colour}

    def loss(self, batch):
        t = batch["t"]
        z, target, weight = noised(self.scheduler, batch["z0"], batch["noise"], t)
        text = self.net["text_encoder"](batch["ids"])[0]  # (B,LENGTH,text_width)
        with dense.features(self.net["unet"].mid_block) as seen:
            v = self.net["unet"](z, t, text).sample.float()
        said = dense.dense_loss(self.net["dense"](seen[0]), batch["kind"], batch["colour"])
        squares = (v - target).square()  # (B,4,h,w)
        # Objects cover a tenth of the picture and are all that edits are about: they count more.
        emphasis = 1 + EMPHASIS * batch["objects"]
        weight = weight * emphasis / emphasis.mean()
        error = squares.mean((1, 2, 3))  # (B,)
        loss = (weight * squares).mean() + DENSE * said
        late = t > 800
        noisy = (error * late).sum() / late.sum().clamp(min=1)  # a small batch may have none
        return {"loss": loss, "v": error.mean(), "noisy": noisy, "dense": said}

    @torch.no_grad()
    def sheet(self):
        """Samples of 16 single objects, then of 16 held-out captions; always the same."""
        pipe = self.pipeline()
        pipe.set_progress_bar_config(disable=True)
        prompts = [
            f"a {world.COLOURS[i % len(world.COLOURS)]} {world.KINDS[i * 5 % len(world.KINDS)]}"
            for i in range(16)
        ]
        prompts += world.captions(world.sample(16, seed=world.HELD_OUT))
        g = torch.Generator().manual_seed(0)
        z = torch.randn(len(prompts), 4, *2 * [self.size // FACTOR], generator=g).to(self.device)
        images = pipe(
            prompts, latents=z, num_inference_steps=25, guidance_scale=3.0, output_type="pt"
        ).images
        return sheet(list((images * 2 - 1).split(8)))

    def pipeline(self, unet=None, vae=None):
        """The StableDiffusionPipeline of the present weights."""
        from diffusers import StableDiffusionPipeline

        return StableDiffusionPipeline(
            vae=vae or self.vae,
            unet=unet or self.net["unet"],
            text_encoder=self.net["text_encoder"],
            tokenizer=self.tokenizer,
            scheduler=self.scheduler,
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )

    def export(self, folder: Path):
        from safetensors.torch import load_file, save_file

        # The text encoder stays in float32: transformers 5 keeps the stored precision, diffusers
        # does not.
        half = {
            "unet": copy.deepcopy(self.net["unet"]).half(),
            "vae": copy.deepcopy(self.vae).half(),
        }
        self.pipeline(**half).save_pretrained(folder)
        # transformers 5 leaves out a prefix, without which version 4 takes random weights; both
        # read it.
        weights = load_file(folder / "text_encoder" / "model.safetensors")
        weights = {
            f"text_model.{key.removeprefix('text_model.')}": value for key, value in weights.items()
        }
        save_file(weights, folder / "text_encoder" / "model.safetensors", metadata={"format": "pt"})
        # One set of tokenizer files, which every version reads too.
        for file in (folder / "tokenizer").iterdir():
            file.unlink()
        save_tokenizer(folder / "tokenizer", self.words)
        if not (folder / "blendlab.json").exists():  # it may hold measured settings
            card = {"size": self.size, "settings": RECOMMENDED["tinyworld"], "words": self.words}
            files.write_json(folder / "blendlab.json", card)

    def load(self, folder: Path):
        for part in ("unet", "text_encoder"):
            go_on_from(Path(folder) / part, self.net[part])

    @classmethod
    def sizes_of(cls, folder):
        config = json.loads((Path(folder) / "unet" / "config.json").read_text())
        return {
            "size": config["sample_size"] * FACTOR,
            "widths": tuple(config["block_out_channels"]),
        }

    def identity(self):  # the autoencoder, known by its scaling factor, must not change either
        own = {"scaling_factor": self.vae.config.scaling_factor, "size": self.size}
        return super().identity() | own

    def config(self):
        sizes = {
            "size": self.size,
            "widths": self.net["unet"].config.block_out_channels,
            "pool": self.pool_size,
            "optimizer": self.optimizer,
        }
        return sizes | {"scaling_factor": self.vae.config.scaling_factor, "words": len(self.words)}


def captions(scenes, slot: Tensor, seed: int) -> list[list[str]]:
    """VARIANTS captions of each scene: two plain, one at times rich, one of `slot` alone.

    The last kind is what an edit prompts with: "a red mushroom", whatever else is in the picture.
    """
    plain = [
        world.captions(scenes, seed=seed + i, rich=0.3 * (i == 2)) for i in range(VARIANTS - 1)
    ]
    alone = world.describe(scenes, slot)
    return [
        *plain,
        [other if one == "nothing" else one for one, other in zip(alone, plain[0], strict=True)],
    ]


def read_text_encoder(folder):
    return opening.network(Path(folder) / "text_encoder", "CLIPTextModel", safe=False)


def unet(widths, text_width, cells):
    """A UNet for latents of cells x cells; it attends on the innermost level only."""
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=cells,
        in_channels=4,
        out_channels=4,
        block_out_channels=widths,
        layers_per_block=1,
        down_block_types=["DownBlock2D"] * (len(widths) - 1) + ["CrossAttnDownBlock2D"],
        up_block_types=["CrossAttnUpBlock2D"] + ["UpBlock2D"] * (len(widths) - 1),
        cross_attention_dim=text_width,
        attention_head_dim=4,  # the number of heads, in spite of its name
        # the caption as a whole joins the time embedding, as in SDXL: colours come sooner
        addition_embed_type="text",
        addition_embed_type_num_heads=4,
        time_embedding_dim=4
        * widths[-2],  # a narrow outer level is no reason to know less of time and words
        norm_num_groups=16,
    )


def text_encoder(tokenizer, width, layers):
    from transformers import CLIPTextConfig, CLIPTextModel

    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=4 * width,
        projection_dim=width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        max_position_embeddings=LENGTH,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return CLIPTextModel(config)
