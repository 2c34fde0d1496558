"""Folders from strangers: no code of theirs runs, and what is missing, torn or no number gets a
sentence that names the file and the fix.

Every evil folder is a small real checkpoint with one thing changed. Its code writes a file when it
runs; after each test that file must not be there.
"""

import json
import re
import shutil
import socket
import tomllib
import zipfile
from copy import copy as copy_of
from pathlib import Path

import checkpoints
import pytest
import torch
from safetensors.torch import load_file, save_file
from test_exemplar import build

import blendlab as bl
from blendlab import cards
from blendlab.networks import adm, weights
from blendlab.networks.clip import load_clip
from blendlab.networks.judge import Judge

EVIL = "from pathlib import Path\nPath({marker!r}).write_text('ran')\nclass Evil: pass\n"


@pytest.fixture(scope="session")
def honest(tmp_path_factory):
    """One folder of each kind."""
    root = tmp_path_factory.mktemp("honest")
    checkpoints.sd1(root / "sd1")
    checkpoints.sdxl(root / "sdxl")
    checkpoints.pixel(root / "pixel")
    build().save_pretrained(root / "exemplar")
    for name in ("clip", "judge"):
        shutil.copytree(cards.WEIGHTS / f"tinyworld-{name}", root / name)
    return root


@pytest.fixture
def copy(honest, tmp_path, monkeypatch):
    """`copy(kind)`: a folder of one kind to change. What asks for the module evil would get it."""
    marker, modules = tmp_path / "ran", tmp_path / "modules"
    modules.mkdir()
    (modules / "evil.py").write_text(EVIL.format(marker=str(marker)))
    monkeypatch.syspath_prepend(modules)
    looks = []
    monkeypatch.setattr(socket.socket, "connect", lambda *args: looks.append(args))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: looks.append(args))
    yield lambda kind: shutil.copytree(honest / kind, tmp_path / kind)
    ran = marker.exists()
    shutil.rmtree(tmp_path)
    assert not ran, "code of the folder ran"
    assert not looks, "a folder made the process look at the network"


def opened(folder):
    """What the package makes of a folder."""
    if folder.name == "judge":
        return Judge.load(folder)
    return load_clip(folder) if folder.name == "clip" else bl.load(folder, device="cpu")


def refused(folder, sentence, kind=ValueError):
    """The folder is refused in one line that matches."""
    with pytest.raises(kind, match=sentence) as caught:
        opened(folder)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600


def change(file, place=(), **values):
    """Set values in a JSON file, in the section that `place` leads to."""
    content = section = json.loads(file.read_text())
    for key in place:
        section = section[key]
    section.update(values)
    file.write_text(json.dumps(content))


def stored(folder):
    (file,) = folder.glob("*.safetensors")
    return file


@pytest.mark.parametrize("kind", ["sd1", "sdxl", "pixel", "exemplar", "clip", "judge"])
def test_an_honest_folder_opens_also_with_braces_in_its_name(copy, kind, tmp_path):
    folder = copy(kind).rename(tmp_path / "a {model} of mine") / kind
    shutil.copytree(folder.parent, folder)
    assert opened(folder) is not None


# -- Code and classes
# --------------------------------------------------------------------------------------------

PARTS = {
    "vae": ["evil", "Evil"],
    "unet": ["diffusers", "DiffusionPipeline"],
    "text_encoder": ["transformers", "AutoModel"],
    "tokenizer": ["transformers", "AutoTokenizer"],
    "scheduler": ["diffusers", "StableDiffusionPipeline"],
    "safety_checker": ["subprocess", "Popen"],
    "stranger": ["evil", "Evil"],
    "image_encoder": ["os", "CLIPVisionModelWithProjection"],
}


@pytest.mark.parametrize(("part", "said"), PARTS.items())
def test_a_class_that_is_not_on_the_list_is_refused(copy, part, said):
    folder = copy("sd1")
    change(folder / "model_index.json", **{part: said})
    refused(folder, f"model_index.json wants {said[1]} of {said[0]} as its {part}, .*take the line")


