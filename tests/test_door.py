"""Every public function takes pictures and masks through the one door (blendlab.images)."""

import inspect
from functools import partial

import checkpoints
import colour_clip
import pytest
import test_exemplar
import torch

import blendlab as bl
from blendlab.networks.clip import Clip

PICTURES = ("image", "images", "mask", "reference", "region")
MASKS = ("mask", "region")
ARITHMETIC = {"blend"}  # works on states and latents too, inside the loop


def functions() -> dict:
    """The public functions that take a picture or a mask, by name, with those parameters."""
    public = {name: getattr(bl, name) for name in bl.__all__}
    ours = {
        name: f for name, f in public.items() if inspect.isfunction(f) and name not in ARITHMETIC
    }
    taking = {
        name: [p for p in inspect.signature(f).parameters if p in PICTURES]
        for name, f in ours.items()
    }
    taking["exemplar"].remove("region")  # there it is a box
    return {name: parameters for name, parameters in taking.items() if parameters}


class Silent:
    """A network that must not be asked."""

    def __getattr__(self, name):
        raise AssertionError("a network ran before the input was checked")


def call(name: str, unknown=(), **bad):
    """Call a public function with good arguments but for the bad ones; unknown: names of more."""
    image, mask = torch.zeros(1, 3, 64, 64), torch.zeros(1, 1, 64, 64)
    mask[..., 16:48, 16:48] = 1
    good = {
        "image": image,
        "images": image,
        "mask": mask,
        "prompt": "a cat",
        "pipe": checkpoints.sd1(),
    }
    good["model"] = checkpoints.pixel()
    good["edit"] = torch.zeros(1, 4, 8, 8)
    good |= {"changed": "a dog", "boxes": [("cat", (0.1, 0.1, 0.5, 0.5))]}
    if "clip" in inspect.signature(getattr(bl, name)).parameters and name != "blended_latent":
        good["clip"] = Clip(Silent(), Silent(), 32, (0, 0, 0), (1, 1, 1))
    if name == "exemplar":
        good |= {"pipe": test_exemplar.build(), "reference": torch.rand(1, 3, 8, 8)}
    if name == "repaint":
        good["region"] = mask
    function = getattr(bl, name)
    wanted = inspect.signature(function).parameters
    given = {key: value for key, value in (good | bad).items() if key in wanted}
    return function(**given, **dict.fromkeys(unknown, 3))


def colours(name: str) -> dict:
    """The networks that a method asks beside its model, which can be computed by hand."""
    clip = colour_clip.ColourClip(colour_clip.ColourModel())
    given = {"clip": clip} if name in ("blended", "clip_guided", "paint_by_word") else {}
    return given | {"perceptual": lambda a, b: (a - b).square().mean((1, 2, 3))}


def test_there_are_such_functions():
    assert {"blended_latent", "exemplar", "rank"} <= set(functions())


@pytest.mark.parametrize(
    "name, parameter", [(name, p) for name, ps in functions().items() for p in ps]
)
def test_it_goes_through_the_door(name, parameter, monkeypatch):
    """What the door refuses, the function refuses, with the door's own sentence."""
    door = bl.images.mask if parameter in MASKS else bl.images.image
    if parameter in ("reference", "region"):
        door = partial(door, name=parameter)
    for bad in (
        torch.full((1, 1 if parameter in MASKS else 3, 64, 64), torch.nan),
        "no/such/picture.png",
    ):
        with pytest.raises((ValueError, OSError)) as expected:
            door(bad)
        with pytest.raises(type(expected.value)) as refused:
            call(name, **{parameter: bad})
        heart = str(expected.value).split(":")[0].split(" ", 1)[1]
        assert heart in str(refused.value)


@pytest.mark.parametrize(
    "name", ["blended_latent", "blended", "clip_guided", "paint_by_word", "exemplar"]
)
def test_one_picture_takes_a_mask_for_each_edit(name, image):
    masks = torch.zeros(2, 1, 64, 64)
    masks[0, ..., 16:40, 16:40] = masks[1, ..., 8:56, 24:48] = 1
    same = dict(mask=masks, prompt="red", n=2, steps=2, ranking=None) | colours(name)
    one, each = (
        call(name, image=picture, **same) for picture in (image, image.expand(2, -1, -1, -1))
    )
    torch.testing.assert_close(one.tensor, each.tensor, rtol=0, atol=1e-4)
    assert not torch.equal(one.tensor[0], one.tensor[1])


EDITING = ["blended_latent", "blended", "clip_guided", "paint_by_word", "exemplar"]

# Options with which each method draws from all its streams of noise.
GUIDED = dict(scale=5.0, augmentations=2, skip=0.25, resamplings=2)
DRAWING = {
    "blended_latent": dict(eta=1.0, w=3.0, posterior="sample", resamplings=2, noises=2),
    "blended": GUIDED,
    "clip_guided": GUIDED,
    "paint_by_word": dict(noise=0.5, augmentations=2),
    "exemplar": dict(eta=1.0, w=3.0, posterior="sample", blend=True),
    "layout": dict(eta=1.0, w=3.0, rule="paper", guide="mask", strength=0.5),
    "repaint": dict(eta=1.0, w=3.0),
    "reword": dict(eta=1.0, w=3.0),
}


