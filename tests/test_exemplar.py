"""Paint by Example: equal to diffusers' pipeline, its nine channels in order, and what is kept
outside the mask.
"""

import inspect
import json
import shutil
from dataclasses import fields, replace
from itertools import product
from types import SimpleNamespace

import checkpoints
import pytest
import torch
from diffusers import DDIMScheduler
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import CLIPVisionConfig

import blendlab as bl
from blendlab import images, masks
from blendlab.guidance import cfg, denoiser
from blendlab.latents import encode
from blendlab.networks.exemplar import ExemplarEncoder, ExemplarPipeline, take_weights, vision_tower
from blendlab.noise import Noise
from blendlab.papers.exemplar import PRESETS, Painting, exemplar, nine_channels, see
from blendlab.schedule import Schedule


def build(seed=0, tokens="class", **unet):
    """The published layout with random weights: a ViT of 5 layers, so that the mapper has one
    block.
    """
    torch.manual_seed(seed)
    config = CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=5,
        num_attention_heads=2,
        image_size=32,
        patch_size=8,
        projection_dim=32,
        tokens=tokens,
    )
    scheduler = DDIMScheduler(
        **checkpoints.BETAS, clip_sample=False, set_alpha_to_one=False, steps_offset=1
    )
    net = checkpoints.unet(attention_head_dim=8, **{"in_channels": 9, "out_channels": 4} | unet)
    pipe = ExemplarPipeline(
        checkpoints.autoencoder(0.18215), net, ExemplarEncoder(config), scheduler
    )
    return pipe.to("cpu", torch.float32)


@pytest.fixture(scope="module")
def pipe():
    return build()


@pytest.fixture(scope="module")
def image():
    return torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.fixture(scope="module")
def mask():
    mask = torch.zeros(1, 1, 64, 64)
    mask[..., 16:48, 8:40] = 1
    return mask


@pytest.fixture(scope="module")
def reference():
    return torch.rand(1, 3, 40, 24, generator=torch.Generator().manual_seed(1)) * 2 - 1


QUICK = dict(steps=3, w=3.0)


class Heard:
    """Notes what a UNet is given, on its way to it."""

    def __init__(self, monkeypatch, unet):
        self.inputs, self.conditions = [], []
        forward = unet.forward

        def noting(x, t, encoder_hidden_states, **rest):
            self.inputs.append(x)
            self.conditions.append(encoder_hidden_states)
            return forward(x, t, encoder_hidden_states, **rest)

        monkeypatch.setattr(unet, "forward", noting)


# The published pipeline


def test_equals_the_diffusers_pipeline(pipe, image, mask, monkeypatch):
    diffusers = pytest.importorskip("diffusers")
    if not hasattr(diffusers, "PaintByExamplePipeline"):
        pytest.skip("this diffusers has no PaintByExamplePipeline")
    from transformers import CLIPImageProcessor

    encoder = inspect.getmodule(diffusers.PaintByExamplePipeline).PaintByExampleImageEncoder(
        pipe.encoder.config
    )
    take_weights(encoder, pipe.encoder.state_dict())  # every name is theirs
    theirs = diffusers.PaintByExamplePipeline(
        pipe.vae, encoder.eval(), pipe.unet, pipe.scheduler, safety_checker=None,
        feature_extractor=CLIPImageProcessor(), requires_safety_checker=False,
    )  # fmt: skip
    theirs.set_progress_bar_config(disable=True)
    monkeypatch.setattr(
        DiagonalGaussianDistribution, "sample", lambda self, generator=None: self.mode()
    )

    square = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(2)) * 2 - 1
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (pipe.mean, pipe.std))
    wanted = theirs(
        ((square + 1) / 2 - mean) / std, image, mask, num_inference_steps=5, guidance_scale=5.0,
        num_images_per_prompt=2, latents=Noise(7, 2, "initial")((4, 8, 8)), output_type="latent",
    ).images  # fmt: skip
    ours = exemplar(
        pipe, image, mask, square, preset="diffusers", posterior="mode", steps=5, n=2, seed=7
    )
    # float32: five steps with a guidance of 5 and the division by a = 0.07 magnify the networks'
    # rounding
    torch.testing.assert_close(ours.latents, wanted, rtol=0, atol=1e-4)
    assert wanted.std() > 0.1


