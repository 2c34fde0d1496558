"""The judge, for measuring only: it recognises the objects in a picture of tinyworld.

Per pixel it names a class and a colour, or nothing, so presence, place, completeness and precision
all come from one network. It never guides and lends no features to a loss. Its accuracy on
autoencoder reconstructions is the ceiling of every precision that it measures: `per_object`
measures that. Read next: ../training/judge.py, ../measuring/metrics.py.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import files
from ..cards import read_json
from ..errors import Refused
from ..images import at_side
from . import opening
from .folders import present
from .weights import described, read, take_weights

SIZE = 64  # pictures of other sizes are resized to this before the network looks at them


@dataclass
class Verdict:
    """What the judge says of each pixel of (B,3,64,64); index 0 is nothing, 1+i the i-th name."""

    kind: Tensor  # (B, K+1, 64, 64) logits
    colour: Tensor  # (B, C+1, 64, 64) logits

    def kinds(self) -> Tensor:
        """(B,64,64) the most probable class, 0 = nothing."""
        return self.kind.argmax(1)

    def colours(self) -> Tensor:
        """(B,64,64) the most probable colour, 0 = nothing."""
        return self.colour.argmax(1)


@dataclass
class Found:
    """One connected object: names, share of the picture's area, box (x0,y0,x1,y1) in fractions."""

    kind: str
    colour: str
    area: float
    box: tuple[float, float, float, float]


class Judge(nn.Module):
    """A U-Net with two heads. `kinds` and `colours` are the names that its outputs stand for."""

    def __init__(self, kinds, colours, widths=(24, 48, 96, 96)):
        super().__init__()
        self.kinds, self.colours, self.widths = tuple(kinds), tuple(colours), tuple(widths)
        self.stem = nn.Conv2d(3, widths[0], 3, padding=1)
        pairs = list(zip(widths, widths[1:], strict=False))
        self.down = nn.ModuleList(nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in pairs)
        self.encode = nn.ModuleList(Block(w) for w in widths)
        self.up = nn.ModuleList(nn.Conv2d(b, a, 1) for a, b in pairs)
        self.decode = nn.ModuleList(Block(w) for w in widths[:-1])
        self.middle = Block(widths[-1])
        self.head = nn.Conv2d(widths[0], len(self.kinds) + len(self.colours) + 2, 1)

    def forward(self, images: Tensor) -> Verdict:
        """Judge pictures (B,3,H,W) in [-1,1], on the judge's own device."""
        x = self.encode[0](self.stem(at_side(images.to(self.stem.weight.device), SIZE)))
        skips = [x]
        for down, block in zip(self.down, self.encode[1:], strict=True):
            x = block(down(x))
            skips.append(x)
        x = self.middle(skips.pop())
        for up, block in zip(reversed(self.up), reversed(self.decode), strict=True):
            x = block(F.interpolate(up(x), scale_factor=2) + skips.pop())
        return Verdict(*self.head(x).split([len(self.kinds) + 1, len(self.colours) + 1], dim=1))

    @torch.no_grad()
    def found(
        self, images: Tensor, mask: Tensor | None = None, smallest: float = 0.004
    ) -> list[list[Found]]:
        """List the objects in each picture, largest first.

        An object is a connected patch (8 neighbours) of pixels of one class, of at least `smallest`
        of the picture's area; its colour is the most frequent one among those pixels. With a mask
        (B or 1,1,H,W) only pixels in it count.
        """
        from scipy import ndimage

        verdict = self(images)
        kinds, colours = verdict.kinds(), verdict.colours()
        if mask is not None:
            kinds = kinds * to_size(mask).to(kinds.device)
        kinds, colours = kinds.cpu().numpy(), colours.cpu().numpy()
        objects: list[list[Found]] = [[] for _ in kinds]
        for i, k in [(i, k) for i, each in enumerate(kinds) for k in set(each.ravel()) - {0}]:
            patches, _ = ndimage.label(kinds[i] == k, structure=[[1] * 3] * 3)
            for n, (rows, columns) in enumerate(ndimage.find_objects(patches), 1):
                inside = patches == n
                area = float(inside.mean())
                if area >= smallest:
                    votes = np.bincount(colours[i][inside], minlength=len(self.colours) + 1)
                    colour = self.colours[votes[1:].argmax()]
                    edges = (columns.start, rows.start, columns.stop, rows.stop)
                    box = tuple(edge / SIZE for edge in edges)
                    objects[i].append(Found(self.kinds[k - 1], colour, area, box))
        return [sorted(each, key=lambda one: -one.area) for each in objects]

    @torch.no_grad()
    def sure(self, images: Tensor, smallest: float = 0.01) -> Tensor:
        """How sure the judge is of the clearest object in each picture, (B,) in [0,1]; 0: none.

        A patch that touches itself (8 neighbours), whatever the classes in it, of at least
        `smallest` of the picture's area, is as clear as the mean probability over it of the class
        that is most probable on the whole. Of `found` a medley passes as many objects; here it does
        not.
        """
        from scipy import ndimage

        verdict, best = self(images), torch.zeros(len(images))
        share = verdict.kind.softmax(1)[:, 1:].cpu()  # (B,K,64,64)
        for i, there in enumerate((verdict.kinds() > 0).cpu().numpy()):
            patches, count = ndimage.label(there, structure=[[1] * 3] * 3)
            for inside in (torch.from_numpy(patches == k) for k in range(1, count + 1)):
                if inside.float().mean() >= smallest:
                    best[i] = max(best[i], share[i, :, inside].mean(1).max())
        return best

    @torch.no_grad()
    def agrees(
        self, images: Tensor, mask: Tensor, kind: str, colour: str | None = None, share=0.05
    ) -> Tensor:
        """(B,) bool: is the object inside the mask (B or 1,1,H,W; 1 = edit) the prompted one?

        The rule: among the masked pixels that are not nothing, the most frequent class is `kind`,
        and it fills at least `share` of the mask; if a colour is given, the most frequent colour
        among the pixels of that class is `colour`.
        """
        verdict = self(images)
        kinds, colours = self.dominant(verdict, to_size(mask), share)
        right = kinds == 1 + _index(self.kinds, kind, "class")
        if colour is not None:
            right = right & (colours == 1 + _index(self.colours, colour, "colour"))
        return right

    def dominant(self, verdict: Verdict, inside: Tensor, share=0.05) -> tuple[Tensor, Tensor]:
        """The class and colour, (B,) each, that dominate `inside` (B or 1,64,64); 0 = none."""
        kinds, colours = (one.to(inside.device) for one in (verdict.kinds(), verdict.colours()))
        inside = inside.expand(len(kinds), -1, -1)
        counts = _count(kinds, inside, len(self.kinds) + 1)  # (B, K+1)
        area, best = counts[:, 1:].max(1)
        enough = area >= (share * inside.flatten(1).sum(1)).clamp(min=1)
        mine = inside & (kinds == 1 + best[:, None, None])
        best_colour = _count(colours, mine, len(self.colours) + 1)[:, 1:].argmax(1)
        return (1 + best) * enough, (1 + best_colour) * enough

    def save(self, folder) -> None:
        """Write config.json and model.safetensors (fp16)."""
        from safetensors.torch import save_file

        Path(folder).mkdir(parents=True, exist_ok=True)
        config = {"kinds": self.kinds, "colours": self.colours, "widths": self.widths, "size": SIZE}
        files.write_json(Path(folder) / "config.json", config)
        weights = {key: x.half().cpu().contiguous() for key, x in self.state_dict().items()}
        save_file(weights, Path(folder) / "model.safetensors")

    @classmethod
    @opening.undisturbed()
    def load(cls, folder, device=None) -> "Judge":
        """The judge in a folder, in float32 and ready to measure."""
        file = Path(folder) / "config.json"
        config, weights = read_json(file), present(Path(folder) / "model.safetensors")
        with described(file, "judge"):
            judge = cls(config["kinds"], config["colours"], config["widths"])
        take_weights(judge, read(weights), weights)
        return judge.to(device or "cpu").eval().requires_grad_(False)


