"""The protocol of Blended Latent Diffusion (2206.02779, section 5) on photographs, as published: a
random ImageNet class as prompt, and an ImageNet classifier that says what is in the box.

    blendlab results precision --images photographs/ --model sd15 --scenes 50 --batch 24

The paper took 50 pictures from the web and does not name its classifier. Needs a GPU, and downloads
the model, the classifier, CLIP and LPIPS at first use. Next: precision.py, whose runs these are.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import images as inputs
from .. import masks, viz
from ..blend import blend
from ..errors import Refused
from ..networks.clip import load_clip
from ..networks.load import load
from ..networks.opening import undisturbed
from ..networks.perceptual import lpips_distance
from . import metrics, results
from .methods import Ask, Method, chosen
from .precision import SEED, Run, compared, lot, on, preferred, sized
from .tables import seen_outside

CLASSIFIER, CLIP = "convnext_base.fb_in1k", "ViT-B-16"
TOP = 5  # classes of the classifier, any of which may be the prompt's
ENDINGS = {".jpg", ".jpeg", ".png", ".webp"}
WHAT = (
    "A random ImageNet class in a random box of a photograph. Batch precision: of all results the "
    f"share whose box has the class among the {TOP} likeliest of {{classifier}}; best result: of "
    "those that CLIP puts first. Diversity: mean LPIPS of all pairs of right results of a picture, "
    "by VGG unless another distance was passed."
)


class Classifier:
    """An ImageNet classifier of timm: network(x) gives (B,1000), as timm.create_model returns."""

    def __init__(self, network):
        from timm.data import ImageNetInfo, resolve_model_data_config

        info, how = ImageNetInfo("imagenet-1k"), resolve_model_data_config(network)
        # "tench, Tinca tinca": the first name; a name may stand for two classes (crane)
        every = map(info.index_to_description, range(info.num_classes()))
        self.names = [names.split(",")[0] for names in every]
        self.network, self.side = network.eval(), how["input_size"][-2:]
        self.mean, self.std = (torch.tensor(how[k]).view(3, 1, 1) for k in ("mean", "std"))

    @torch.no_grad()
    def sees(self, pictures: Tensor, name: str) -> Tensor:
        """(B,) bool: is a class of this name likeliest in pictures (B,3,H,W) in [-1,1]?"""
        device = next(self.network.parameters()).device
        x = F.interpolate((pictures + 1) / 2, self.side, mode="bicubic", antialias=True)
        found = self.network(((x.clamp(0, 1) - self.mean) / self.std).to(device)).topk(TOP).indices
        return torch.tensor([any(self.names[k] == name for k in row) for row in found.tolist()])


@undisturbed()
def classifier(name: str = CLASSIFIER, device="cpu") -> Classifier:
    """A classifier of timm by its name; its weights are downloaded at first use."""
    import timm

    if name not in timm.list_pretrained():
        raise Refused(f"timm has no weights of {name!r}: take one of timm.list_pretrained()")
    return Classifier(timm.create_model(name, pretrained=True).to(device))


@dataclass(frozen=True)
class Photograph:
    """What is asked and measured of one picture."""

    image: Tensor  # (1,3,S,S) in [-1,1]
    mask: Tensor  # (1,1,S,S)
    name: str  # of the class

    def ask(self, n: int, seed: int) -> Ask:
        image, mask = self.image.clone(), self.mask.clone()
        return Ask(image, mask, self.name, image, "", self.name, n, seed)

    @property
    def shown(self) -> list:
        return [viz.overlay(self.image, self.mask, self.image.shape[-1])]


@dataclass
class OnPhotographs(Run):
    """A run on the files of a folder, with one model in the place of tinyworld."""

    files: list[Path]
    model: str
    judged: str  # the classifier's name
    classifier: Classifier
    clip: object
    distance: Callable  # of two batches of pictures, (B,)

    @property
    def what(self) -> str:
        return WHAT.format(classifier=self.judged)

    @property
    def asked(self) -> dict:
        return {"--images": self.files[0].parent.name, "--model": self.model}

    @cached_property
    def same(self) -> dict:
        shown = b"".join(file.name.encode() + file.read_bytes() for file in self.files)
        return {"task": self.task, "seed": SEED, "tasks": results.digest(shown)}

    def tasks(self) -> dict:
        return self.same

    def weights(self, method: Method) -> dict:
        return {"model": self.model, "classifier": self.judged}

    def draw(self, i: int, size: int) -> Photograph:
        """Picture i, cut to the model's size, and a box with sides of a fifth to a half."""
        u, _, x0, y0, w, h = lot(i)
        image = inputs.image(inputs.fit(self.files[i], size))
        mask = masks.from_box((x0, y0, x0 + w, y0 + h), (size, size))
        names = self.classifier.names
        return Photograph(image, mask, names[int(u * len(names))])

    def outcomes(self, drawn, images: Tensor) -> dict:
        image, mask, name = drawn.image, drawn.mask, drawn.name
        left, top, right, bottom = masks.edges(mask)
        seen = self.classifier.sees(images[..., top:bottom, left:right], name)
        favourite, liked = preferred(images, name, self.clip, mask)
        good = blend(mask, edit=images, keep=image)[seen]  # outside, all are the source
        beside = blend(mask, edit=image, keep=images)  # so that only the background differs
        return {
            "batch precision": seen,
            "best result": seen[favourite],
            "diversity (LPIPS)": torch.tensor([metrics.diversity(self.distance, good)]),
            "CLIP distance (1 - cos)": liked,
            "background (LPIPS)": self.distance(beside, image.expand_as(beside)),
            "seam (1 is none)": metrics.seam(images, mask),
        } | seen_outside(images, drawn)


