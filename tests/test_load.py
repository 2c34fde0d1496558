"""load: the three layouts from a folder, names that lead nowhere, the hub, and what a model
recommends.
"""

import contextlib
import json
import logging
import random
import shutil
import socket
from pathlib import Path
from types import SimpleNamespace

import checkpoints
import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline

import blendlab as bl
from blendlab import cards
from blendlab.cards import KNOWN, SHIPPED, WEIGHTS, card, settings
from blendlab.networks import folders
from blendlab.networks import load as networks
from blendlab.networks.clip import load_clip
from blendlab.networks.load import load


@pytest.fixture(scope="session")
def saved(tmp_path_factory):
    """One small checkpoint of each layout, {name: (folder, the pipeline that was saved there)}."""
    root = tmp_path_factory.mktemp("checkpoints")
    builders = [checkpoints.sd1, checkpoints.sd2, checkpoints.sdxl]
    return {
        build.__name__: (root / build.__name__, build(root / build.__name__)) for build in builders
    }


@pytest.fixture
def offline(monkeypatch):
    """Any look at the network is recorded, and fails."""
    looks = []

    def refuse(*args, **kwargs):
        looks.append(args)
        raise OSError("a test looked at the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    return looks


def one_step(pipe):
    """The network's output for one latent and one prompt, as any loop would ask for it."""
    latent = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    text, _, *pooled = pipe.encode_prompt(
        "a red cat", device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=False
    )
    added = None
    if pooled:  # SDXL: the pooled text, and (original size, crop corner, target size)
        added = {
            "text_embeds": pooled[0],
            "time_ids": torch.tensor([[64.0, 64.0, 0.0, 0.0, 64.0, 64.0]]),
        }
    return pipe.unet(latent, 500, encoder_hidden_states=text, added_cond_kwargs=added).sample


# -- Folders
# ------------------------------------------------------------


@pytest.mark.parametrize(
    "name, kind, prediction, factor",
    [
        ("sd1", StableDiffusionPipeline, "epsilon", 0.18215),
        ("sd2", StableDiffusionPipeline, "v_prediction", 0.18215),
        ("sdxl", StableDiffusionXLPipeline, "epsilon", 0.13025),
    ],
)
def test_a_folder_of_each_layout_loads_and_runs_one_step(
    saved, offline, name, kind, prediction, factor
):
    folder, original = saved[name]
    pipe = load(folder)
    assert type(pipe) is kind
    assert pipe.scheduler.config.prediction_type == prediction
    assert pipe.vae.config.scaling_factor == factor
    assert one_step(pipe).isfinite().all()
    torch.testing.assert_close(one_step(pipe), one_step(original))
    assert not offline


def test_the_layouts_differ_where_the_real_ones_do(saved):
    sd1, sd2, sdxl = (saved[name][1] for name in ("sd1", "sd2", "sdxl"))
    assert (
        sd2.text_encoder.config.hidden_act == "gelu"
        and sd1.text_encoder.config.hidden_act == "quick_gelu"
    )
    assert sd2.unet.config.use_linear_projection and sd2.unet.config.attention_head_dim == [2, 4]
    assert sdxl.vae.config.force_upcast and sdxl.unet.config.addition_embed_type == "text_time"
    assert sdxl.text_encoder_2.config.projection_dim == 32
    assert sd1.tokenizer("a red cat").input_ids == [
        49406,
        320,
        736,
        2368,
        49407,
    ]  # as open_clip says


def test_a_folder_opens_to_the_same_pipeline_without_blendlab(saved):
    folder, _ = saved["sd1"]
    theirs = StableDiffusionPipeline.from_pretrained(folder, local_files_only=True)
    ours = load(folder, device="cpu")
    for part in ("unet", "vae", "text_encoder"):
        pairs = zip(
            getattr(theirs, part).parameters(), getattr(ours, part).parameters(), strict=True
        )
        assert all(torch.equal(one, other) for one, other in pairs)
    assert theirs.scheduler.config == ours.scheduler.config
    assert theirs.tokenizer("a red cat").input_ids == ours.tokenizer("a red cat").input_ids


def test_a_loaded_model_is_frozen_in_inference_mode_and_silent(saved, capfd):
    folder, _ = saved["sdxl"]
    pipe = load(folder)
    parts = [part for part in pipe.components.values() if isinstance(part, torch.nn.Module)]
    assert len(parts) == 4 and not any(part.training for part in parts)
    assert not any(weight.requires_grad for part in parts for weight in part.parameters())
    load(saved["sd1"][0])("a cat", height=64, width=64, num_inference_steps=2)
    assert capfd.readouterr() == ("", "")


def test_loading_puts_the_progress_bars_back(saved):
    from diffusers.utils import logging

    logging.enable_progress_bar()
    load(saved["sd1"][0])
    assert logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    load(saved["sd1"][0])
    assert not logging.is_progress_bar_enabled()
    logging.enable_progress_bar()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_come_in_the_type_asked_for(saved, dtype):
    pipe = load(saved["sd1"][0], device="cpu", dtype=dtype)
    assert pipe.unet.dtype == pipe.vae.dtype == pipe.text_encoder.dtype == dtype


def test_a_folder_with_only_half_precision_files_loads_in_float32(saved, tmp_path):
    saved["sd1"][1].save_pretrained(tmp_path, variant="fp16")
    assert load(tmp_path, device="cpu").unet.dtype == torch.float32


def test_the_gpu_gets_half_precision_except_for_shipped_networks(monkeypatch, saved, tmp_path):
    asked = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(
        networks, "_open", lambda folder, device, dtype: asked.append((device.type, dtype))
    )
    monkeypatch.setattr(networks, "WEIGHTS", tmp_path)
    (tmp_path / "tinyworld").mkdir()
    load(saved["sd1"][0])
    load("tinyworld")
    load(saved["sd1"][0], device="mps")
    assert asked == [("cuda", torch.float16), ("cuda", torch.float32), ("mps", torch.float32)]


# -- Folders and names that are no use
# ------------------------------------------------------------


def test_an_inpainting_folder_opens_for_comparison_and_no_method_blends_with_it(tmp_path, image):
    theirs = checkpoints.inpainting(tmp_path)
    pipe = load(tmp_path)
    assert type(pipe) is type(theirs) and pipe.safety_checker is None
    for name, was in theirs.unet.state_dict().items():
        assert torch.equal(pipe.unet.state_dict()[name], was)
    with pytest.raises(ValueError, match="UNet takes 9 channels, a latent has 4"):
        bl.blended_latent(pipe, image, torch.ones(1, 1, 64, 64), "a cat")


@pytest.mark.parametrize(
    "files, message",
    [
        ({}, "has no model_index.json"),
        (
            {"model_index.json": {"_class_name": "FluxPipeline"}},
            "holds a FluxPipeline; blendlab runs Stable",
        ),
    ],
)
def test_a_folder_of_another_kind_is_refused_by_name(tmp_path, files, message):
    for name, content in files.items():
        (tmp_path / name).write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message):
        load(tmp_path)


