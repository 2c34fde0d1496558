"""Folders from strangers: no code of theirs runs, and what is missing or torn gets a sentence."""

import json
import shutil

import checkpoints
import pytest
import torch
from safetensors.torch import load_file, save_file

import blendlab as bl
from blendlab import cards
from blendlab.networks.clip import load_clip

EVIL = "from pathlib import Path\nPath({marker!r}).write_text('ran')\nclass Evil: pass\n"


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sd1")
    checkpoints.sd1().save_pretrained(folder)
    return folder


@pytest.fixture
def folder(original, tmp_path):
    """A copy of a pipeline's folder with a Python file in it, which writes `ran` when it runs."""
    copy = shutil.copytree(original, tmp_path / "model")
    for place in (copy, copy / "unet", copy / "vae"):
        (place / "evil.py").write_text(EVIL.format(marker=str(tmp_path / "ran")))
    yield copy
    assert not (tmp_path / "ran").exists(), "code of the folder ran"


@pytest.fixture
def clip_folder(tmp_path):
    copy = shutil.copytree(cards.WEIGHTS / "tinyworld-clip", tmp_path / "clip")
    (copy / "evil.py").write_text(EVIL.format(marker=str(tmp_path / "ran")))
    yield copy
    assert not (tmp_path / "ran").exists(), "code of the folder ran"


def change(file, **values):
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def test_an_honest_folder_opens(folder):
    assert type(bl.load(folder, device="cpu")).__name__ == "StableDiffusionPipeline"


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ("vae", ["evil", "Evil"]),
        ("vae", ["subprocess", "Popen"]),
        ("unet", ["diffusers", "DiffusionPipeline"]),
        ("scheduler", ["diffusers", "StableDiffusionPipeline"]),
        ("text_encoder", ["transformers", "AutoModel"]),
        ("stranger", ["evil", "Evil"]),
        ("tokenizer", ["transformers", "AutoTokenizer"]),
    ],
)
def test_a_component_that_is_not_on_the_list_is_refused(folder, part, said):
    change(folder / "model_index.json", **{part: said})
    with pytest.raises(ValueError, match=f"wants {said[1]} of {said[0]} as its {part}, which"):
        bl.load(folder, device="cpu")


@pytest.mark.parametrize("said", ["evil.Evil", ["evil"], {"evil": "Evil"}, ["a", "b", "c"]])
def test_a_component_in_another_form_is_refused_or_ignored(folder, said):
    change(folder / "model_index.json", stranger=said)
    if isinstance(said, str):
        return  # a setting of the pipeline's, such as a version
    with pytest.raises(ValueError, match="it is no part"):
        bl.load(folder, device="cpu")


@pytest.mark.parametrize("key", ["auto_map", "trust_remote_code"])
@pytest.mark.parametrize(
    "file", ["unet/config.json", "tokenizer/tokenizer_config.json", "text_encoder/config.json"]
)
def test_a_file_that_asks_for_code_is_refused(folder, file, key):
    change(folder / file, **{key: {"AutoModel": "evil.Evil"} if key == "auto_map" else True})
    with pytest.raises(ValueError, match=f"sets {key}, which runs code of its folder"):
        bl.load(folder, device="cpu")


def test_a_scheduler_of_another_name_is_refused(folder):
    change(folder / "scheduler" / "scheduler_config.json", _class_name="DiffusionPipeline")
    with pytest.raises(ValueError, match="names the scheduler 'DiffusionPipeline'; blendlab opens"):
        bl.load(folder, device="cpu")


@pytest.mark.parametrize(
    ("place", "values", "sentence"),
    [
        ("text_cfg", {"tokenizer_kwargs": {"trust_remote_code": True}}, "sets trust_remote_code"),
        ("text_cfg", {"tokenizer_kwargs": {"cache_dir": "/"}}, "tokenizer_kwargs cache_dir"),
        ("text_cfg", {"hf_model_name": "evil/tower"}, "a tower from elsewhere .evil/tower."),
        ("vision_cfg", {"timm_model_name": "hf-hub:evil/tower"}, "a tower from elsewhere"),
        (None, {"surprise": 1}, "has surprise; it may have"),
    ],
)
def test_a_clip_folder_that_fetches_or_runs_is_refused(clip_folder, place, values, sentence):
    file = clip_folder / "open_clip_config.json"
    config = json.loads(file.read_text())
    (config["model_cfg"][place] if place else config).update(values)
    file.write_text(json.dumps(config))
    with pytest.raises(ValueError, match=sentence):
        load_clip(clip_folder)


def test_a_clip_tokenizer_with_code_is_refused(clip_folder):
    change(clip_folder / "tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.Evil", None]})
    with pytest.raises(ValueError, match="tokenizer_config.json sets auto_map"):
        load_clip(clip_folder)


# --- what is missing, torn or no number


def weights(folder, part):
    (file,) = (folder / part).glob("*.safetensors")
    return file


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_missing_weights_are_named_instead_of_drawn_at_random(folder, part):
    file = weights(folder, part)
    tensors = load_file(file)
    half = dict(list(tensors.items())[::2])
    save_file(half, file, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=rf"{part} lacks \d+ of \d+ weights, as .*: copy or"):
        bl.load(folder, device="cpu")


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_weights_that_are_no_finite_floats_are_refused(folder, part):
    file = weights(folder, part)
    tensors = load_file(file)
    name = next(key for key, value in tensors.items() if value.is_floating_point())
    save_file(tensors | {name: tensors[name].to(torch.int8)}, file, metadata={"format": "pt"})
    with pytest.raises(ValueError, match="holds I8 numbers in"):
        bl.load(folder, device="cpu")
    bad = torch.full_like(tensors[name], float("nan"))
    save_file(tensors | {name: bad}, file, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=f"{part} has NaN or infinite numbers in"):
        bl.load(folder, device="cpu")


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_torn_weights_get_a_sentence(folder, part):
    file = weights(folder, part)
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(ValueError, match="is torn .*: copy or download it again"):
        bl.load(folder, device="cpu")


@pytest.mark.parametrize(
    "file",
    ["model_index.json", "unet/config.json", "vae/config.json", "scheduler/scheduler_config.json"],
)
@pytest.mark.parametrize("text", ["{torn", "[1, 2]", "\xff\xfe"])
def test_torn_json_names_its_file(folder, file, text):
    (folder / file).write_text(text, encoding="latin-1")
    with pytest.raises(ValueError, match=f"{file.split('/')[-1]} (is no JSON|holds a list)"):
        bl.load(folder, device="cpu")


@pytest.mark.parametrize("part", ["vae", "scheduler", "text_encoder"])
def test_a_missing_part_is_named(folder, part):
    shutil.rmtree(folder / part)
    with pytest.raises(FileNotFoundError, match=f"{part} is missing: copy or download the whole"):
        bl.load(folder, device="cpu")


def test_a_folder_with_braces_in_its_name_opens(original, tmp_path):
    copy = shutil.copytree(original, tmp_path / "a {model} of mine")
    assert bl.load(copy, device="cpu").unet is not None