def run(
    images, model="sd15", methods=None, scenes=50, batch=24, out="runs/photographs", *,
    judge=None, clip=None, distance=None,
) -> dict | None:  # fmt: skip
    """Measure methods on the pictures of a folder with a model of `load`; return the table.

    images: a folder of .jpg, .png or .webp; the first `scenes` by name, cut to centred squares.
    methods: as methods.chosen reads them; those that take words and one model.
    judge: a Classifier; clip: a Clip; distance: of two batches, as lpips_distance("vgg") gives.
    Left out, they are downloaded.
    """
    sized(scenes, batch)
    known = {one.name: one for one in chosen(None) if fits(one)}
    listed = {one.name: one for one in chosen(methods)} if methods else known
    if others := [name for name in listed if name not in known]:
        raise Refused(
            f"{', '.join(others)} cannot be compared on photographs, which have no truth, caption "
            f"or reference; take of {', '.join(known)}"
        )
    found = sorted(f for f in Path(images).glob("*") if f.suffix.lower() in ENDINGS)
    if len(found) < scenes:
        raise Refused(
            f"{images} has {len(found)} pictures ({', '.join(sorted(ENDINGS))}), and --scenes is "
            f"{scenes}: add some, or ask for fewer"
        )
    pipe = load(model)
    device = pipe.device
    asked = OnPhotographs(
        "photographs", scenes, batch, Path(out), {"tinyworld": pipe}, found[:scenes], str(model),
        CLASSIFIER if judge is None else named(judge.network),
        judge or classifier(device=device), clip or load_clip(CLIP, device=device),
        distance or on(device, lpips_distance(device=device)),
    )  # fmt: skip
    return compared(asked, list(listed.values()), methods)


def named(network) -> str:
    """The kind of a network, and digits that change with its weights."""
    weights = (x.detach().float().cpu().numpy().tobytes() for x in network.state_dict().values())
    return f"{type(network).__name__} {results.digest(b''.join(weights))}"


def fits(method: Method) -> bool:
    """Whether a method takes words and one model, and neither a caption nor a reference."""
    return method.name == "source" or method.needs == ("tinyworld",) and method.name != "repaint"