def test_a_saved_checkpoint_comes_back_through_load_with_its_numbers(
    pipe, image, mask, reference, tmp_path
):
    replace(pipe, mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.2)).save_pretrained(tmp_path)
    card = {"size": 64, "settings": {"exemplar": {"w": 2.0, "steps": 2}}}
    (tmp_path / "blendlab.json").write_text(json.dumps(card))
    loaded = bl.load(tmp_path, device="cpu")
    assert isinstance(loaded, ExemplarPipeline) and (loaded.mean, loaded.std) == (
        (0.5, 0.4, 0.3),
        (0.2, 0.2, 0.2),
    )
    torch.testing.assert_close(
        loaded.encoder.state_dict(), pipe.encoder.state_dict(), rtol=0, atol=0
    )
    torch.testing.assert_close(loaded.unet.state_dict(), pipe.unet.state_dict(), rtol=0, atol=0)
    assert not any(weight.requires_grad for weight in loaded.unet.parameters())
    edit = exemplar(loaded, image, mask, reference)
    assert (edit.settings["w"], edit.settings["steps"]) == (2.0, 2)
    assert (
        bl.load(tmp_path, device="cpu", dtype=torch.bfloat16).encoder.uncond_vector.dtype
        == torch.bfloat16
    )


def test_parts_that_a_folder_leaves_out_are_lent_by_others(pipe, tmp_path):
    visual = checkpoints.open_clip_folder(tmp_path / "clip").visual
    lender = replace(pipe, encoder=ExemplarEncoder(vision_tower(visual).config, 16))
    lender.save_pretrained(tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "part")
    shutil.move(tmp_path / "part" / "vae", tmp_path / "vae")
    file = tmp_path / "part" / "image_encoder" / "model.safetensors"
    weights = load_file(file)
    save_file({key: value for key, value in weights.items() if not key.startswith("model.")}, file)
    whole = ExemplarPipeline.from_folder(tmp_path / "whole", clip=tmp_path / "nowhere")
    part = ExemplarPipeline.from_folder(tmp_path / "part", tmp_path / "vae", tmp_path / "clip")
    for mine, theirs in (
        (part.vae, whole.vae),
        (part.unet, whole.unet),
        (part.encoder.mapper, whole.encoder.mapper),
    ):
        torch.testing.assert_close(mine.state_dict(), theirs.state_dict(), rtol=0, atol=0)
    pixels = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        seen = part.encoder.model(pixel_values=pixels).pooler_output @ visual.proj
        torch.testing.assert_close(seen, visual(pixels), rtol=0, atol=1e-5)


def test_weights_load_from_bin_files_and_with_the_names_of_any_transformers(pipe, tmp_path):
    pipe.save_pretrained(tmp_path)
    weights = tmp_path / "image_encoder" / "model.safetensors"
    weights.unlink()
    bare = {
        key.replace("vision_model.", ""): value for key, value in pipe.encoder.state_dict().items()
    }
    bare["model.embeddings.position_ids"] = torch.arange(17)[None]
    torch.save(bare, weights.with_name("pytorch_model.bin"))
    loaded = bl.load(tmp_path, device="cpu")
    torch.testing.assert_close(
        loaded.encoder.state_dict(), pipe.encoder.state_dict(), rtol=0, atol=0
    )


def test_a_repository_is_fetched_part_by_part_and_opened(pipe, tmp_path, monkeypatch):
    pipe.save_pretrained(tmp_path)
    files, asked = [file.relative_to(tmp_path).as_posix() for file in tmp_path.rglob("*.*")], []
    hub = SimpleNamespace(siblings=[SimpleNamespace(rfilename=file) for file in files])
    monkeypatch.setattr("huggingface_hub.model_info", lambda repository, revision: hub)

    def snapshot_download(repository, revision, allow_patterns):
        asked.append(allow_patterns)
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    loaded = bl.load("someone/paint-by-example", device="cpu")
    assert (
        isinstance(loaded, ExemplarPipeline) and loaded.name_or_path == "someone/paint-by-example"
    )
    assert asked[0] == ["model_index.json", "unet/config.json"] and set(asked[1]) == set(files)


