"""What a folder of weights may hold: its files are read and checked before anything of it loads.

A folder from a stranger may name classes, modules, repositories and code of its own. Only what is
on the lists here is opened, so nothing in a folder runs, whatever the versions of the libraries.
Next: opening.py, which opens the parts; load.py and clip.py, which ask.
"""

from dataclasses import dataclass, fields
from pathlib import Path

from ..cards import read_json
from ..errors import Refused

EXEMPLAR = "PaintByExamplePipeline"
INPAINT = "StableDiffusionInpaintPipeline"  # the rival that tables compare with, from folders only
SCHEDULERS = frozenset(
    f"{name}Scheduler"
    for name in (
        "DDIM", "DDPM", "PNDM", "LMSDiscrete", "EulerDiscrete", "EulerAncestralDiscrete",
        "DPMSolverMultistep", "DPMSolverSinglestep", "UniPCMultistep", "HeunDiscrete", "LCM",
        "DEISMultistep", "KDPM2Discrete", "KDPM2AncestralDiscrete", "TCD",
    )
)  # fmt: skip
TOKENIZERS = frozenset({"CLIPTokenizer", "CLIPTokenizerFast"})
LIBRARIES = {
    "transformers": TOKENIZERS | {"CLIPTextModel", "CLIPTextModelWithProjection"},
    "diffusers": SCHEDULERS | {"AutoencoderKL", "UNet2DConditionModel", "UNet2DModel"},
}

# pipeline -> its parts -> the classes that each may have
_LATENT = {"vae": {"AutoencoderKL"}, "unet": {"UNet2DConditionModel"}, "scheduler": SCHEDULERS}
_TEXT = _LATENT | {"text_encoder": {"CLIPTextModel"}, "tokenizer": TOKENIZERS}
_PIXELS = {"unet": {"UNet2DModel"}, "scheduler": SCHEDULERS}
LAYOUTS = {
    "StableDiffusionPipeline": _TEXT,
    "StableDiffusionXLPipeline": _TEXT
    | {"text_encoder_2": {"CLIPTextModelWithProjection"}, "tokenizer_2": TOKENIZERS},
    "DDIMPipeline": _PIXELS,
    "DDPMPipeline": _PIXELS,
    EXEMPLAR: _LATENT,
    INPAINT: _TEXT,
}
# Named by published folders and never opened: the picture filter, and what IP-Adapters add.
UNOPENED = {
    "safety_checker": {"StableDiffusionSafetyChecker"},
    "feature_extractor": {
        "CLIPImageProcessor", "CLIPImageProcessorFast", "CLIPImageProcessorPil",
        "CLIPFeatureExtractor",
    },
    "image_encoder": {"CLIPVisionModelWithProjection", "PaintByExampleImageEncoder"},
}  # fmt: skip
UNOPENED_LIBRARIES = {"transformers", "diffusers", "stable_diffusion", "paint_by_example"}
# Of a pipeline; the last one alone changes what a network is shown.
SETTINGS = ("requires_safety_checker", "add_watermarker", "force_zeros_for_empty_prompt")

# Keys that make a library run, fetch or replace something, at any depth of any JSON file.
RUNS, FETCHES = "runs code of its folder", "loads weights from elsewhere"
FORBIDDEN = {
    "auto_map": RUNS,
    "trust_remote_code": RUNS,
    "custom_pipeline": RUNS,
    "custom_pipelines": RUNS,
    "attn_implementation": "may fetch a kernel and run it",
    "_attn_implementation": "may fetch a kernel and run it",
    "_attn_implementation_internal": "may fetch a kernel and run it",
    "transformers_weights": FETCHES,
    "base_model_name_or_path": FETCHES,
    "quantization_config": "changes the network while it loads",
}
HARMLESS = (None, False, "", "eager", "sdpa")  # attention that PyTorch brings along

# open_clip_config.json. A tower of a hub (hf_model_name) is not opened, one of timm's own is.
CLIP_KEYS = {"model_cfg", "preprocess_cfg"}
MODEL_KEYS = {
    "embed_dim", "vision_cfg", "text_cfg", "quick_gelu", "custom_text", "init_logit_scale",
    "init_logit_bias", "nonscalar_logit_scale",
}  # fmt: skip
TOKENIZER_KEYS = {"clean", "strip_sep_token"}


@dataclass(frozen=True)
class Plan:
    """What to open: the pipeline's class, {part: its class}, and the pipeline's own settings."""

    kind: str
    parts: dict[str, str]
    settings: dict


