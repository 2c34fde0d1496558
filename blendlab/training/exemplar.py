"""Paint by Example (2211.13227), section 3: a picture's own objects teach how to insert others.

Cut an object's box out of a picture, and ask for the picture back, given the hole and what CLIP saw
in the cut-out piece. The piece goes through one token and through augmentations, or the network
would learn to copy and paste. Numbers of the official code are cited by file and line
(open-images.py, ddpm.py). Read next: ../papers/exemplar.py.
"""

import copy
import math
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import files, world
from ..cards import LENDERS, RECOMMENDED
from ..errors import Refused
from ..networks import opening
from ..networks.exemplar import (
    ExemplarEncoder,
    ExemplarPipeline,
    TokenHead,
    features,
    take_weights,
    vision_tower,
)
from ..papers.exemplar import exemplar
from .diffusion import levels, noised, scheduler
from .harness import WEIGHTS, Job, Pool, find_autoencoder, fingerprint
from .latent import BETAS, FACTOR
from .pictures import crop, enlarged, from_bytes, looks, one_object, patterned, sheet, to_bytes

# The ladder of the paper's ablation (table 3): what CLIP passes on, whether the reference is
# augmented, and the share of samples that get the null vector (ddpm.py:914).
RUNGS = {
    "tokens": ("all", False, 0.0),
    "augmented": ("all", True, 0.0),
    "full": ("class", True, 0.2),
}
SETTINGS = RECOMMENDED["tinyworld-exemplar"]["exemplar"]
EMPHASIS = 1.0  # how much more a cell in the hole counts in the loss than one that is given