def test_only_the_parts_that_are_needed_are_fetched():
    from blendlab.networks.folders import EXEMPLAR, Plan
    from blendlab.networks.load import _wanted

    name = "diffusion_pytorch_model"
    files = ["model_index.json", "README.md", "unet/config.json", "safety_checker/config.json"]
    files += [f"unet/{name}.{kind}" for kind in ("bin", "safetensors", "fp16.safetensors")]
    files += [f"vae/{name}.bin", "image_encoder/config.json", "unet/evil.py"]
    wanted = {"model_index.json", "unet/config.json", "image_encoder/config.json"}
    wanted |= {f"unet/{name}.safetensors", f"vae/{name}.bin"}
    assert set(_wanted(files, Plan(EXEMPLAR, {}, {}), half=False)) == wanted


# The nine channels


def test_the_channels_are_noisy_latent_then_masked_latent_then_mask(
    pipe, image, mask, reference, monkeypatch
):
    heard = Heard(monkeypatch, pipe.unet)
    exemplar(pipe, image, mask, reference, seed=3, **QUICK)
    noisy, holed, keep = heard.inputs[0].split([4, 4, 1], dim=1)
    torch.testing.assert_close(noisy[:1], Noise(3, 1, "initial")((4, 8, 8)))
    torch.testing.assert_close(
        holed[:1], encode(pipe.vae, image * (1 - mask))
    )  # the hole is grey, 0
    torch.testing.assert_close(
        keep[:1], 1 - masks.to_latent(mask, (8, 8), "corner")
    )  # inside, 1 = keep


@pytest.mark.parametrize(
    "group, follows", [((0, 4), {"seed"}), ((4, 8), {"image", "mask"}), ((8, 9), {"mask"})]
)
def test_a_network_that_looks_at_one_group_of_channels_follows_only_what_is_there(
    image, mask, reference, group, follows
):
    pipe = build()
    seen = torch.zeros_like(pipe.unet.conv_in.weight)
    seen[:, slice(*group)] = pipe.unet.conv_in.weight[:, slice(*group)]
    pipe.unet.conv_in.weight.copy_(
        seen
    )  # in another order of the channels other inputs would move it
    said = []
    pipe.unet.register_forward_hook(lambda net, inputs, result: said.append(result.sample))
    same = dict(image=image, mask=mask, seed=0)
    for change in (
        same,
        same | {"image": image.flip(-1)},
        same | {"mask": mask.roll(8, -1)},
        same | {"seed": 1},
    ):
        exemplar(pipe, reference=reference, steps=1, w=1.0, **change)
    moved = {
        name
        for name, output in zip(same, said[1:], strict=True)
        if not torch.equal(output, said[0])
    }
    assert moved == follows


def test_the_mask_channel_is_nearest_or_bilinear(pipe, image, reference, monkeypatch):
    heard, slanted = Heard(monkeypatch, pipe.unet), torch.ones(64, 64).tril()[None, None]
    for mode, values in (("nearest", {0.0, 1.0}), ("bilinear", {0.0, 0.25, 1.0})):
        exemplar(pipe, image, slanted, reference, mask_channel=mode, **QUICK)
        assert set(heard.inputs[-1][:, -1].unique().tolist()) == values


# Guidance


def test_w_1_is_the_conditional_prediction_and_w_0_the_null_vectors(
    pipe, image, mask, reference, monkeypatch
):
    heard = Heard(monkeypatch, pipe.unet)
    exemplar(pipe, image, mask, reference, steps=3, w=3.0)
    # one call a step, both conditions in it
    assert len(heard.inputs) == 3 and len(heard.inputs[0]) == 2
    null, said = heard.conditions[0]
    torch.testing.assert_close(null[None], pipe.encoder.uncond_vector)
    x, beside = heard.inputs[0][:1, :4], heard.inputs[0][:1, 4:]

    net = denoiser(nine_channels(pipe.unet), Schedule.from_scheduler(pipe.scheduler))
    text, nothing = ({"encoder_hidden_states": c[None], "beside": beside} for c in (said, null))
    with torch.no_grad():
        c, u = (net(x, 600, condition).x0_hat for condition in (text, nothing))
        for w, wanted in ((1.0, c), (0.0, u), (3.0, u + 3 * (c - u))):
            torch.testing.assert_close(
                cfg(net, text, nothing, w)(x, 600).x0_hat, wanted, rtol=1e-4, atol=1e-4
            )
    assert not torch.allclose(c, u)


def test_all_tokens_or_the_class_token_reach_the_network(image, mask, reference, monkeypatch):
    for tokens, length in (("class", 1), ("all", 17)):
        pipe = build(tokens=tokens)
        heard = Heard(monkeypatch, pipe.unet)
        exemplar(pipe, image, mask, reference, **QUICK)
        assert heard.conditions[0].shape == (2, length, 32)