def plan(folder: Path) -> Plan:
    """What model_index.json asks for, all of it from the lists; its other files are not looked at.

    ValueError: a class, a library, a part or a setting that is not on them.
    """
    file = folder / "model_index.json"
    if not file.is_file():
        raise Refused(
            f"{folder} has no model_index.json, so it is no diffusers pipeline; give the folder "
            "that save_pretrained wrote"
        )
    index = read_json(file)
    kind = index.get("_class_name")
    if not isinstance(kind, str):
        raise Refused(f"{file} names no pipeline in _class_name: {_again(folder)}")
    _check_channels(folder, kind)
    if kind not in LAYOUTS:
        *most, last = (name for name in LAYOUTS if name not in (EXEMPLAR, INPAINT))
        raise Refused(f"{folder} holds a {kind}; blendlab runs {', '.join(most)} and {last}")
    said = {name: value for name, value in index.items() if not name.startswith("_")}
    settings = {name: value for name, value in said.items() if isinstance(value, bool)}
    if strange := settings.keys() - set(SETTINGS):
        raise Refused(f"{file} sets {', '.join(sorted(strange))}, which a {kind} does not have")
    parts = {
        name: _named(file, kind, name, value)
        for name, value in said.items()
        if name not in settings and value not in (None, [None, None])
    }
    if kind == EXEMPLAR:  # our own files name the pipeline alone
        parts = {"vae": "AutoencoderKL", "unet": "UNet2DConditionModel"}
    elif missing := LAYOUTS[kind].keys() - parts.keys():
        raise Refused(f"{file} names no {' and no '.join(sorted(missing))}: {_again(folder)}")
    opened = {name: part for name, part in parts.items() if name in LAYOUTS[kind]}
    passed = {name: value for name, value in settings.items() if name == SETTINGS[-1]}
    return Plan(kind, opened, passed)


def _named(file, kind, name, value):
    """The class of a part, if the list has it and its library."""
    if not (isinstance(value, list) and len(value) == 2 and all(isinstance(v, str) for v in value)):
        raise Refused(f"{file}: {name} is {value!r}, which names no part: take that line out")
    library, part = value
    opened = part in LAYOUTS[kind].get(name, ()) and part in LIBRARIES.get(library, ())
    if opened or (part in UNOPENED.get(name, ()) and library in UNOPENED_LIBRARIES):
        return part
    raise Refused(
        f"{file} wants {part} of {library} as its {name}, which blendlab does not open, because "
        f"its code might be anybody's: take the line {name} out, or another model"
    )


def _check_channels(folder, kind):
    """Refuse a UNet of another task: inpainting's nine channels, and so on."""
    file = folder / "unet" / "config.json"
    unet = read_json(file) if file.is_file() else {}
    ours, theirs = unet.get("in_channels"), unet.get("out_channels")
    if kind in (EXEMPLAR, INPAINT):
        if ours != 9:
            raise Refused(
                f"{folder} holds a {kind} whose UNet takes {ours} channels, not 9 (noisy latent 4, "
                f"masked latent 4, mask 1); check that its folder unet is the one of a {kind}"
            )
        return
    learned = kind.startswith("DD") and isinstance(ours, int) and theirs == 2 * ours
    if theirs != ours and not learned:
        raise Refused(
            f"{folder} holds a {kind} whose UNet takes {ours} channels; blending needs a plain "
            f"text-to-image model ({theirs} channels), for instance 'sd15'"
        )


def check(folder: Path, parts) -> None:
    """Refuse a folder that lacks a part, brings code, or asks for any; parts: names of folders."""
    for part in parts:
        present(folder / part)
    for place in (folder, *(folder / part for part in parts)):
        check_files(place)


def check_files(folder: Path) -> None:
    """Refuse code in a folder, and JSON files in it that ask a library for code or for more."""
    if code := sorted(folder.glob("*.py")):
        raise Refused(
            f"{folder} holds code, {code[0].name}, which blendlab never runs: delete it, or take a "
            "model that needs none"
        )
    if (folder / "adapter_config.json").is_file():
        raise Refused(
            f"{folder} holds an adapter, adapter_config.json, whose network lies elsewhere: merge "
            "it into the network and save that"
        )
    for file in sorted(folder.glob("*.json")):
        if file.name not in ("vocab.json", "tokenizer.json"):  # words; nothing in them is run
            _search(file, read_json(file, object))


