"""Inpainting with words, in the manner of GLIDE (2112.10741) and of Stable Diffusion's inpainting
model: the exemplar harness, with a text in place of a picture.

The UNet sees nine channels in the order of that model: noisy latent, mask (1 = edit), latent of the
picture with its hole. All holes that it learns from hold an object, so it was never asked to remove
one. What ships is a StableDiffusionInpaintPipeline folder. Next: ../measuring/methods.py.
"""

import copy
import shutil
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from .. import files, world
from ..cards import RECOMMENDED
from ..errors import Refused
from .diffusion import scheduler
from .exemplar import Exemplar, hole, nine_channels
from .harness import WEIGHTS, Job, find_autoencoder, fingerprint, go_on_from
from .latent import BETAS, FACTOR, read_text_encoder
from .pictures import one_object, sheet
from .tokenizer import load_tokenizer, tokenize

SETTINGS = RECOMMENDED["tinyworld-inpaint"]["inpaint"]
SILENT = 0.1  # share of samples without words (2207.12598)


class Inpaint(Exemplar):
    name = "inpaint"
    patterns = False  # words seldom name them

    def __init__(self, whole=2, latent=None, pool=None, **kwargs):
        """whole: one step of so many has whole pictures, the others have crops around the hole.

        latent: folder of the text-to-image model to start from (default the shipped one), whose
        text encoder stays as it is.
        """
        Job.__init__(self, **kwargs)
        if whole < 1:
            raise Refused(f"whole is {whole}; take 1 (whole pictures in every step) or more")
        torch.manual_seed(self.seed)
        self.whole, self.latent = whole, Path(latent or WEIGHTS / "tinyworld")
        self.vae = find_autoencoder(self.latent / "vae", self.device)
        unet = nine_channels(self.latent / "unet")
        self.size, self.crop = unet.config.sample_size * FACTOR, unet.config.sample_size // 2
        self.tokenizer = load_tokenizer(world.words())
        encoder = read_text_encoder(self.latent).to(self.device)
        self.text_encoder = encoder.eval().requires_grad_(False)
        self.net = nn.ModuleDict({"unet": unet})
        self.scheduler = scheduler(**BETAS)
        self.pool_size = self.pool_of(pool, 8192, 65536)

    def described(self, scenes, slot, image, box):
        """What is told of the object in each hole: its name, as token ids."""
        ids = tokenize(self.tokenizer, world.describe(scenes, slot))
        return {"ids": ids.to(torch.int16).to(self.device)}

    def conditions(self, data, rand, g):
        said = rand(len(data["ids"]), 1) >= SILENT
        nothing = tokenize(self.tokenizer, [""]).to(self.device)
        return {"ids": torch.where(said, data["ids"].long(), nothing)}

    def joined(self, z, beside):
        holed, keep = beside.split([4, 1], dim=1)
        return torch.cat([z, 1 - keep, holed], dim=1)

    @torch.no_grad()
    def tokens(self, batch):
        return self.text_encoder(batch["ids"])[0]

    @torch.no_grad()
    def sheet(self):
        """Held-out pictures with their holes, and what words of other scenes make of them."""
        scenes = world.sample(24, seed=world.HELD_OUT, device=self.device)
        view, slot = world.render(scenes, size=self.size), one_object(scenes, 0)
        box = view.boxes[torch.arange(24), slot]
        rows = (box[:, 2] > box[:, 0]).nonzero()[:16, 0]
        image, box, n = view.image[rows], box[rows], len(rows)
        still, straight = torch.zeros(n, 9).to(box), torch.full((n, 4, 18), 0.5).to(box)
        mask = hole(box, still, straight, self.size)
        words = world.describe(scenes[rows], slot[rows])
        draws = [torch.Generator().manual_seed(i) for i in range(n)]
        how = dict(num_inference_steps=SETTINGS["steps"], guidance_scale=SETTINGS["w"])
        pipe = self.pipeline()
        pipe.set_progress_bar_config(disable=True)
        made = pipe(
            words[1:] + words[:1], image / 2 + 0.5, mask, generator=draws, output_type="pt", **how
        ).images
        columns = [image * (1 - mask), F.interpolate(2 * made - 1, image.shape[-2:]).to(image)]
        halves = (slice(0, 8), slice(8, 16))
        return sheet([row for half in halves for row in (column[half] for column in columns)])

    def pipeline(self):
        """The StableDiffusionInpaintPipeline of the present weights."""
        from diffusers import StableDiffusionInpaintPipeline

        return StableDiffusionInpaintPipeline(
            vae=self.vae,
            unet=self.net["unet"],
            text_encoder=self.text_encoder,
            tokenizer=self.tokenizer,
            scheduler=self.scheduler,
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )

    def export(self, folder: Path):
        for name in ("vae", "text_encoder", "tokenizer"):  # frozen: the files of the model before
            shutil.copytree(self.latent / name, folder / name)
        pipe = self.pipeline()
        copy.deepcopy(self.net["unet"]).half().save_pretrained(folder / "unet")
        self.scheduler.save_pretrained(folder / "scheduler")
        pipe.save_config(folder)
        if not (folder / "blendlab.json").exists():  # it may hold measured settings
            card = {"size": self.size, "settings": {"inpaint": SETTINGS}}
            files.write_json(folder / "blendlab.json", card)

    def load(self, folder: Path):
        go_on_from(Path(folder) / "unet", self.net["unet"])

    def identity(self):
        return Job.identity(self) | {
            "scaling_factor": self.vae.config.scaling_factor,
            "frozen": fingerprint(self.text_encoder),
        }

    def config(self):
        return {"whole": self.whole, "pool": self.pool_size}
