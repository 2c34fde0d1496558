"""Train the judge on truth masks, seen through the autoencoder, blur, noise and changed light.

It must be right on what the methods make: reconstructions, soft estimates, blends. Read next:
../networks/judge.py.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import world
from ..networks.judge import Judge, per_object
from ..networks.weights import take_weights
from .harness import Job, Pool, find_autoencoder
from .pictures import from_bytes, sheet, to_bytes


class JudgeJob(Job):
    name = "judge"
    batch_size = 32
    lr = 1.5e-3
    levels = (2, 7)

    def __init__(self, widths=(24, 48, 96, 96), pool=None, autoencoder=None, **kwargs):
        super().__init__(**kwargs)
        torch.manual_seed(self.seed)
        self.net = Judge(world.KINDS, world.COLOURS, widths)
        self.vae = find_autoencoder(autoencoder, self.device)
        self.pool_size = self.pool_of(pool, 4096)

    def fill(self, step):
        renew = 64 if self.device.type == "cuda" else 2
        self.pool = Pool(self.render, self.pool_size, renew, step, chunk=max(16, renew))

    def render(self, start, n):
        """Scenes start .. start+n-1, their reconstructions, and the labels of each pixel."""
        scenes = world.sample(n, seed=self.world_seed(), start=start, device=self.device)
        view = world.render(scenes, size=128)
        half = world.View(F.avg_pool2d(view.image, 2), F.avg_pool2d(view.masks, 2), scenes)
        # What the judge will see: pictures of 128x128 behind the autoencoder, and now and then
        # smaller ones.
        decoded = F.avg_pool2d(reconstruct(self.vae, view.image), 2)
        few = slice(0, n // 4)
        decoded[few] = reconstruct(self.vae, half.image[few])
        return {
            "image": to_bytes(half.image),
            "decoded": to_bytes(decoded),
            "kinds": half.kinds().to(torch.uint8),  # (n,64,64)
            "colours": half.colours().to(torch.uint8),
        }

    def batch(self, step):
        g = self.generator(step)
        data = self.pool.draw(self.batch_size, step, g)
        clean, decoded = from_bytes(data["image"]), from_bytes(data["decoded"])  # (B,3,64,64)
        draw = lambda *shape: torch.rand(self.batch_size, *shape, generator=g).to(self.device)  # noqa: E731
        # Half are reconstructions, a quarter lie between; some are blurred, noisy, or in another
        # light.
        share = (draw(1, 1, 1) * 4 - 1).clamp(0, 1)
        image = torch.lerp(clean, decoded, share)
        image = torch.lerp(image, blur(image), (draw(1, 1, 1) * 3 - 2).clamp(0))
        light, noise = (
            1 + 0.2 * (draw(3, 1, 1) - 0.5),
            torch.randn(image.shape, generator=g).to(self.device),
        )
        image = (image + 1) * light - 1 + 0.1 * (draw(1, 1, 1) * 2 - 1).clamp(0) * noise
        return {
            "image": image.clamp(-1, 1),
            "kinds": data["kinds"].long(),
            "colours": data["colours"].long(),
        }

    def loss(self, batch):
        verdict = self.net(batch["image"])
        kind = F.cross_entropy(verdict.kind.float(), batch["kinds"])
        colour = F.cross_entropy(verdict.colour.float(), batch["colours"])
        there = batch["kinds"] > 0
        right = ((verdict.kinds() == batch["kinds"]) & there).sum() / there.sum().clamp(min=1)
        return {"loss": kind + colour, "kind": kind, "colour": colour, "right": right.float()}

    @torch.no_grad()
    def sheet(self):
        """Held-out reconstructions, below them truth and verdict as shades; prints the accuracy."""
        scenes = world.sample(256, seed=world.HELD_OUT, device=self.device)
        view = world.render(scenes, size=128)
        masks = F.avg_pool2d(view.masks, 2)
        for what, images in (
            ("renders", view.image),
            ("reconstructions", reconstruct(self.vae, view.image)),
        ):
            total = per_object(self.net, images, masks, scenes.kind, scenes.colour)
            n = max(1, total["objects"])
            print(
                f"judge on {what}: class {total['kind'] / n:.3f}, colour "
                f"{total['colour'] / n:.3f}, n {n}",
                flush=True,
            )
        view = world.View(F.avg_pool2d(images, 2), masks, scenes)
        verdict, few = self.net(images[:12]), slice(0, 12)
        maps = [view.kinds()[few], verdict.kinds(), view.colours()[few], verdict.colours()]
        shades = [(m[:, None].expand(-1, 3, -1, -1) / len(world.KINDS) * 2 - 1) for m in maps]
        return sheet([view.image[few], *shades])

    def export(self, folder: Path):
        self.net.save(folder)

    def load(self, folder: Path):
        take_weights(self.net, Judge.load(folder).state_dict(), folder)

    def identity(self):  # the autoencoder, known by its scaling factor, must not change either
        return super().identity() | {"scaling_factor": self.vae.config.scaling_factor}

    def config(self):
        return {"widths": self.net.widths, "pool": self.pool_size}


@torch.no_grad()
def reconstruct(vae, images: Tensor) -> Tensor:
    """Through the autoencoder and back, (B,3,H,W) to the same."""
    return torch.cat(
        [vae.decode(vae.encode(x).latent_dist.mode()).sample for x in images.split(16)]
    ).clamp(-1, 1)


def blur(image: Tensor) -> Tensor:
    """Two passes of a 3x3 binomial filter: about the softness of an early clean estimate."""
    kernel = torch.tensor([1.0, 2.0, 1.0], device=image.device) / 4
    kernel = (kernel[:, None] * kernel).expand(3, 1, 3, 3)
    for _ in range(2):
        image = F.conv2d(F.pad(image, (1, 1, 1, 1), mode="replicate"), kernel, groups=3)
    return image