# Results


def test_several_pictures_masks_and_references_go_in_one_batch(pipe, image, mask, reference):
    pictures, holes = torch.cat([image, image.flip(-1)]), torch.cat([mask, mask.flip(-1)])
    references = [reference, bl.images.to_pil(image)[0]]  # of two sizes
    both = exemplar(pipe, pictures, holes, references, n=2, **QUICK)
    first = exemplar(pipe, pictures[:1], holes[:1], reference, **QUICK)
    torch.testing.assert_close(both.latents[:1], first.latents, rtol=0, atol=1e-4)


def test_in_a_window_the_network_sees_the_square_alone(pipe, reference, monkeypatch):
    pictures = torch.rand(3, 3, 96, 128, generator=torch.Generator().manual_seed(5)) * 2 - 1
    wide = torch.zeros(3, 1, 96, 128)
    wide[0, :, 8:24, 104:128] = 1
    wide[1, :, 72:96, 0:16] = 1
    wide[2, :, 8:90, 8:120] = 1  # needs the whole picture
    how = dict(window=32, blend=True, posterior="sample", seed=4) | QUICK
    together = exemplar(pipe, pictures, wide, reference, n=3, **how)
    source = encode(
        pipe.vae, pictures, Noise(4, [0] * 3, "posterior", shape=together.latents.shape[1:])()
    )
    outside = masks.to_latent(wide, source.shape[-2:], "any").expand_as(source) == 0
    assert torch.equal(together.latents[outside], source[outside])
    sizes, forward = [], pipe.unet.forward
    monkeypatch.setattr(
        pipe.unet, "forward", lambda x, *a, **k: sizes.append(tuple(x.shape)) or forward(x, *a, **k)
    )
    for i in range(3):
        one = exemplar(pipe, pictures[[i]], wide[[i]], reference, first=i, **how)
        torch.testing.assert_close(together.latents[[i]], one.latents, atol=1e-5, rtol=1e-4)
        assert together.settings["square"][i] == one.settings["square"][0]
    factor = pipe.vae_scale_factor
    assert sizes[0] == (2, 9, 32 // factor, 32 // factor)
    assert sizes[-1] == (2, 9, 96 // factor, 128 // factor)
    whole = exemplar(pipe, pictures[[2]], wide[[2]], reference, first=2, **how | {"window": 0})
    assert torch.equal(one.latents, whole.latents)
    assert "square" not in whole.settings


def test_published_settings_paint_the_whole_picture(pipe, image, mask, reference, monkeypatch):
    recommended = {"w": 2.0, "steps": 3, "skip": 0.0, "eta": 0.0, "window": 32}
    monkeypatch.setattr("blendlab.cards.settings", lambda *_: recommended)
    assert exemplar(pipe, image, mask, reference).settings["window"] == 32
    for how in ({"preset": "official", "steps": 3}, {"window": 0}):
        assert exemplar(pipe, image, mask, reference, **how).settings["window"] == 0


def test_outside_the_mask_is_what_blend_and_paste_promise(pipe, image, mask, reference):
    source, outside = encode(pipe.vae, image), mask.expand(1, 3, 64, 64) == 0
    kept = masks.to_latent(mask, (8, 8), "any").expand(1, 4, 8, 8) == 0
    plain, blended, pasted, both = (
        exemplar(pipe, image, mask, reference, blend=blend, paste=paste, **QUICK)
        for paste, blend in product((False, True), repeat=2)
    )
    assert torch.equal(blended.latents[kept], source[kept])
    assert not torch.isclose(blended.latents[~kept], source[~kept]).any()
    assert torch.equal(pasted.tensor[outside], image[outside])
    assert torch.equal(pasted.tensor[~outside], plain.tensor[~outside])
    assert not torch.isclose(plain.latents[kept], source[kept]).all()
    assert torch.equal(both.latents, blended.latents)
    assert torch.equal(both.tensor, bl.blend(mask, edit=blended.tensor, keep=image))


def test_numbers_come_from_the_caller_then_the_preset_then_the_published_code(
    pipe, image, mask, reference
):
    used = exemplar(
        pipe, image, mask, reference, preset=Painting(steps=2), skip=0.5, w=1.0
    ).settings
    assert (used["steps"], used["skip"], used["w"], used["eta"]) == (2, 0.5, 1.0, 0.0)
    assert {f.name for f in fields(Painting)} <= used.keys()
    assert (PRESETS["official"].w, PRESETS["official"].steps, PRESETS["official"].mask_channel) == (
        5.0,
        50,
        "bilinear",
    )


# References


def test_a_reference_is_squashed_to_the_encoders_square_as_pil_does(reference):
    (picture,) = bl.images.to_pil(
        reference / 2
    )  # less contrast, as PIL clips between its two passes
    wanted = bl.images.image(picture.resize((32, 32), Image.Resampling.BICUBIC))
    assert (
        see(picture, 32) - wanted
    ).abs().max() < 2 / 127.5  # two grey levels: it rounds there too
    tensor = bl.images.image(picture)
    torch.testing.assert_close(see(picture, 32), see(tensor, 32))
    torch.testing.assert_close(see(wanted, 32), wanted, rtol=0, atol=0)


def test_a_see_through_reference_goes_on_grey():
    rgba = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    rgba.paste((0, 255, 0, 255), (0, 0, 4, 8))
    seen = see(rgba, 8)
    assert torch.equal(seen[..., 4:], torch.zeros(1, 3, 8, 4))
    assert torch.equal(seen[0, :, 0, 0], torch.tensor([-1.0, 1.0, -1.0]))


def test_an_enormous_reference_is_refused_before_it_is_unpacked(monkeypatch):
    monkeypatch.setattr(images, "MOST", 100)
    with pytest.raises(ValueError, match="reference is 11x10, more than .*: shrink it"):
        see(Image.new("RGB", (11, 10)), 8)


def test_a_region_of_another_picture_is_a_reference(image):
    part = see(image, 32, region=(0.5, 0.25, 1.0, 0.75))
    assert torch.equal(part, image[..., 16:48, 32:])


PLAIN, THIN = Image.new("RGB", (32, 32), "red"), torch.zeros(1, 1, 64, 64)
THIN[..., 1] = 1


@pytest.mark.parametrize("channel", ["nearest", "bilinear"])
def test_a_part_that_the_mask_channel_loses_is_named(pipe, image, reference, channel):
    mask = torch.zeros(1, 1, 64, 64)
    mask[..., 16:48, 16:48] = mask[..., 4:6, 5:7] = 1
    with pytest.warns(UserWarning, match="4 pixels of the mask .* vanish.*paint them thicker$"):
        exemplar(pipe, image, mask, reference, steps=1, w=1.0, mask_channel=channel)


def test_a_mask_rule_without_blending_is_said_to_do_nothing(pipe, image, mask, reference):
    with pytest.warns(UserWarning, match="mask_rule= is for blend=True"):
        exemplar(pipe, image, mask, reference, steps=1, w=1.0, mask_rule="area")


BAD = [
    (dict(reference=Image.new("RGBA", (8, 8), (255, 0, 0, 0))), "transparent everywhere"),
    (dict(reference=PLAIN), "one colour"),
    (dict(reference=[]), "an empty list"),
    (dict(reference=torch.zeros(1, 3, 8, 8)), "one colour"),
    (dict(reference=Image.new("RGB", (0, 8))), "holds no pixel"),
    (dict(reference=torch.zeros(1, 3, 0, 8)), "holds no pixel"),
    (dict(reference=torch.rand(1, 4, 8, 8)), "three channels"),
    (dict(region=(0, 0, 64, 64)), "fractions"),
    (dict(region=(0.5, 0, 0.2, 1)), "is empty"),
    (dict(reference=torch.rand(3, 3, 8, 8), n=2), "reference holds 3 for n=2"),
    (dict(image=torch.zeros(1, 3, 60, 60)), "multiples of 8"),
    (dict(mask=torch.zeros(1, 1, 64, 64)), "black everywhere"),
    (dict(mask=THIN), "vanishes at latent size"),
    (dict(preset="oficial"), "official, diffusers"),
    (dict(paste="latent"), "True or False"),
    (dict(mask_channel="area"), "'nearest' or 'bilinear'"),
    (dict(n=0), "1 or more"),
    (dict(steps=0), "1 to 1000"),
]


@pytest.mark.parametrize("given, sentence", BAD, ids=[sentence for _, sentence in BAD])
def test_bad_input_is_refused_before_any_network_runs(
    pipe, image, mask, reference, monkeypatch, given, sentence
):
    def ran(*args, **kwargs):
        raise AssertionError("a network ran")

    for network in (pipe.unet, pipe.vae.encoder, pipe.encoder.model):
        monkeypatch.setattr(network, "forward", ran)
    with pytest.raises(ValueError, match=sentence):
        exemplar(**dict(pipe=pipe, image=image, mask=mask, reference=reference) | given)


@pytest.mark.parametrize("reference, kind", [(7, "an int"), (None, "None")])
def test_what_is_not_a_picture_is_refused(pipe, image, mask, reference, kind):
    with pytest.raises(TypeError, match=f"reference is {kind}"):
        exemplar(pipe, image, mask, reference)
    with pytest.raises(TypeError, match="no option 'pastes'; it has mask_channel, blend, paste"):
        exemplar(pipe, image, mask, reference, pastes="latent")


def test_a_checkpoint_with_other_channels_is_refused(image, mask, reference, tmp_path):
    four = build(in_channels=4)
    with pytest.raises(ValueError, match="takes 4 channels, not 9"):
        exemplar(four, image, mask, reference)
    four.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="takes 4 channels, not 9"):
        bl.load(tmp_path)
    with pytest.raises(ValueError, match="no encoder for exemplars.*tinyworld-exemplar"):
        exemplar(checkpoints.pixel(), image, mask, reference)


# Training


def test_a_converted_image_tower_sees_what_open_clip_sees(tmp_path):
    visual = checkpoints.open_clip_folder(tmp_path).visual
    with torch.no_grad():
        for weight in visual.parameters():
            weight.add_(0.02 * torch.randn_like(weight))  # biases too, which start at zero
        pixels = torch.randn(2, 3, 32, 32)
        seen = vision_tower(visual)(pixel_values=pixels).pooler_output @ visual.proj
        torch.testing.assert_close(seen, visual(pixels), rtol=0, atol=1e-5)


def test_holes_cover_their_boxes_and_half_of_them_are_not_boxes():
    from blendlab.training.exemplar import hole

    g = torch.Generator().manual_seed(0)
    box = torch.tensor([0.25, 0.25, 0.75, 0.5]).expand(200, 4)
    mask = hole(box, torch.rand(200, 9, generator=g), torch.rand(200, 4, 18, generator=g), 64)
    assert mask[:, 0, 17:31, 17:47].min() == 1 and set(mask.unique().tolist()) == {0.0, 1.0}
    # 0.25 * 64 = 16 rows above, of which 40% may go, and a pixel of trembling
    assert mask[:, :, :9].max() == 0
    boxes = torch.stack([m.sum() == m.any(1).sum() * m.any(0).sum() for m in mask[:, 0]])
    assert 0.35 < boxes.float().mean() < 0.65
    exact = hole(box[:1], torch.zeros(1, 9), torch.full((1, 4, 18), 0.5), 64)
    assert torch.equal(exact, masks.from_box((0.25, 0.25, 0.75, 0.5), (64, 64)))


def test_augmentations_are_drawn_for_each_reference_alone():
    from blendlab.training.exemplar import augmented

    pieces, g = (
        torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0)),
        torch.Generator().manual_seed(1),
    )
    u, bend = torch.full((4, 6), 0.9), torch.randn(4, 2, 4, 4, generator=g)
    torch.testing.assert_close(
        augmented(pieces, u, bend), pieces, atol=1e-5, rtol=0
    )  # nothing is drawn
    u[1, 0] = 0.1
    torch.testing.assert_close(augmented(pieces, u, bend)[1], pieces[1].flip(-1), atol=1e-5, rtol=0)
    for which in (1, 3, 5):  # turned, bent, blurred
        u = torch.full((4, 6), 0.9)
        u[2, which] = 0.1
        changed = (augmented(pieces, u, bend) - pieces).abs().amax((1, 2, 3)) > 1e-3
        assert changed.tolist() == [False, False, True, False]


def test_a_piece_is_cut_out_with_a_little_around_it():
    from blendlab.training.exemplar import cut

    small = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    image = torch.nn.functional.interpolate(small, (64, 64), mode="bilinear")
    box = torch.tensor([[10, 20, 22, 40]]) / 64
    piece = cut(image, box, 64)
    wanted = see(image[..., 18:42, 8:24], 64)  # two pixels: a fiftieth of 64, rounded up
    assert piece.shape == (1, 3, 64, 64) and (piece - wanted).abs().mean() < 0.03
