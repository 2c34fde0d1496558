"""The unconditional diffusion model of Blended Diffusion (2111.14818), small: scenes in pixels.

Words reach it only through CLIP's gradient, so it must find any object likely anywhere: it sees
scenes with none to four objects and closer looks, and objects, a tenth of a scene, count more.
Nothing tells it what to paint, so it learns slowly, and knows the simple world only: eight kinds,
no patterns. Read next: clip.py.
"""

import copy
import json
import math
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .. import files, world
from ..cards import RECOMMENDED
from ..errors import Refused
from ..networks.patches import Patches
from ..options import choice
from . import dense
from .diffusion import begin, levels, noised, scheduler
from .harness import WEIGHTS, Job, Pool, go_on_from
from .pictures import crop, enlarged, from_bytes, looks, middles, one_object, sheet, to_bytes

DENSE = 0.05  # weight of a second loss: the middle layers name the object at each place
EMPHASIS = 1.0  # how much more a pixel of an object counts in the loss than one of the ground


class Pixel(Job):
    name = "pixel"
    batch_size = 16
    optimizer, lr = "muon", 1e-3
    levels = (2, 6)

    def __init__(
        self,
        size=128,
        widths=(48, 80, 160),
        patch=4,
        prediction="sample",
        latent=None,
        pool=None,
        **kwargs,
    ):
        """size: side of the pictures. patch: side of the squares of pixels that are one cell to the
        network (patches.py). prediction: "sample" (the picture) or "v_prediction". latent: folder
        of the text-to-image model whose convolutions the inner levels begin with (default the
        shipped one).
        """
        super().__init__(**kwargs)
        from diffusers import UNet2DModel

        choice("prediction", prediction, ("sample", "v_prediction"))
        cell = patch * 2 ** (len(widths) - 1)  # pixels a side of an innermost cell
        if size // 2 % cell:
            raise Refused(
                f"size is {size}: half of it has to be a multiple of {cell}, patch times "
                "2^(widths - 1); take fewer widths, or another patch or size"
            )

        torch.manual_seed(self.seed)
        unet = UNet2DModel(
            sample_size=size // patch,
            in_channels=3 * patch**2,
            out_channels=3 * patch**2,
            block_out_channels=widths,
            layers_per_block=1,
            down_block_types=["DownBlock2D"] * (len(widths) - 1)
            + ["AttnDownBlock2D"],  # attention at 8x8 only
            up_block_types=["UpBlock2D"] * len(widths),
            attention_head_dim=widths[-1] // 4,
            norm_num_groups=8 if any(w % 16 for w in widths) else 16,  # 16: as in the latent model
        )
        begin(unet, Path(latent or WEIGHTS / "tinyworld") / "unet")
        self.size, self.cell = size, cell
        self.net = nn.ModuleDict({"unet": Patches(unet), "dense": dense.head(widths[-1])})
        # The cosine schedule (2102.09672) suits small pictures.
        self.scheduler = scheduler(beta_schedule="squaredcos_cap_v2", prediction_type=prediction)
        self.pool_size = self.pool_of(pool, 4096)

    def fill(self, step):
        renew = 64 if self.device.type == "cuda" else 4
        self.pool = Pool(self.render, self.pool_size, renew, step, chunk=max(16, renew))

    def render(self, start, n):
        """Pictures from start on and where their objects are; every fourth is a closer look."""
        scenes = world.simple(
            world.sample(n, seed=self.world_seed(), start=start, device=self.device)
        )
        window, closer = looks(scenes, one_object(scenes, start), start)
        view = world.render(scenes, size=self.size, window=window)
        return {"image": to_bytes(enlarged(view.image, closer, start))} | dense.shown(view)

    def identity(self):
        said = self.scheduler.config.prediction_type
        return super().identity() | {"size": self.size, "prediction": said}

    def batch(self, step):
        """Whole pictures in one step of four, else four times as many crops around objects."""
        g, crops = self.generator(step), step % 4
        B = self.batch_size * (4 if crops else 1)
        data = self.pool.draw(B, step, g)
        image, planes = (
            from_bytes(data["image"]),
            data["planes"].float() / 255,
        )  # (B,3,S,S), (B,SLOTS,S,S)
        if crops:
            place = middles(planes.sum(1, keepdim=True) > 0.5, g)
            image, planes = (crop(maps, *place, self.size // 2) for maps in (image, planes))
        kind, colour = dense.labels(
            planes, data["kind"], data["colour"], image.shape[-1] // self.cell
        )
        noise = torch.randn(image.shape, generator=g).to(self.device)
        t = levels(B, g)
        drawn = {"image": image, "noise": noise, "t": t.to(self.device)}
        return drawn | {
            "objects": planes.sum(1, keepdim=True).clamp(max=1),
            "kind": kind,
            "colour": colour,
        }

    def loss(self, batch):
        t = batch["t"]
        x, target, weight = noised(self.scheduler, batch["image"], batch["noise"], t)
        with dense.features(self.net["unet"].unet.mid_block) as seen:
            squares = (self.net["unet"](x, t).sample.float() - target).square()  # (B,3,h,w)
        said = dense.dense_loss(self.net["dense"](seen[0]), batch["kind"], batch["colour"])
        emphasis = 1 + EMPHASIS * batch["objects"]
        weight = weight * emphasis / emphasis.mean()
        return {
            "loss": (weight * squares).mean() + DENSE * said,
            "squares": squares.mean(),
            "dense": said,
        }

    @torch.no_grad()
    def sheet(self):
        """32 samples of 50 steps from always the same noise."""
        from ..guidance import denoiser
        from ..sampler import last, sample
        from ..schedule import Schedule

        schedule = Schedule.from_scheduler(self.scheduler)
        x = torch.randn(32, 3, self.size, self.size, generator=torch.Generator().manual_seed(0)).to(
            self.device
        )
        net = denoiser(self.net["unet"], schedule, self.scheduler.config.prediction_type)
        steps = sample(net, x, schedule, schedule.timesteps(50))
        return sheet(list(last(steps).split(8)))

    def export(self, folder: Path):
        """A DDIMPipeline folder: unet (without the wrapper, as diffusers knows it), scheduler."""
        from diffusers import DDIMPipeline

        unet = copy.deepcopy(self.net["unet"].unet).half()
        pipe: Any = DDIMPipeline(unet=unet, scheduler=self.scheduler)
        pipe.save_pretrained(folder)

        card = {
            "size": self.size,
            "world": "simple",
            "perceptual": "tinyworld",
            "settings": RECOMMENDED["tinyworld-pixel"],
        }
        files.write_json(folder / "blendlab.json", card)

    def load(self, folder: Path):
        go_on_from(Path(folder) / "unet", self.net["unet"].unet)

    @classmethod
    def sizes_of(cls, folder):
        unet = json.loads((Path(folder) / "unet" / "config.json").read_text())
        said = json.loads((Path(folder) / "scheduler" / "scheduler_config.json").read_text())[
            "prediction_type"
        ]
        patch = math.isqrt(unet["in_channels"] // 3)
        size = unet["sample_size"] * patch
        return {
            "size": size,
            "patch": patch,
            "widths": tuple(unet["block_out_channels"]),
            "prediction": said,
        }

    def config(self):
        return {"widths": self.net["unet"].config.block_out_channels, "pool": self.pool_size}