def test_a_folder_without_safetensors_is_refused(saved, tmp_path):
    folder = shutil.copytree(saved["sd1"][0], tmp_path / "copy")
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    torch.save({}, weights.with_suffix(".bin"))
    weights.unlink()
    with pytest.raises(OSError, match="safetensors"):
        load(folder)


def test_a_single_file_says_how_to_convert_it(tmp_path):
    (tmp_path / "v1-5.safetensors").touch()
    with pytest.raises(ValueError, match="from_single_file"):
        load(str(tmp_path / "v1-5.safetensors"))


@pytest.mark.parametrize(
    "name",
    [
        "./sd15",
        "../models/sd15",
        "/no/such/folder",
        "~/no-such-folder",
        "a/b/c",
        "",
        "models/sd15",
        "C:\\models\\sd15",
        "no such/model",
        Path("sd15-copy"),
    ],
)
def test_a_path_that_leads_nowhere_is_never_tried_on_the_hub(name, offline, tmp_path, monkeypatch):
    (tmp_path / "models").mkdir()  # so that "models/sd15" is a folder that was forgotten
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        (FileNotFoundError, ValueError), match="there is no folder|model_index.json"
    ):
        load(name)
    assert not offline


@pytest.mark.parametrize(
    "name, near", [("sd1.5", "sd15"), ("SDXL", "sdxl"), ("tinywrld", "tinyworld"), ("qqq", None)]
)
def test_an_unknown_name_gets_the_list_and_the_nearest(name, near):
    with pytest.raises(ValueError, match=f"unknown model '{name}'") as caught:
        load(name)
    assert near is None or f"did you mean '{near}'?" in str(caught.value)
    assert all(known in str(caught.value) for known in [*SHIPPED, *KNOWN])