@pytest.mark.parametrize(("kind", "part"), [("sdxl", "tokenizer_2"), ("pixel", "unet")])
def test_other_layouts_have_lists_too(copy, kind, part):
    folder = copy(kind)
    change(folder / "model_index.json", **{part: ["evil", "Evil"]})
    refused(folder, f"wants Evil of evil as its {part}")


def test_a_class_of_another_part_is_refused(copy):
    folder = copy("sd1")
    change(folder / "model_index.json", unet=["diffusers", "AutoencoderKL"])
    refused(folder, "wants AutoencoderKL of diffusers as its unet")


@pytest.mark.parametrize("said", ["evil.Evil", ["evil"], {"evil": "Evil"}, ["a", "b", "c"], 3])
def test_a_part_in_another_form_is_refused(copy, said):
    folder = copy("sd1")
    change(folder / "model_index.json", stranger=said)
    refused(folder, "stranger is .*, which names no part: take that line out")


@pytest.mark.parametrize("said", [["evil", "Evil"], None, "DiffusionPipeline", "evil", "os.system"])
def test_a_pipeline_of_another_name_is_refused(copy, said):
    folder = copy("sd1")
    change(folder / "model_index.json", _class_name=said)
    refused(folder, "names no pipeline in _class_name|blendlab runs StableDiffusionPipeline")


def test_a_setting_that_is_not_the_pipelines_is_refused(copy):
    folder = copy("sd1")
    change(folder / "model_index.json", trust_me=True)
    refused(folder, "model_index.json sets trust_me")


@pytest.mark.parametrize(
    ("kind", "part"), [("sd1", "."), ("sd1", "unet"), ("exemplar", "image_encoder"), ("clip", ".")]
)
def test_code_in_a_folder_is_refused(copy, kind, part):
    folder = copy(kind)
    (folder / part / "evil.py").write_text("raise SystemExit")
    refused(folder, "holds code, evil.py, which blendlab never runs: delete it")


ASKED = {
    "auto_map": {"AutoModel": "evil.Evil", "AutoTokenizer": ["evil.Evil", None]},
    "trust_remote_code": True,
    "custom_pipeline": "evil",
    "attn_implementation": "someone/kernel",
    "_attn_implementation": "someone/kernel",
    "transformers_weights": "../other.safetensors",
    "quantization_config": {"quant_method": "evil"},
}
FILES = [
    ("sd1", "unet/config.json"),
    ("sd1", "vae/config.json"),
    ("sd1", "text_encoder/config.json"),
    ("sd1", "tokenizer/tokenizer_config.json"),
    ("sd1", "scheduler/scheduler_config.json"),
    ("exemplar", "image_encoder/config.json"),
    ("exemplar", "unet/config.json"),
    ("exemplar", "feature_extractor/preprocessor_config.json"),
    ("clip", "tokenizer_config.json"),
]


@pytest.mark.parametrize("key", ASKED)
@pytest.mark.parametrize(("kind", "file"), FILES)
def test_a_file_that_asks_for_code_or_for_more_is_refused(copy, kind, file, key):
    folder = copy(kind)
    change(folder / file, **{key: ASKED[key]})
    refused(folder, f"{Path(file).name} sets {key}, which .*: take that line out")


def test_such_a_key_is_found_deep_down_and_in_a_large_file(copy):
    folder = copy("sd1")
    file = folder / "tokenizer" / "tokenizer_config.json"
    change(file, added=[{"deep": {"auto_map": ["evil.Evil"]}}], filling="x" * 2**21)
    refused(folder, "tokenizer_config.json sets auto_map")


def test_an_adapter_that_names_another_network_is_refused(copy):
    folder = copy("sd1")
    adapter = folder / "text_encoder" / "adapter_config.json"
    adapter.write_text('{"base_model_name_or_path": "someone/evil"}')
    refused(folder, "holds an adapter, .*: merge it into the network")


@pytest.mark.parametrize("kind", ["sd1", "exemplar"])
@pytest.mark.parametrize("name", ["DiffusionPipeline", "AutoModel", "evil.Evil", None, ["evil"]])
def test_a_scheduler_of_another_name_is_refused(copy, kind, name):
    folder = copy(kind)
    change(folder / "scheduler" / "scheduler_config.json", _class_name=name)
    refused(folder, "scheduler_config.json names the scheduler .*; blendlab opens DDIMScheduler")


