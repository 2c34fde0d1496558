"""The autoencoder of latent diffusion (2112.10752, section 3.1): f=4, four channels.

It is fully convolutional: trained on 64x64 pictures, closer looks and crops around objects, used at
any size. Read next: latent.py, the diffusion model that lives in its latents.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import world
from .harness import Job, Pool, go_on_from, save_half
from .pictures import closer_looks, crop, from_bytes, middles, sheet, to_bytes


class Autoencoder(Job):
    name = "autoencoder"
    batch_size = 16
    lr = 1e-3
    levels = (3, 3)

    def __init__(self, widths=(32, 64, 64), pool=None, kl=4e-6, **kwargs):
        super().__init__(**kwargs)
        from diffusers import AutoencoderKL

        torch.manual_seed(self.seed)
        self.kl, self.pool_size = kl, self.pool_of(pool, 3072)
        self.net = AutoencoderKL(
            block_out_channels=widths,
            down_block_types=["DownEncoderBlock2D"] * len(widths),
            up_block_types=["UpDecoderBlock2D"] * len(widths),
            layers_per_block=1,  # the decoder has one more per block, as in diffusers
            latent_channels=4,
            norm_num_groups=8,
            mid_block_add_attention=False,  # convolutions only: any size
            sample_size=64,
            scaling_factor=1.0,  # measured at export
        )

    def fill(self, step):
        renew = 64 if self.device.type == "cuda" else 4
        self.pool = Pool(self.render, self.pool_size, renew, step, chunk=max(16, renew))

    def render(self, start, n):
        """Pictures start .. start+n-1, (n,3,64,64) uint8, and where objects are, (n,1,64,64) bool.

        Every fourth picture is a closer look.
        """
        scenes = world.sample(n, seed=self.world_seed(), start=start, device=self.device)
        window = closer_looks(start, n, smallest=0.3).to(self.device)
        view = world.render(scenes, size=64, window=window)
        return {"image": to_bytes(view.image), "objects": view.masks.sum(1, keepdim=True) > 0.5}

    def batch(self, step):
        """Whole pictures, and in every other step crops around objects: as many pixels."""
        g, crops = self.generator(step), step % 2
        data = self.pool.draw(self.batch_size * (4 if crops else 1), step, g)
        image = from_bytes(data["image"])  # (B,3,64,64)
        if crops:
            image = crop(image, *middles(data["objects"], g), 32)  # (B,3,32,32)
        noise = torch.randn(
            len(image), 4, *(side // 4 for side in image.shape[-2:]), generator=g
        ).to(self.device)
        return {"image": image, "noise": noise}

    def loss(self, batch):
        posterior = self.net.encode(batch["image"]).latent_dist
        z = posterior.mean + posterior.std * batch["noise"]  # (B,4,16,16)
        decoded, image = self.net.decode(z).sample.float(), batch["image"]
        # L1 keeps flat colours flat, the square keeps small stars, the edges keep outlines sharp.
        l1, mse, edges = (
            F.l1_loss(decoded, image),
            F.mse_loss(decoded, image),
            edge_loss(decoded, image),
        )
        kl = posterior.kl().float().mean()  # summed over the latent's dimensions, as in LDM
        loss = l1 + 2 * mse + edges + self.kl * kl
        return {"loss": loss, "l1": l1, "psnr": -10 * torch.log10(mse / 4), "kl": kl}

    @torch.no_grad()
    def sheet(self):
        """Held-out scenes above, their reconstructions below; four more at twice the size."""
        scenes = world.sample(20, seed=world.HELD_OUT, device=self.device)
        small = world.render(scenes[:16], size=64).image
        large = world.render(scenes[16:], size=128).image
        rows = [
            small[:8],
            self.there_and_back(small[:8]),
            small[8:],
            self.there_and_back(small[8:]),
        ]
        return sheet([*rows, large, self.there_and_back(large)])

    def there_and_back(self, image: Tensor) -> Tensor:
        """Encode and decode (B,3,H,W), without noise."""
        return (
            self.net.decode(self.net.encode(image).latent_dist.mode()).sample.float().clamp(-1, 1)
        )

    @torch.no_grad()
    def export(self, folder: Path):
        """An AutoencoderKL folder; scaling_factor makes the latents of renders unit-scale."""
        scenes = world.sample(128, seed=self.world_seed(), device=self.device)
        images = world.render(scenes, size=64).image.split(64)
        z = torch.cat([self.net.encode(image).latent_dist.mode().float() for image in images])
        self.net.register_to_config(scaling_factor=round(1 / z.std().item(), 4))
        save_half(self.net, folder)

    def load(self, folder: Path):
        """From an AutoencoderKL folder, or from the pipeline folder that holds one as vae/."""
        folder = Path(folder) / "vae" if (Path(folder) / "vae").is_dir() else Path(folder)
        go_on_from(folder, self.net)

    def config(self):
        return {"widths": self.net.config.block_out_channels, "kl": self.kl, "pool": self.pool_size}


def edge_loss(a: Tensor, b: Tensor) -> Tensor:
    """Mean distance of the horizontal and vertical differences, at full and at half size."""
    total = a.new_zeros(())
    for _ in range(2):
        total = (
            total
            + F.l1_loss(a.diff(dim=-1), b.diff(dim=-1))
            + F.l1_loss(a.diff(dim=-2), b.diff(dim=-2))
        )
        a, b = F.avg_pool2d(a, 2), F.avg_pool2d(b, 2)
    return total / 2