@pytest.mark.parametrize("name, command", SHIPPED.items())
def test_a_network_that_did_not_ship_names_the_command_that_makes_it(
    monkeypatch, tmp_path, name, command
):
    monkeypatch.setattr(networks, "WEIGHTS", tmp_path)
    with pytest.raises(
        FileNotFoundError, match=f"{name} is not in this copy .*; make it with `{command}`"
    ):
        load(name)


def test_a_shipped_name_means_the_folder_in_the_package(monkeypatch, saved, tmp_path):
    (tmp_path / "tinyworld").symlink_to(saved["sd1"][0])
    monkeypatch.setattr(networks, "WEIGHTS", tmp_path)
    assert load("tinyworld").name_or_path == tmp_path / "tinyworld"


# -- The hub
# ------------------------------------------------------------


@pytest.fixture
def hub(monkeypatch, saved):
    """A hub that holds the small sd1 under the names in `there`; it notes what is asked of it."""
    hub = SimpleNamespace(there=set(), folder=saved["sd1"][0], asked=[], downloads=[])

    def model_info(repository, revision):
        hub.asked.append((repository, revision))
        if repository not in hub.there:
            raise ConnectionError(f"{repository} is gone")
        files = [file.relative_to(hub.folder).as_posix() for file in hub.folder.rglob("*.*")]
        return SimpleNamespace(siblings=[SimpleNamespace(rfilename=file) for file in files])

    def snapshot_download(repository, revision, local_files_only=False, allow_patterns=None):
        if local_files_only:
            raise FileNotFoundError("not in the cache")
        hub.downloads.append(allow_patterns)
        return str(hub.folder)

    monkeypatch.setattr("huggingface_hub.model_info", model_info)
    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    return hub


def test_a_repository_is_downloaded_without_its_filter_and_opened(hub):
    hub.there = {"someone/some-model"}
    pipe = load("someone/some-model")
    assert (
        hub.asked == [("someone/some-model", "main")] and pipe.name_or_path == "someone/some-model"
    )
    small, files = hub.downloads
    assert small == ["model_index.json", "unet/config.json"]
    weights = [file for file in files if file.endswith(".safetensors")]
    assert sorted(file.split("/")[0] for file in weights) == ["text_encoder", "unet", "vae"]
    assert any(file.startswith("tokenizer/") for file in files)
    assert not any("safety" in file for file in files)


def test_of_a_repository_only_what_is_opened_is_fetched():
    name, parts = "diffusion_pytorch_model", folders.LAYOUTS["StableDiffusionPipeline"]
    plan = folders.Plan("StableDiffusionPipeline", dict.fromkeys(parts), {})
    unet = [f"unet/{name}{kind}.safetensors" for kind in ("", ".fp16", ".non_ema")]
    others = ["v1-5.ckpt", f"unet/{name}.bin", "unet/evil.py", "safety_checker/model.safetensors"]
    files = ["model_index.json", *unet, *others, "vae/config.json", "tokenizer/merges.txt"]
    wanted = ["model_index.json", "tokenizer/merges.txt", "vae/config.json"]
    assert sorted(networks._wanted(files, plan, half=False)) == sorted([*wanted, unet[0]])
    assert sorted(networks._wanted(files, plan, half=True)) == sorted([*wanted, unet[1]])
    alone = networks._wanted([unet[1]], plan, half=False)  # better than nothing
    assert alone == [unet[1]]