def _search(file, value):
    """Refuse a key that is forbidden, at any depth."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key in FORBIDDEN and inner not in HARMLESS:
                raise Refused(f"{file} sets {key}, which {FORBIDDEN[key]}: take that line out")
            _search(file, inner)
    elif isinstance(value, list):
        for inner in value:
            _search(file, inner)


def scheduler(folder: Path) -> str:
    """The class of the scheduler in a folder, if it is on the list."""
    file = folder / "scheduler_config.json"
    name = read_json(file).get("_class_name")
    if not isinstance(name, str) or name not in SCHEDULERS:
        raise Refused(
            f"{file} names the scheduler {name!r}; blendlab opens {', '.join(sorted(SCHEDULERS))}"
        )
    return name


def tokenizer(folder: Path) -> None:
    """Refuse a tokenizer without its words."""
    if not (folder / "tokenizer.json").is_file():
        present(folder / "vocab.json")
        present(folder / "merges.txt")


def weight_files(folder: Path, stem: str, half: bool, safe=True) -> tuple[list[Path], str | None]:
    """The files that hold a part's weights, and the variant that names them ("fp16" or None).

    stem: "diffusion_pytorch_model" or "model". half: fp16 files are preferred. They are taken
    anyway where there are no others. safe: only safetensors; else a .bin will do.
    """
    for variant in ("fp16", None) if half else (None, "fp16"):
        name = f"{stem}.{variant}" if variant else stem
        shards = folder / f"{stem}.safetensors.index{f'.{variant}' if variant else ''}.json"
        if shards.is_file():
            return _shards(folder, shards), variant
        if (folder / f"{name}.safetensors").is_file():
            return [folder / f"{name}.safetensors"], variant
    if not safe:
        for name in (stem, "pytorch_model"):
            if (folder / f"{name}.bin").is_file():
                return [folder / f"{name}.bin"], None
    raise FileNotFoundError(
        f"{folder} holds no {stem}.safetensors: {_again(folder)}, or save the model again with "
        "safe_serialization=True"
    )


def _shards(folder, file):
    """The files that weights are spread over; all of them have to lie beside the list."""
    spread = read_json(file).get("weight_map")
    names = set(spread.values()) if isinstance(spread, dict) else set()
    if not names or any(not isinstance(name, str) or Path(name).name != name for name in names):
        raise Refused(f"{file} lists no files of its own folder: {_again(folder)}")
    return [present(folder / name) for name in sorted(names)]


def check_clip(folder: Path) -> None:
    """Refuse an open_clip folder that fetches, runs code, or says what is not read."""
    file = folder / "open_clip_config.json"
    config = read_json(file)
    check_files(folder)
    _only(file, "", config, CLIP_KEYS)
    model = _section(file, config, "model_cfg")
    _only(file, "model_cfg.", model, MODEL_KEYS)
    text, vision = _section(file, model, "text_cfg"), _section(file, model, "vision_cfg")
    _only(file, "text_cfg.", text, _fields("CLIPTextCfg"))
    _only(file, "vision_cfg.", vision, _fields("CLIPVisionCfg"))
    _only(file, "tokenizer_kwargs.", text.get("tokenizer_kwargs") or {}, TOKENIZER_KEYS)
    tower, timm = text.get("hf_model_name"), str(vision.get("timm_model_name") or "")
    if tower or ":" in timm or "/" in timm:
        raise Refused(
            f"{file} takes a tower from elsewhere ({tower or timm}), which blendlab does not "
            "fetch: take a CLIP whose two towers are open_clip's own"
        )
    if text.get("hf_tokenizer_name"):
        tokenizer(folder)


def clip_file(folder: Path) -> Path:
    """The weights in an open_clip folder: the file that open_clip takes."""
    names = ("open_clip_model", "open_clip_pytorch_model", "model")
    files = [folder / f"{name}.safetensors" for name in names]
    files = [file for file in files if file.is_file()] or sorted(folder.glob("*.safetensors"))
    if not files:  # open_clip would go on with random weights
        raise FileNotFoundError(f"{folder} holds no weights; put open_clip_model.safetensors there")
    return files[0]


def _fields(name):
    """The keys that open_clip's own description of a tower has."""
    from open_clip import model

    return {field.name for field in fields(getattr(model, name))}


def _section(file, config, name):
    section = config.get(name)
    if not isinstance(section, dict):
        raise Refused(f"{file} has no section {name}: {_again(file.parent)}")
    return section


def _only(file, section, given, known):
    if strange := sorted(set(given) - known):
        raise Refused(
            f"{file} has {', '.join(section + str(key) for key in strange)}, which blendlab does "
            "not read: take that line out"
        )


def present(path: Path) -> Path:
    """The path of a file or folder that has to be there."""
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: {_again(path.parent)}")
    return path


def _again(folder):
    return f"copy or download the folder {folder.name} again"