class Block(nn.Module):
    """Two 3x3 convolutions beside a shortcut."""

    def __init__(self, width):
        super().__init__()
        self.a = nn.Conv2d(width, width, 3, padding=1)
        self.b = nn.Conv2d(width, width, 3, padding=1)
        self.norm_a, self.norm_b = nn.GroupNorm(8, width), nn.GroupNorm(8, width)

    def forward(self, x):
        h = self.a(F.silu(self.norm_a(x)))
        return x + self.b(F.silu(self.norm_b(h)))


@torch.no_grad()
def per_object(
    judge: Judge, images: Tensor, masks: Tensor, kind: Tensor, colour: Tensor, smallest=0.006
) -> dict:
    """Compare with the truth: how many objects, and how often class and colour are right.

    images (B,3,64,64); masks (B,N,64,64) visible coverage of each slot; kind and colour (B,N) the
    truth, -1 = empty slot. Objects that show less than `smallest` of the picture are left out.
    """
    verdict = judge(images)
    total = {"objects": 0, "kind": 0, "colour": 0}
    for slot in range(masks.shape[1]):
        inside = masks[:, slot] > 0.5
        seen = (inside.float().mean((1, 2)) >= smallest) & (kind[:, slot] >= 0)
        kinds, colours = judge.dominant(verdict, inside)
        total["objects"] += seen.sum().item()
        total["kind"] += (seen & (kinds == 1 + kind[:, slot])).sum().item()
        total["colour"] += (seen & (colours == 1 + colour[:, slot])).sum().item()
    return total


def to_size(mask: Tensor) -> Tensor:
    """A mask (B or 1,1,H,W) as booleans (B or 1,64,64): true where half or more is masked."""
    return F.interpolate(mask.float(), (SIZE, SIZE), mode="area")[:, 0] >= 0.5


def _count(labels: Tensor, inside: Tensor, n: int) -> Tensor:
    """(B,n): how many pixels of `inside` carry each label."""
    counts = torch.zeros(len(labels), n, device=labels.device)
    return counts.scatter_add(1, labels.flatten(1), inside.flatten(1).float())


def _index(names, name, what):
    if name not in names:
        raise Refused(f"the judge does not know the {what} '{name}'; it knows {', '.join(names)}")
    return names.index(name)