def test_half_precision_is_downloaded_as_half_the_bytes(hub, saved, tmp_path):
    saved["sd1"][1].save_pretrained(tmp_path, variant="fp16")
    saved["sd1"][1].save_pretrained(tmp_path)
    hub.there, hub.folder = {"someone/some-model"}, tmp_path
    load("someone/some-model", dtype=torch.float16, device="cpu")
    weights = [file for file in hub.downloads[-1] if file.endswith(".safetensors")]
    assert len(weights) == 3 and all(".fp16." in file for file in weights)


def test_a_mirror_that_is_gone_leads_to_the_next(hub):
    hub.there = {"sd-legacy/stable-diffusion-v1-5"}
    pipe = load("sd15")
    assert tuple(hub.asked) == KNOWN["sd15"].mirrors
    assert settings(pipe, "blended_latent") == {"w": 7.5, "steps": 50, "skip": 0.25}
    assert card(pipe)["size"] == 512


def test_when_no_mirror_answers_one_sentence_says_what_was_tried_and_what_to_do(hub):
    with pytest.raises(
        OSError, match="connect to the internet, or copy the model's folder"
    ) as caught:
        load("sd15")
    assert all(repository in str(caught.value) for repository, _ in KNOWN["sd15"].mirrors)


def test_a_model_that_cannot_run_is_refused_before_it_is_downloaded(hub, tmp_path):
    checkpoints.inpainting(tmp_path)
    hub.there, hub.folder = {"someone/inpainting"}, tmp_path
    with pytest.raises(ValueError, match="9 channels"):
        load("someone/inpainting")
    assert hub.downloads == [["model_index.json", "unet/config.json"]]


def test_what_an_earlier_session_downloaded_opens_offline(saved, tmp_path, monkeypatch):
    repository, revision = KNOWN["sd15"].mirrors[0]
    root = tmp_path / f"models--{repository.replace('/', '--')}"
    shutil.copytree(saved["sd1"][0], root / "snapshots" / revision)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    pipe = load("sd15")
    assert pipe.name_or_path == repository and settings(pipe, "blended_latent")["w"] == 7.5


def test_every_known_model_is_complete():
    for name, entry in KNOWN.items():
        assert entry.mirrors and entry.licence and entry.gigabytes > 1 and entry.size >= 512, name
        assert set(entry.settings["blended_latent"]) == {"w", "steps", "skip"}, name


# -- What a model recommends
# ------------------------------------------------------------


def test_recommended_values_travel_in_the_folder_and_reach_any_pipeline_from_it(saved, tmp_path):
    folder = shutil.copytree(saved["sd1"][0], tmp_path / "copy")
    recommended = {"size": 64, "settings": {"blended_latent": {"w": 3.0}}}
    (folder / "blendlab.json").write_text(json.dumps(recommended))
    theirs = StableDiffusionPipeline.from_pretrained(folder, local_files_only=True)
    for pipe in (load(folder), load(str(folder)), theirs):
        assert settings(pipe, "blended_latent") == {"w": 3.0} and settings(pipe, "exemplar") == {}
        assert card(pipe)["size"] == 64


CARD = {"size": 64, "settings": {"blended_latent": {"w": 3.0, "steps": 3, "skip": 0.4}}}


@pytest.fixture
def with_card(saved, tmp_path, monkeypatch):
    """The process stands beside a folder "model" with a card."""
    shutil.copytree(saved["sd1"][0], tmp_path / "here" / "model")
    (tmp_path / "here" / "model" / "blendlab.json").write_text(json.dumps(CARD))
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here" / "model"


