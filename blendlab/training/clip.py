"""A small CLIP (2103.00020) for tinyworld: it sees what guidance shows it, and reads signs.

Guidance shows a CLIP the inside of a mask on grey, ranking on black, both often blurred; so most of
its training pictures are objects cut out of their scenes, captioned by the object alone. Warps stay
mild: a CLIP that has seen everything cannot be fooled, and being fooled is a lesson. Read next:
      ../rank.py, which asks it.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import files, world
from ..errors import Refused
from ..networks.weights import take_weights
from ..warps import warp
from . import dense
from .harness import Job, Pool
from .pictures import from_bytes, one_object, patterned, sheet, to_bytes
from .tokenizer import LENGTH, load_tokenizer, save_tokenizer, tokenize

MEAN = STD = (0.5, 0.5, 0.5)  # what open_clip takes off pictures in [0,1]: the network sees [-1,1]
SCENE, RICH, OBJECT, RICH_OBJECT, WORD = range(
    5
)  # the captions of one picture; the last is a single word
# of the pictures that it takes; those of a pool are twice as large, so that a box can be enlarged
SIDE = 64
PATCH = 8
DENSE = 0.3  # weight of a second loss: the patches name the object at each place
# What the class token of one object's picture has to tell; exemplars pass on what it holds, and
# captions seldom name all of it.
SAID = {
    name: len(names)
    for name, names in (
        ("kind", world.KINDS),
        ("colour", world.COLOURS),
        ("pattern", world.PATTERNS),
        ("accent", world.COLOURS),
    )
}
TOKEN = 1.0  # what that counts
SIGNS = 8  # in one of so many scenes an object becomes a sign


class ClipJob(Job):
    name = "clip"
    batch_size = 128
    optimizer, lr = "muon", 1e-3

    def __init__(self, width=192, layers=4, text_width=128, text_layers=2, pool=None, **kwargs):
        super().__init__(**kwargs)
        import open_clip

        for name, value in (("width", width), ("text_width", text_width)):
            if value % 32:
                raise Refused(f"{name} is {value}; take a multiple of 32")

        torch.manual_seed(self.seed)
        self.words = world.words()
        self.tokenizer = load_tokenizer(self.words)
        self.sizes = {
            "embed_dim": 128,
            # A plain patch embedding, so that transformers' CLIPVisionModel can take the tower
            # over.
            "vision_cfg": {
                "image_size": SIDE,
                "patch_size": PATCH,
                "width": width,
                "head_width": 32,
                "layers": layers,
            },
            "text_cfg": {
                "context_length": LENGTH,
                "vocab_size": len(self.tokenizer),
                "hf_tokenizer_name": "tinyworld",  # open_clip reads the files beside its config
                "width": text_width,
                "heads": text_width // 32,
                "layers": text_layers,
            },
        }
        said = nn.Linear(width, sum(SAID.values()))
        self.net = nn.ModuleDict(
            {"clip": open_clip.CLIP(**self.sizes), "dense": dense.head(width), "token": said}
        )
        self.pool_size = self.pool_of(pool, 4096)

    def fill(self, step):
        renew = 128 if self.device.type == "cuda" else 8
        self.pool = Pool(self.render, self.pool_size, renew, step, chunk=max(32, renew))

    def render(self, start, n):
        """Scenes start .. start+n-1, the box of one object in each, and five captions as ids."""
        scenes = world.sample(n, seed=self.world_seed(), start=start, device=self.device)
        slot, sign = one_object(scenes, start), world.KINDS.index("sign")
        kind, word = (
            values.gather(1, slot[:, None])[:, 0] for values in (scenes.kind, scenes.word)
        )
        more = (torch.arange(start, start + n, device=self.device) % SIGNS == 0) & (kind >= 0)
        kind = torch.where(more, sign, kind)
        scenes = patterned(world.changed(scenes, slot, kind=kind), start)
        view = world.render(scenes, size=2 * SIDE)
        box = view.boxes[torch.arange(n), slot]  # (n,4), zeros where there is no object
        scene = world.captions(scenes, seed=start)
        texts = {
            SCENE: scene,
            RICH: world.captions(scenes, seed=start + 1, rich=1.0),
            OBJECT: world.describe(scenes, slot),
            RICH_OBJECT: world.describe(scenes, slot, rich=True),
            WORD: [
                world.SIGN_WORDS[w] if k == sign else world.KINDS[k] if k >= 0 else "nothing"
                for k, w in zip(kind.tolist(), word.tolist(), strict=True)
            ],
        }
        ids = torch.stack(
            [tokenize(self.tokenizer, texts[which]) for which in range(5)], dim=1
        )  # (n,5,LENGTH)
        ids = ids.to(torch.int16).to(self.device)
        named = torch.stack(
            [getattr(scenes, name).gather(1, slot[:, None])[:, 0] for name in SAID], dim=1
        )  # (n,4)
        kept = {"image": to_bytes(view.image), "box": box, "sign": kind == sign, "ids": ids}
        return kept | {"named": named.to(torch.int8)} | dense.shown(view)

    def batch(self, step):
        """Objects in their boxes on grey or black (half), enlarged boxes, as exemplars are shown (a
        third), and whole scenes; all of them warped, some blurred or noisy.
        """
        g, B = self.generator(step), self.batch_size
        data = self.pool.draw(B, step, g)
        draw = lambda *shape: torch.rand(B, *shape, generator=g).to(self.device)  # noqa: E731
        image, box = from_bytes(data["image"]), data["box"]  # (B,3,2*SIDE,2*SIDE) and (B,4)
        there = box[:, 2] > 0
        choice = draw()
        cut, enlarged = (choice > 0.5) & there, (choice < 0.35) & there

        low, high = (
            box[:, :2] - 0.12 * draw(2),
            box[:, 2:] + 0.12 * draw(2),
        )  # some margin, as hands draw masks
        at = (torch.arange(2 * SIDE, device=self.device) + 0.5) / (2 * SIDE)
        inside = [(at > low[:, i, None]) & (at < high[:, i, None]) for i in (0, 1)]  # columns, rows
        mask = (inside[1][:, :, None] & inside[0][:, None, :])[:, None] | ~cut[:, None, None, None]
        ground = -(draw(1, 1, 1) < 0.5).float()  # black as in ranking, or grey as in guidance
        image, planes = torch.where(mask, image, ground), data["planes"] / 255 * mask

        blurred = F.interpolate(F.avg_pool2d(image, 8), image.shape[-2:], mode="bilinear")
        image = torch.lerp(image, blurred, (draw(1, 1, 1) * 2 - 1).clamp(0))
        frame = torch.where(
            enlarged[:, None], torch.cat([low, high], dim=1), box.new_tensor([0.0, 0.0, 1.0, 1.0])
        )
        both, none = torch.cat([image, planes], dim=1), torch.zeros_like(planes[..., :1, :1])
        both = warped(both, draw(6), torch.cat([ground.expand(-1, 3, -1, -1), none], dim=1), frame)
        image, planes = F.avg_pool2d(both, 2).split(
            [3, world.SLOTS], dim=1
        )  # (B,3 and SLOTS,SIDE,SIDE)
        noise = torch.randn(image.shape, generator=g).to(self.device)
        image = image + 0.15 * (draw(1, 1, 1) * 2 - 1).clamp(0) * noise
        seen = dense.labels(planes, data["kind"], data["colour"], SIDE // PATCH)

        # A cat and a sign that says cat share a caption now and then: so words on signs come to
        # mean something.
        rich, word = (
            draw() < torch.where(enlarged, 0.6, 0.4),
            (draw() < torch.where(data["sign"], 0.6, 0.15)) & cut,
        )
        which = torch.where(
            cut | enlarged, torch.where(rich, RICH_OBJECT, OBJECT), torch.where(rich, RICH, SCENE)
        )
        ids = data["ids"][
            torch.arange(B, device=self.device), torch.where(word, WORD, which)
        ].long()
        named = torch.where(
            (cut | enlarged)[:, None], data["named"].long(), -100
        )  # -100: no object alone
        return {
            "image": image.clamp(-1, 1),
            "ids": ids,
            "kind": seen[0],
            "colour": seen[1],
            "named": named,
        }

    def loss(self, batch):
        net = self.net["clip"]
        with dense.features(net.visual.ln_post) as seen:
            pictures = F.normalize(net.encode_image(batch["image"]).float(), dim=-1)  # (B,d)
        texts = F.normalize(net.encode_text(batch["ids"]).float(), dim=-1)
        logits = net.logit_scale.clamp(max=4.6).exp() * pictures @ texts.T  # (B,B)
        # Captions repeat in so small a world: every picture with the same words is a right answer.
        same = (batch["ids"][:, None] == batch["ids"][None]).all(-1).float()
        target = same / same.sum(1, keepdim=True)
        loss = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
        right = same.gather(1, logits.argmax(1, keepdim=True)).mean()
        patches = seen[0][:, 1:].mT.unflatten(2, (SIDE // PATCH, -1))  # (B,width,8,8)
        said = dense.dense_loss(self.net["dense"](patches), batch["kind"], batch["colour"])
        logits = self.net["token"](seen[0][:, 0]).float().split(list(SAID.values()), dim=1)
        token = sum(  # over those that have a name; a small batch may have none
            F.cross_entropy(guess, name, reduction="sum") / (name >= 0).sum().clamp(min=1)
            for guess, name in zip(logits, batch["named"].unbind(1), strict=True)
        )
        parts = {"match": loss, "right": right, "dense": said, "token": token}
        return {"loss": loss + DENSE * said + TOKEN * token} | parts

    @torch.no_grad()
    def sheet(self):
        """What a batch looks like; prints how often the right one of 100 held-out captions wins."""
        scenes = world.sample(200, seed=world.HELD_OUT, device=self.device)
        texts = world.captions(scenes)
        first = sorted({text: i for i, text in reversed(list(enumerate(texts)))}.values())[:100]
        shown = F.avg_pool2d(world.render(scenes[first], size=2 * SIDE).image, 2)
        pictures = self.net["clip"].encode_image(shown, normalize=True)
        ids = tokenize(self.tokenizer, [texts[i] for i in first]).to(self.device)
        words = self.net["clip"].encode_text(ids, normalize=True)
        right = (
            ((pictures @ words.T).argmax(1).cpu() == torch.arange(len(first))).float().mean().item()
        )
        print(f"the right one of {len(first)} captions: {right:.0%}", flush=True)
        return sheet(list(self.batch(0)["image"][:32].split(8)))

    def export(self, folder: Path):
        """An open_clip `local-dir:` folder with its tokenizer."""
        from safetensors.torch import save_file

        half = {
            key: value.half().contiguous() for key, value in self.net["clip"].state_dict().items()
        }
        save_file(half, folder / "open_clip_model.safetensors")
        preprocess = {"mean": MEAN, "std": STD, "interpolation": "bicubic", "resize_mode": "squash"}
        config = {"model_cfg": self.sizes, "preprocess_cfg": preprocess}
        files.write_json(folder / "open_clip_config.json", config)
        save_tokenizer(folder, self.words)
        files.write_json(folder / "blendlab.json", {"words": self.words})

    def load(self, folder: Path):
        from ..networks.clip import load_clip

        take_weights(self.net["clip"], load_clip(folder).model.state_dict(), folder)

    def config(self):
        return {"sizes": self.sizes, "pool": self.pool_size, "words": len(self.words)}


def warped(image: Tensor, u: Tensor, ground: Tensor, frame: Tensor) -> Tensor:
    """Show the part of each picture in `frame`, (B,4) in fractions, turned by up to 8 degrees,
    scaled by 0.8 to 1.4, moved by an eighth, tilted slightly; u: (B,6) in [0,1). What comes in from
    outside is `ground` (B,1 or C,1,1).
    """
    u = 2 * u - 1
    angle, scale = 0.14 * u[:, 0], torch.exp(-0.28 * u[:, 1] - 0.06)  # of the window that is shown
    cos, sin, zero = scale * angle.cos(), scale * angle.sin(), torch.zeros_like(angle)
    rows = [
        cos,
        -sin,
        0.25 * u[:, 2],
        sin,
        cos,
        0.25 * u[:, 3],
        0.1 * u[:, 4],
        0.1 * u[:, 5],
        zero + 1,
    ]
    low, high = frame.split(2, dim=1)
    (across, down), (x, y) = (high - low).unbind(1), (high + low - 1).unbind(1)
    enlarge = [across, zero, x, zero, down, y, zero, zero, zero + 1]
    turn, enlarge = (torch.stack(values, dim=1).view(-1, 3, 3) for values in (rows, enlarge))
    return warp(image - ground, enlarge @ turn) + ground  # projective maps of [-1,1]^2