class Trap:
    """A pickle that runs code when it is opened."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return Path.write_text, (Path(self.marker), "ran")


@pytest.mark.parametrize("part", ["image_encoder", "unet", "vae"])
def test_a_pickle_in_place_of_weights_runs_nothing(copy, part, tmp_path):
    folder = copy("exemplar")
    file = stored(folder / part)
    torch.save({"conv_in.weight": Trap(str(tmp_path / "ran"))}, file.with_suffix(".bin"))
    file.unlink()
    refused(folder, r"\.bin is not a file of weights alone: download it again")


def test_only_exemplar_folders_may_hold_pickles(copy):
    folder = copy("sd1")
    file = stored(folder / "unet")
    torch.save(load_file(file), file.with_suffix(".bin"))
    file.unlink()
    refused(folder, "unet holds no diffusion_pytorch_model.safetensors: copy", FileNotFoundError)


def test_an_archive_that_may_unpack_to_anything_is_refused(tmp_path):
    torch.save({"x": torch.zeros(2**20)}, tmp_path / "plain.pt")
    bomb = tmp_path / "bomb.pt"
    with zipfile.ZipFile(tmp_path / "plain.pt") as plain:
        with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as packed:
            for entry in plain.infolist():
                packed.writestr(entry.filename, plain.read(entry))
    assert bomb.stat().st_size < 2**16
    with pytest.raises(ValueError, match="bomb.pt is a compressed archive"):
        adm.load(bomb)


def test_an_archive_whose_entries_overlap_is_refused(tmp_path):
    bomb = tmp_path / "bomb.pt"
    torch.save({"x": torch.zeros(2**16)}, bomb)
    with zipfile.ZipFile(bomb, "a") as archive:
        (stored,) = [entry for entry in archive.infolist() if entry.filename.endswith("data/0")]
        for i in range(1, 100):
            again = copy_of(stored)
            again.filename = stored.filename[:-1] + str(i)
            archive.filelist.append(again)
        archive.comment = b"the directory is written again"
    assert bomb.stat().st_size < 2**19
    with pytest.raises(ValueError, match="bomb.pt is a compressed archive"):
        adm.load(bomb)


# -- CLIP
# --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("place", "values", "sentence"),
    [
        (["text_cfg"], {"tokenizer_kwargs": {"trust_remote_code": True}}, "sets trust_remote_code"),
        (["text_cfg"], {"tokenizer_kwargs": {"cache_dir": "/"}}, "has tokenizer_kwargs.cache_dir"),
        (["text_cfg"], {"hf_model_name": "evil/tower"}, r"a tower from elsewhere \(evil/tower\)"),
        (["text_cfg"], {"hf_hub": "evil/tower"}, "has text_cfg.hf_hub, which blendlab does not"),
        (["vision_cfg"], {"timm_model_name": "hf-hub:evil/tower"}, "a tower from elsewhere"),
        (["vision_cfg"], {"hf_model_name": "evil/tower"}, "has vision_cfg.hf_model_name"),
        ([], {"surprise": 1}, "has model_cfg.surprise"),
        ([], {"text_cfg": None}, "has no section text_cfg"),
        (["vision_cfg"], {"layers": "many"}, "open_clip_config.json describes no CLIP"),
    ],
)
def test_a_clip_folder_that_fetches_or_runs_is_refused(copy, place, values, sentence):
    folder = copy("clip")
    change(folder / "open_clip_config.json", ["model_cfg", *place], **values)
    refused(folder, sentence)


def test_a_clip_folder_with_more_sections_is_refused(copy):
    folder = copy("clip")
    change(folder / "open_clip_config.json", surprise=1)
    refused(folder, "open_clip_config.json has surprise, .*: take that line out")


# -- What a card may ask for
# --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("card", "sentence"),
    [
        ({"perceptual": "someone/evil"}, '"perceptual" is .someone/evil.; it may be tinyworld'),
        ({"perceptual": ["tinyworld"]}, '"perceptual" is'),
        ({"settings": {"blended_latent": 3}}, '"settings" has to be'),
        ({"settings": []}, '"settings" has to be'),
        ({"words": "all"}, '"words" has to be a list of texts'),
        ({"size": -1}, '"size" is -1'),
    ],
)
@pytest.mark.parametrize("inside", [False, True])
def test_a_card_that_means_nothing_or_loads_another_model_is_refused(copy, card, sentence, inside):
    folder = copy("sd1")
    if inside:
        change(folder / "model_index.json", **{cards.KEPT: card})
    else:
        (folder / "blendlab.json").write_text(json.dumps(card))
    refused(folder, sentence)


# -- What is missing, torn or no number
# --------------------------------------------------------------------------------------------

NETWORKS = [
    ("sd1", "unet"),
    ("sd1", "vae"),
    ("sd1", "text_encoder"),
    ("sdxl", "text_encoder_2"),
    ("pixel", "unet"),
    ("exemplar", "unet"),
    ("exemplar", "vae"),
    ("exemplar", "image_encoder"),
    ("clip", "."),
    ("judge", "."),
]


def first_matrix(tensors):
    return next(
        key for key, value in tensors.items() if value.ndim > 1 and value.is_floating_point()
    )


def all_but_one_of_two(tensors):
    keep = [key for key in tensors if key == "uncond_vector"]
    return {key: tensors[key] for key in [*keep, *list(tensors)[::2]]}


def without_one(tensors):
    lost = first_matrix(tensors)
    return {key: value for key, value in tensors.items() if key != lost}


def another(tensors):
    return tensors | {"surprise.weight": torch.zeros(2)}


def of_one(change):
    def changed(tensors):
        key = first_matrix(tensors)
        return tensors | {key: change(tensors[key]).contiguous()}

    return changed


WRONG = {
    "half of the weights": (all_but_one_of_two, r"lacks \d+ of the \d+ weights of this \w+, .*: "),
    "one weight less": (without_one, r"lacks 1 of the \d+ weights of this \w+, "),
    "one weight more": (another, "holds what this .* has no place for, surprise.weight"),
    "another shape": (of_one(lambda x: x[:1]), "of the shape .*: take weights and config.json"),
    "int8": (of_one(lambda x: x.to(torch.int8)), "holds int8 numbers in .*: take weights in"),
    "NaN": (of_one(lambda x: x * float("nan")), "has NaN or infinite numbers in"),
    "infinity": (of_one(lambda x: x.float() + float("inf")), "has NaN or infinite numbers in"),
}  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize(("kind", "part"), NETWORKS)
def test_weights_that_are_not_whole_or_no_floats_are_refused_and_named(copy, kind, part, wrong):
    folder = copy(kind)
    file = stored(folder / part)
    spoil, sentence = WRONG[wrong]
    save_file(spoil(load_file(file)), file, metadata={"format": "pt"})
    refused(folder, sentence)


@pytest.mark.parametrize(("kind", "part"), NETWORKS)
@pytest.mark.parametrize("bytes_left", [0, 5, 200, -1])
def test_torn_weights_get_a_sentence(copy, kind, part, bytes_left):
    folder = copy(kind)
    file = stored(folder / part)
    file.write_bytes(file.read_bytes()[:bytes_left])
    refused(folder, f"{file.name} is torn .*: copy or download it again")


def test_a_list_of_files_reaches_no_other_folder(copy):
    folder = copy("sd1")
    file = stored(folder / "unet")
    shards = {key: f"../vae/{file.name}" for key in load_file(file)}
    index = folder / "unet" / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": shards}))
    refused(folder, "index.json lists no files of its own folder")
    index.write_text(json.dumps({"weight_map": dict.fromkeys(shards, "model-00001.safetensors")}))
    refused(folder, "model-00001.safetensors is missing", FileNotFoundError)


def test_weights_spread_over_several_files_open_when_all_are_there(copy, honest):
    folder = copy("sd1")
    net = bl.load(honest / "sd1", device="cpu").unet
    stored(folder / "unet").unlink()
    net.save_pretrained(folder / "unet", max_shard_size="100KB")
    files = sorted((folder / "unet").glob("*.safetensors"))
    assert len(files) > 1
    torch.testing.assert_close(opened(folder).unet.state_dict(), net.state_dict(), rtol=0, atol=0)
    files[1].unlink()
    refused(folder, f"{files[1].name} is missing: copy", FileNotFoundError)


JSON = [
    *FILES,
    ("sd1", "model_index.json"),
    ("sd1", "blendlab.json"),
    ("exemplar", "model_index.json"),
    ("exemplar", "scheduler/scheduler_config.json"),
    ("clip", "open_clip_config.json"),
    ("clip", "blendlab.json"),
    ("judge", "config.json"),
]


@pytest.mark.parametrize("text", ["", "{torn", "\xff\xfe", "[" * 100_000])
@pytest.mark.parametrize(("kind", "file"), JSON)
def test_torn_json_names_its_file(copy, kind, file, text):
    folder = copy(kind)
    (folder / file).write_text(text, encoding="latin-1")
    refused(folder, f"{Path(file).name} is no JSON .*: copy or download it again")


@pytest.mark.parametrize(
    ("kind", "file"),
    [
        ("sd1", "model_index.json"),
        ("sd1", "unet/config.json"),
        ("sd1", "scheduler/scheduler_config.json"),
        ("exemplar", "feature_extractor/preprocessor_config.json"),
        ("clip", "open_clip_config.json"),
        ("judge", "config.json"),
    ],
)
def test_json_of_another_kind_names_its_file(copy, kind, file):
    folder = copy(kind)
    (folder / file).write_text("[1, 2]")
    refused(folder, f"{Path(file).name} holds a list, not a dictionary of settings")
    (folder / file).write_text("{}")
    refused(folder, f"{Path(file).name}")


@pytest.mark.parametrize(
    ("kind", "part"),
    [
        ("sd1", "vae"),
        ("sd1", "scheduler"),
        ("sd1", "tokenizer"),
        ("sdxl", "text_encoder_2"),
        ("exemplar", "vae"),
        ("exemplar", "image_encoder"),
        ("exemplar", "feature_extractor"),
        ("sd1", "unet/config.json"),
        ("sd1", "scheduler/scheduler_config.json"),
        ("exemplar", "scheduler/scheduler_config.json"),
        ("clip", "open_clip_config.json"),
        ("clip", "vocab.json"),
        ("judge", "config.json"),
        ("judge", "model.safetensors"),
    ],
)
def test_a_missing_part_is_named(copy, kind, part):
    folder = copy(kind)
    (shutil.rmtree if (folder / part).is_dir() else Path.unlink)(folder / part)
    refused(folder, f"{part} is missing: copy or download the", FileNotFoundError)


@pytest.mark.parametrize("part", ["vae", "scheduler", "tokenizer"])
def test_a_part_that_the_list_leaves_out_is_named(copy, part):
    folder = copy("sd1")
    change(folder / "model_index.json", **{part: [None, None]})
    refused(folder, f"model_index.json names no {part}: copy or download the folder sd1 again")


def test_a_description_that_fits_no_network_names_its_file(copy):
    folder = copy("sd1")
    change(folder / "unet" / "config.json", down_block_types=["Evil", "Evil"])
    refused(folder, "unet/config.json describes no UNet2DConditionModel")


def test_check_weights_names_what_is_wrong_also_for_networks_of_ones_own():
    net = torch.nn.Linear(2, 3)
    weights.check_weights(net, net.state_dict(), "here")
    with pytest.raises(
        ValueError, match="here lacks 1 of the 2 weights of this Linear, bias: copy"
    ):
        weights.check_weights(net, {"weight": net.weight}, "here")


def test_make_security_runs_with_the_oldest_versions_that_are_allowed():
    root = Path(__file__).parent.parent
    needs = tomllib.loads((root / "pyproject.toml").read_text())["project"]["dependencies"]
    floors = dict(need.split(">=") for need in needs)
    (line,) = re.findall("^FLOORS := (.*)$", (root / "Makefile").read_text(), re.MULTILINE)
    taken = dict(one.split("==") for one in line.split())
    for name in ("diffusers", "transformers", "huggingface_hub"):
        assert taken[name] == f"{floors[name]}.0", name