def test_recommended_values_stay_when_the_process_moves_and_the_folder_goes(
    with_card, image, tmp_path, monkeypatch
):
    pipe = load("./model", device="cpu")
    monkeypatch.chdir(tmp_path)
    shutil.rmtree(with_card)
    mask = torch.zeros(1, 1, 64, 64)
    mask[..., 16:48, 16:48] = 1
    how = bl.blended_latent(pipe, image, mask, "a red cat").settings
    assert (how["w"], how["steps"], how["skip"]) == (3.0, 3, 0.4) and card(pipe) == CARD


def test_a_model_without_a_card_never_takes_that_of_another_folder(saved, with_card, tmp_path):
    shutil.copytree(saved["sd1"][0], tmp_path / "model")
    with contextlib.chdir(tmp_path):
        pipe = load("./model", device="cpu")
    assert card(pipe) == {} and settings(pipe, "blended_latent") == {}


@pytest.mark.parametrize("name", ["sd1", "sdxl", "tinyworld", "tinyworld-pixel"])
def test_the_card_travels_with_save_pretrained(saved, name, tmp_path, caplog):
    pipe = load(saved[name][0] if name in saved else name, device="cpu")
    cards.remember(pipe, card(pipe) or CARD)
    pipe.save_pretrained(tmp_path / "new")
    again = load(tmp_path / "new", device="cpu")
    assert type(again) is type(pipe) and card(again) == card(pipe) and card(pipe)["settings"]
    weights = again.unet.state_dict()
    torch.testing.assert_close(weights, pipe.unet.state_dict(), rtol=0, atol=0)
    theirs = type(pipe).from_pretrained(tmp_path / "new", local_files_only=True)
    assert card(theirs) == card(pipe)
    assert not caplog.messages  # nobody complains of the new entry


def test_the_card_of_an_exemplar_model_travels_too(tmp_path):
    pipe = load("tinyworld-exemplar", device="cpu")
    pipe.save_pretrained(tmp_path)
    again = load(tmp_path, device="cpu")
    assert card(again) == card(pipe) and settings(again, "exemplar")["steps"] == 25


def test_the_numbers_of_a_published_model_travel_with_save_pretrained(hub, tmp_path):
    hub.there = {KNOWN["sd15"].mirrors[0][0]}
    load("sd15", device="cpu").save_pretrained(tmp_path)
    assert settings(load(tmp_path, device="cpu"), "blended_latent")["w"] == 7.5


def test_a_pipeline_built_by_hand_recommends_nothing(saved):
    assert card(saved["sd1"][1]) == {} and settings(saved["sd1"][1], "blended_latent") == {}


# -- Nothing else changes
# ------------------------------------------------------------


def state_of_the_process():
    """What loading has no business with: random generators and loggers."""
    names = ["", "diffusers", "transformers", "open_clip", "huggingface_hub"]
    loggers = [logging.getLogger(name) for name in names]
    return (
        torch.get_rng_state().tolist(),
        str(np.random.get_state()),
        random.getstate(),
        [(logger.level, logger.handlers[:], logger.filters[:]) for logger in loggers],
    )


@pytest.mark.parametrize(
    "name", [*SHIPPED, "sd1", "sd2", "sdxl", "clip", "a missing folder/", "broken"]
)
def test_loading_draws_no_random_numbers_and_leaves_the_loggers_alone(
    saved, name, tmp_path, monkeypatch
):
    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # as in a fresh process
    load("tinyworld", device="cpu")  # the libraries are imported
    if name == "clip":
        checkpoints.open_clip_folder(tmp_path / "clip")
    if name == "broken":
        shutil.copytree(saved["sd1"][0], tmp_path / "broken")
        (tmp_path / "broken" / "vae" / "diffusion_pytorch_model.safetensors").write_text("torn")
    before = state_of_the_process()
    if name == "clip":
        load_clip(tmp_path / "clip")
    elif name in SHIPPED or name in saved:
        load(saved[name][0] if name in saved else name, device="cpu")
    else:
        with pytest.raises((ValueError, FileNotFoundError)):
            load(tmp_path / name, device="cpu")
    assert state_of_the_process() == before