@pytest.mark.parametrize("name", DRAWING)
def test_a_sample_is_the_same_whatever_n_batch_and_first_are(name, image):
    same = dict(image=image, prompt="red", changed="blue", steps=3, seed=3, ranking=None)
    same |= {"boxes": [("red", (0.5, 0.0, 1.0, 0.5))]} | colours(name) | DRAWING[name]
    if name in ("layout", "repaint", "reword"):
        same["image"] = None  # its noise would be everybody's
    three, in_twos, last = (
        call(name, **same, **how) for how in (dict(n=3), dict(n=3, batch=2), dict(first=2))
    )
    # The noise is the same exactly (test_noise.py); networks round differently in other batches.
    torch.testing.assert_close(in_twos.tensor, three.tensor, rtol=0, atol=1e-4)
    torch.testing.assert_close(last.tensor[0], three.tensor[2], rtol=0, atol=1e-4)
    if three.latents is not None:
        torch.testing.assert_close(in_twos.latents, three.latents, rtol=0, atol=1e-4)
        torch.testing.assert_close(last.latents[0], three.latents[2], rtol=0, atol=1e-4)
    if name == "layout":
        assert torch.equal(in_twos.settings["origin"], three.settings["origin"])
    assert three.scores is None and not torch.isclose(three.tensor[0], three.tensor[1]).all()
    assert three.settings["order"] == [0, 1, 2] and last.settings["order"] == [2]


@pytest.mark.parametrize("name", ["blended_latent", "exemplar"])
def test_no_network_sees_more_pictures_at_once_than_batch_says(name, image, monkeypatch):
    """batch= is what the advice on memory names, so it holds for n pictures of their own, too."""
    sizes = []

    def counting(network, method):
        called = getattr(network, method)

        def counted(x, *args, **kwargs):
            sizes.append(len(x))
            return called(x, *args, **kwargs)

        monkeypatch.setattr(network, method, counted)

    pipe = test_exemplar.build() if name == "exemplar" else checkpoints.sd1()
    for part, method in (("vae", "encode"), ("vae", "decode"), ("encoder", "forward")):
        if hasattr(pipe, part):
            counting(getattr(pipe, part), method)
    own = dict(image=image.expand(5, -1, -1, -1), reference=[image] * 5)
    call(name, pipe=pipe, prompt="red", **own, n=5, batch=2, steps=2)
    assert sizes and max(sizes) == 2


@pytest.mark.parametrize("name", [*DRAWING, "reconstruct"])
def test_an_option_that_a_method_does_not_have_is_named(name):
    with pytest.raises(TypeError, match=f"{name} has no option 'sharpness'; it has .*steps"):
        call(name, unknown=["sharpness"])


@pytest.mark.parametrize("name", [*EDITING, "invert", "layout", "repaint", "reword"])
@pytest.mark.parametrize("wrong", ["judge", "clip", "name"])
def test_an_object_that_is_no_pipeline_is_named_first(name, wrong):
    objects = {"judge": torch.nn.Linear(1, 1), "name": "tinyworld"}
    objects["clip"] = colour_clip.ColourClip(colour_clip.ColourModel())
    given, kind = objects[wrong], "model" if name in ("blended", "clip_guided") else "pipe"
    what = "the name 'tinyworld'" if wrong == "name" else f"a {type(given).__name__}"
    with pytest.raises(ValueError, match=what) as refused:
        call(name, **{kind: given})
    assert "bl.load('tinyworld" in str(refused.value)


@pytest.mark.parametrize("name", ["invert", "layout", "repaint", "reword"])
def test_a_model_that_reads_no_texts_is_named(name):
    exemplars = bl.load("tinyworld-exemplar", device="cpu")
    with pytest.raises(ValueError, match=r"^ExemplarPipeline reads no texts: pass bl.load\("):
        call(name, pipe=exemplars)


@pytest.mark.parametrize("name", ["blended_latent", "blended", "clip_guided", "paint_by_word"])
def test_a_clip_that_is_a_name_is_refused_before_the_edit(name):
    with pytest.raises(ValueError, match=r"clip is the name 'ViT-B-32'.*load_clip\('ViT-B-32'\)"):
        call(name, clip="ViT-B-32")
    with pytest.raises(ValueError, match="clip is a Linear, which cannot compare"):
        call(name, clip=torch.nn.Linear(1, 1))


@pytest.mark.parametrize("name", EDITING)
@pytest.mark.parametrize(
    "bad, sentence",
    [
        (dict(n=1.5), "n is 1.5, not an integer"),
        (dict(n=10**21), "its pictures alone take .* GB"),
        (dict(batch=0), "batch is 0; how many are made at once"),
        (dict(first=-1), "first is -1"),
        (dict(seed=None), "seed is None, not an integer"),
        (dict(seed=torch.Generator()), "generator.initial_seed"),
    ],
)
def test_counts_and_seeds_are_checked_by_each_method(name, bad, sentence):
    with pytest.raises(ValueError, match=sentence):
        call(name, **bad)


def test_too_many_pictures_are_refused_with_the_memory_they_take():
    with pytest.raises(ValueError, match="n is 100000, and its pictures alone take .* GB.*first="):
        call(
            "blended_latent",
            n=100_000,
            image=torch.zeros(1, 3, 512, 512),
            mask=torch.ones(1, 1, 512, 512),
        )