class Exemplar(Job):
    name = "exemplar"
    patterns = True  # a reference shows them, so that they may be more frequent than in the world
    batch_size = 32
    optimizer, lr = "muon", 1e-3

    def __init__(
        self, rung="full", null_per="sample", whole=2, clip=None, latent=None, pool=None, **kwargs
    ):
        """rung: a name in RUNGS. null_per: "sample", or "batch" as the official code
        (ddpm.py:925-926).

        whole: one step of so many has whole pictures, the others have crops around the hole.
        clip: folder of the CLIP whose image tower looks at references (default runs/clip/export,
        else the shipped one). latent: folder of the text-to-image model to start from (default
        the shipped one).
        """
        super().__init__(**kwargs)
        for name, value, choices in (
            ("rung", rung, RUNGS),
            ("null_per", null_per, ("sample", "batch")),
        ):
            if value not in choices:
                raise Refused(f"{name} is {value!r}; choose {', '.join(choices)}")
        torch.manual_seed(self.seed)
        if whole < 1:
            raise Refused(f"whole is {whole}; take 1 (whole pictures in every step) or more")
        self.whole = whole
        self.rung, self.null_per, (tokens, self.augment, self.null_share) = (
            rung,
            null_per,
            RUNGS[rung],
        )
        latent = Path(latent or WEIGHTS / "tinyworld")
        self.vae, unet = (
            find_autoencoder(latent / "vae", self.device),
            nine_channels(latent / "unet"),
        )
        self.size = unet.config.sample_size * FACTOR
        self.crop = (
            unet.config.sample_size // 2
        )  # side of a crop in cells: the hole and a little around it
        self.clip = find_clip(clip)
        self.tower = vision_tower(self.clip.model.visual).to(self.device)
        self.tower.config.tokens = tokens
        width, d = self.tower.config.hidden_size, unet.config.cross_attention_dim
        head = TokenHead(width, (self.tower.config.num_hidden_layers + 1) // 5, d)
        self.net = nn.ModuleDict({"unet": unet, "head": head})
        self.scheduler = scheduler(**BETAS)
        self.pool_size = self.pool_of(pool, 8192, 65536)

    def fill(self, step):
        renew = 256 if self.device.type == "cuda" else 4
        self.pool = Pool(
            self.render, self.pool_size, renew, step, chunk=max(32, renew), progress="encoding"
        )

    @torch.no_grad()
    def render(self, start, n):
        """n pictures from scene start on: latents with and without the hole, the mask, the piece.

        A scene whose object is hidden lends its place to another one of them.
        """
        scenes = world.sample(n, seed=self.world_seed(), start=start, device=self.device)
        scenes = patterned(scenes, start) if self.patterns else scenes
        slot = one_object(scenes, start)
        window, closer = looks(scenes, slot, start)
        view = world.render(scenes, size=self.size, window=window)
        box = view.boxes[torch.arange(n), slot]  # (n,4)
        seen = (box[:, 2] > box[:, 0]).nonzero()[:, 0]
        rows = seen[torch.arange(n, device=self.device) % len(seen)]
        image, box = enlarged(view.image, closer, start)[rows], box[rows]

        g = torch.Generator().manual_seed(start)
        u, shake = (
            torch.rand(shape, generator=g).to(self.device) for shape in ((n, 9), (n, 4, 18))
        )
        mask = hole(box, u, shake, self.size)  # (n,1,S,S), 1 = edit
        whole, holed = (self.encode(x) for x in (image, image * (1 - mask)))
        keep = F.interpolate(1 - mask, whole.shape[-2:])  # nearest, as exemplar() does it
        middle = (box[:, [1, 0]] + box[:, [3, 2]]) / 2 * whole.shape[-1]  # (n,2): y, x
        return {
            "maps": torch.cat([whole, holed[:, :4], keep], dim=1).half(),  # (n,4+4+4+1,h,w)
            "middle": middle.to(torch.int16),
        } | self.described(scenes[rows], slot[rows], image, box)

    def described(self, scenes, slot, image, box):
        """What is told of the object in each hole: here the piece that was cut out."""
        return {"reference": to_bytes(cut(image, box, self.clip.size))}

    def encode(self, image):
        """Mean and deviation of the scaled latents, (n,4+4,h,w)."""
        posteriors = [self.vae.encode(part).latent_dist for part in image.split(16)]
        return self.vae.config.scaling_factor * torch.cat(
            [torch.cat([p.mean, p.std], dim=1) for p in posteriors]
        )

    def batch(self, step):
        """Whole pictures in one step of `whole`, else three times as many crops of holes."""
        g, crops = self.generator(step), step % self.whole
        B = self.batch_size * (3 if crops else 1)
        data = self.pool.draw(B, step, g)
        rand = lambda *shape: torch.rand(*shape, generator=g).to(self.device)  # noqa: E731
        maps = data["maps"].float()
        if crops:
            reach = self.crop // 8
            y, x = (data["middle"].long() + ((2 * reach + 1) * rand(B, 2)).long() - reach).unbind(1)
            maps = crop(maps, y, x, self.crop)
        mean, std, holed, keep = maps.split([4, 4, 4, 1], dim=1)
        posterior, noise = (torch.randn(mean.shape, generator=g).to(self.device) for _ in range(2))
        t = levels(B, g)
        beside = torch.cat([holed, keep], dim=1)  # (B,5,h,w)
        drawn = {"z0": mean + std * posterior, "noise": noise, "t": t.to(self.device)}
        return drawn | {"beside": beside} | self.conditions(data, rand, g)

    def conditions(self, data, rand, g):
        """The references of a batch, and which of them are told."""
        B, reference = len(data["reference"]), from_bytes(data["reference"])
        u, bend = rand(B, 6), torch.randn(B, 2, 4, 4, generator=g).to(self.device)
        if self.augment:
            reference = augmented(reference, u, bend)
        said = rand(B if self.null_per == "sample" else 1).expand(B) >= self.null_share
        return {"reference": reference, "said": said}

    def loss(self, batch):
        t = batch["t"]
        z, target, weight = noised(self.scheduler, batch["z0"], batch["noise"], t)

        z = self.joined(z, batch["beside"])  # (B,9,h,w)
        v = self.net["unet"](z, t, self.tokens(batch)).sample.float()
        squares = (v - target).square()  # (B,4,h,w)
        inside = 1 - batch["beside"][:, -1:]
        emphasis = 1 + EMPHASIS * inside
        weight = weight * emphasis / emphasis.mean()
        return {
            "loss": (weight * squares).mean(),
            "v": squares.mean(),
            "hole": (squares * inside).sum() / (4 * inside.sum()).clamp(min=1),
        }

    def joined(self, z, beside):
        return torch.cat([z, beside], dim=1)

    def tokens(self, batch):
        """The condition (B,L,d): what the reference says, or the null vector."""
        with torch.no_grad():
            mean, std = (
                torch.tensor(v, device=self.device).view(3, 1, 1)
                for v in (self.clip.mean, self.clip.std)
            )
            seen = features(
                self.tower, ((batch["reference"] + 1) / 2 - mean) / std, self.tower.config.tokens
            )
        head = self.net["head"]
        return torch.where(batch["said"][:, None, None], head(seen), head.uncond_vector)

    @torch.no_grad()
    def sheet(self):
        """Held-out pictures with their holes, references of other scenes, and what they become."""
        scenes = world.sample(24, seed=world.HELD_OUT, device=self.device)
        view = world.render(scenes, size=self.size)
        box = view.boxes[torch.arange(24), one_object(scenes, 0)]
        rows = (box[:, 2] > box[:, 0]).nonzero()[:16, 0]
        image, box, n = view.image[rows], box[rows], len(rows)
        still, straight = torch.zeros(n, 9).to(box), torch.full((n, 4, 18), 0.5).to(box)
        mask = hole(box, still, straight, self.size)
        reference = cut(image, box, self.clip.size).roll(1, 0)
        edit = exemplar(self.pipeline(), image, mask, reference, n=n, **self.settings())
        columns = [
            image * (1 - mask),
            F.interpolate(reference, image.shape[-2:]),
            edit.tensor.to(image),
        ]
        return sheet(
            [
                row
                for half in (slice(0, 8), slice(8, 16))
                for row in (column[half] for column in columns)
            ]
        )

    def pipeline(self):
        """The ExemplarPipeline of the present weights."""
        encoder = ExemplarEncoder(
            copy.deepcopy(self.tower.config), self.net["unet"].config.cross_attention_dim
        )
        take_weights(
            encoder, self.net["head"].state_dict() | self.tower.state_dict(prefix="model.")
        )
        mean, std = self.clip.mean, self.clip.std
        return ExemplarPipeline(
            self.vae, self.net["unet"], encoder.to(self.device), self.scheduler, mean, std
        )

    def settings(
        self,
    ):  # a network that never met the null vector has nothing to be guided away from
        return SETTINGS if self.null_share else SETTINGS | {"w": 1.0}

    def export(self, folder: Path):
        copy.deepcopy(self.pipeline()).to(dtype=torch.float16).save_pretrained(folder)
        if not (folder / "blendlab.json").exists():  # it may hold measured settings
            card = {"size": self.size, "settings": {"exemplar": self.settings()}}
            files.write_json(folder / "blendlab.json", card)

    def load(self, folder: Path):
        pipe = ExemplarPipeline.from_folder(folder, *LENDERS)
        del pipe.encoder.model
        take_weights(self.net["unet"], pipe.unet.state_dict(), folder)
        take_weights(self.net["head"], pipe.encoder.state_dict(), folder)

    def identity(self):
        return super().identity() | {
            "rung": self.rung,
            "scaling_factor": self.vae.config.scaling_factor,
            "frozen": fingerprint(self.tower),
        }

    def config(self):
        return {
            "rung": self.rung,
            "null_per": self.null_per,
            "whole": self.whole,
            "pool": self.pool_size,
        }


def nine_channels(folder):
    """The text-to-image UNet in `folder` with five more channels, ignored at first.

    As the official scripts/modify_checkpoints.py: new weights of the first convolution are zero.
    """
    from diffusers import UNet2DConditionModel

    plain = opening.network(Path(folder), "UNet2DConditionModel", safe=False)
    config = {
        key: value for key, value in plain.config.items() if key != "_name_or_path"
    }  # a folder of this machine
    unet = UNet2DConditionModel.from_config(config, in_channels=2 * plain.config.in_channels + 1)
    weights = plain.state_dict()
    more = unet.config.in_channels - plain.config.in_channels
    weights["conv_in.weight"] = F.pad(weights["conv_in.weight"], (0, 0, 0, 0, 0, more))
    unet.load_state_dict(weights)
    return unet


def find_clip(folder):
    """The CLIP in `folder`: by default that of runs/clip, else the shipped one."""
    from ..networks.clip import load_clip

    places = [Path(folder)] if folder else [Path("runs/clip/export"), WEIGHTS / "tinyworld-clip"]
    for place in places:
        if (place / "open_clip_config.json").is_file():
            return load_clip(place)
    raise Refused(f"there is no CLIP in {places[-1]}; train it first: blendlab train clip")


def cut(image: Tensor, box: Tensor, size: int) -> Tensor:
    """The pieces in boxes (B,4) of pictures (B,3,H,W), squashed to (B,3,size,size).

    A fiftieth of the picture is kept around each (open-images.py:69-75: 10 of 512 pixels), in whole
    pixels.
    """
    S = image.shape[-1]
    pad = math.ceil(S / 50) / S
    x0, y0, x1, y1 = torch.cat([box[:, :2] - pad, box[:, 2:] + pad], dim=1).clamp(0, 1).unbind(1)
    at = (torch.arange(size, device=image.device) + 0.5) / size
    x, y = (
        2 * (low[:, None] + (high - low)[:, None] * at) - 1 for low, high in ((x0, x1), (y0, y1))
    )  # (B,size)
    grid = torch.stack(
        [x[:, None].expand(-1, size, -1), y[:, :, None].expand(-1, -1, size)], dim=-1
    )
    return F.grid_sample(
        image, grid, mode="bicubic", padding_mode="border", align_corners=False
    ).clamp(-1, 1)


def hole(box: Tensor, u: Tensor, shake: Tensor, size: int) -> Tensor:
    """Masks (B,1,size,size), 1 = edit, around boxes (B,4); u (B,9), shake (B,4,18) in [0,1).

    A larger box is drawn first, each side moved out by up to 40% of the room that it has. Half of
    the masks are that box; in the others each side of the box bends towards it, as a quadratic
    Bezier curve whose control point lies on the larger box, and trembles by up to a hundredth of
    the picture (open-images.py:158-206).
    """
    out = torch.tensor([-1.0, -1.0, 1.0, 1.0], device=box.device)  # left, top, right, bottom
    room = torch.cat([box[:, :2], 1 - box[:, 2:]], dim=1)
    larger = box + out * 0.4 * room * u[:, :4]
    low, high = box[:, [1, 0, 1, 0]], box[:, [3, 2, 3, 2]]  # where each side begins and ends, (B,4)

    # A curve as a function of the place along it: solve its along-part for the parameter t.
    at = (torch.arange(size, device=box.device) + 0.5) / size
    along = ((at - low[..., None]) / (high - low).clamp(min=1e-3)[..., None]).clamp(
        0, 1
    )  # (B,4,size)
    c = 0.05 + 0.9 * u[:, 4:8, None]  # the control point's place along its side
    t = along / (c + (c**2 + (1 - 2 * c) * along).clamp(min=0).sqrt())
    tremble = 0.02 * (F.interpolate(shake, size, mode="linear") - 0.5)
    side = box[..., None] + 2 * t * (1 - t) * (larger - box)[..., None] + tremble
    left, top, right, bottom = side.unbind(1)  # (B,size): by row, by column, by row, by column

    x, y = at[None, None, :], at[None, :, None]
    within = lambda v, a, b: (v > a[:, None, None]) & (v < b[:, None, None])  # noqa: E731
    rows = (x > left[:, :, None]) & (x < right[:, :, None]) & within(y, box[:, 1], box[:, 3])
    columns = (y > top[:, None, :]) & (y < bottom[:, None, :]) & within(x, box[:, 0], box[:, 2])
    boxes = within(x, larger[:, 0], larger[:, 2]) & within(y, larger[:, 1], larger[:, 3])
    return torch.where(u[:, 8, None, None] < 0.5, rows | columns, boxes)[:, None].float()


def augmented(pieces: Tensor, u: Tensor, bend: Tensor) -> Tensor:
    """References (B,3,S,S) flipped (chance .5), turned by 20 degrees (.5), bent (.3), blurred (.3).

    u: (B,6) in [0,1), bend: (B,2,4,4) normal, so each has parameters of its own
       (open-images.py:135-145).
    """
    S = pieces.shape[-1]
    flip = torch.where(u[:, 0] < 0.5, -1.0, 1.0)
    angle = torch.where(u[:, 1] < 0.5, (2 * u[:, 2] - 1) * math.radians(20), 0.0)
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    turn = torch.stack([flip * cos, -flip * sin, zero, sin, cos, zero], dim=1).view(-1, 2, 3)
    grid = F.affine_grid(turn, list(pieces.shape), align_corners=False)  # (B,S,S,2)
    bent = 0.1 * F.interpolate(bend, (S, S), mode="bicubic").permute(0, 2, 3, 1)
    grid = grid + torch.where(u[:, 3, None, None, None] < 0.3, bent, 0.0)
    pieces = F.grid_sample(pieces, grid, padding_mode="reflection", align_corners=False)
    less, more = (F.avg_pool2d(pieces, k, 1, k // 2, count_include_pad=False) for k in (3, 5))
    blurred = torch.where(u[:, 4, None, None, None] < 0.5, less, more)
    return torch.where(u[:, 5, None, None, None] < 0.3, blurred, pieces)