def test_the_next_random_number_does_not_depend_on_what_was_loaded(saved):
    torch.manual_seed(3)
    expected = torch.randn(4)
    torch.manual_seed(3)
    load(saved["sd1"][0], device="cpu")
    assert torch.equal(torch.randn(4), expected)


def test_half_precision_is_silent(saved, image, caplog, recwarn):
    pipe = load(saved["sdxl"][0], device="cpu", dtype=torch.float16)
    mask = torch.zeros(1, 1, 64, 64)
    mask[..., 16:48, 16:48] = 1
    edit = bl.blended_latent(pipe, image, mask, "a red cat", w=2.0, steps=2, skip=0.0, eta=0.0)
    assert edit.tensor.isfinite().all() and not caplog.messages
    assert not [said for said in recwarn if "float" in str(said.message)]


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (dict(name=None), "name is a NoneType; give the name of a model, a folder"),
        (dict(name=["tinyworld"]), "name is a list"),
        (dict(name="tinyworld", dtype="float16"), "dtype is 'float16'; give torch.float16"),
        (dict(name="tinyworld", dtype=torch.int8), "dtype is torch.int8; give torch.float16"),
        (dict(name="tinyworld", device="gpu"), "device is 'gpu'; choose cpu, cuda or mps"),
        (dict(name="tinyworld", device="cuda"), "device is 'cuda', which PyTorch does not find"),
    ],
)
def test_what_is_no_name_device_or_precision_gets_a_sentence(given, sentence, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises((TypeError, ValueError), match=sentence):
        load(**given)
    if "device" in given:  # also where a CLIP is asked for, before it is downloaded
        with pytest.raises(ValueError, match=sentence):
            load_clip(device=given["device"])


# -- CLIP
# ------------------------------------------------------------


def test_a_clip_folder_loads_with_its_tokenizer_size_and_normalisation(tmp_path, offline):
    original = checkpoints.open_clip_folder(tmp_path)
    clip = load_clip(tmp_path)
    assert (clip.size, clip.mean, clip.std) == (32, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    picture, words = torch.rand(2, 3, clip.size, clip.size), clip.tokenizer(["a red cat", "snow"])
    assert words.shape == (2, 77)
    torch.testing.assert_close(clip.model.encode_image(picture), original.encode_image(picture))
    torch.testing.assert_close(clip.model.encode_text(words), original.encode_text(words))
    assert not clip.model.training and not any(
        weight.requires_grad for weight in clip.model.parameters()
    )
    assert not offline


def test_clip_never_runs_with_random_weights(tmp_path):
    checkpoints.open_clip_folder(tmp_path)
    (tmp_path / "open_clip_model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="holds no weights"):
        load_clip(tmp_path)
    with pytest.raises(ValueError, match="no 'ViT-B-16' with weights None"):
        load_clip("ViT-B-16", pretrained=None)


# -- tinyworld
# ------------------------------------------------------------


def test_tinyworld_ships_and_makes_a_picture(offline):
    pipe = load(
        "tinyworld"
    )  # fails with the command that makes it until the weights are in blendlab/weights
    assert type(pipe) is StableDiffusionPipeline and pipe.unet.dtype == torch.float32
    size = card(pipe)["size"]
    assert {"w", "steps", "skip"} <= set(settings(pipe, "blended_latent"))
    picture = pipe(
        "a red mushroom", height=size, width=size, num_inference_steps=2, output_type="np"
    ).images
    assert picture.shape == (1, size, size, 3) and picture.std() > 0.01
    assert not offline


def test_tinyworld_opens_without_blendlab():
    ours = load("tinyworld", device="cpu")
    theirs = StableDiffusionPipeline.from_pretrained(
        str(WEIGHTS / "tinyworld"), local_files_only=True
    )
    text = theirs.tokenizer("a red mushroom", return_tensors="pt").input_ids
    torch.testing.assert_close(theirs.text_encoder.float()(text)[0], ours.text_encoder(text)[0])


def test_the_judge_ships():
    judge = load("tinyworld-judge")
    assert not judge.training and not any(weight.requires_grad for weight in judge.parameters())
