"""What a folder of weights may hold: its files are read and checked before anything of it loads.

A folder from a stranger may name classes, modules, repositories and code of its own. Only what is
on the lists here is opened, so nothing in a folder runs, whatever the versions of the libraries.
Next: load.py and clip.py, which ask.
"""

import json
from pathlib import Path

import torch

SCHEDULERS = frozenset(
    f"{name}Scheduler"
    for name in (
        "DDIM", "DDPM", "PNDM", "LMSDiscrete", "EulerDiscrete", "EulerAncestralDiscrete",
        "DPMSolverMultistep", "DPMSolverSinglestep", "UniPCMultistep", "HeunDiscrete", "LCM",
        "DEISMultistep", "KDPM2Discrete", "KDPM2AncestralDiscrete", "TCD",
    )
)  # fmt: skip
_TEXT = {("transformers", "CLIPTextModel"), ("transformers", "CLIPTextModelWithProjection")}
_TOKENIZER = {("transformers", "CLIPTokenizer"), ("transformers", "CLIPTokenizerFast")}
_PICTURES = {
    ("transformers", f"CLIP{name}")
    for name in ("ImageProcessor", "ImageProcessorFast", "ImageProcessorPil", "FeatureExtractor")
}
# component of a pipeline: (library, class) that it may be
COMPONENTS = {
    "vae": {("diffusers", "AutoencoderKL")},
    "unet": {("diffusers", "UNet2DConditionModel"), ("diffusers", "UNet2DModel")},
    "text_encoder": _TEXT,
    "text_encoder_2": _TEXT,
    "tokenizer": _TOKENIZER,
    "tokenizer_2": _TOKENIZER,
    "scheduler": {("diffusers", name) for name in SCHEDULERS},
    "feature_extractor": _PICTURES,
    "safety_checker": {("stable_diffusion", "StableDiffusionSafetyChecker")},
    "image_encoder": {("transformers", "CLIPVisionModelWithProjection")},
}
CODE = ("auto_map", "trust_remote_code")  # keys that ask a library to run a folder's code
FLOATS = {"F16", "BF16", "F32", "F64"}
# open_clip_config.json: what is read of it; a tower from elsewhere (hf_model_name) is not
CLIP_KEYS = {"model_cfg", "preprocess_cfg"}
TOKENIZER_KEYS = {"clean", "strip_sep_token"}
# Names of attention in Stable Diffusion's first autoencoders, which diffusers still reads.
OLD = {".query.": ".to_q.", ".key.": ".to_k.", ".value.": ".to_v.", ".proj_attn.": ".to_out.0."}


def read_json(file: Path) -> dict:
    """The dictionary in a JSON file; a sentence that names the file where there is none."""
    if not file.is_file():
        raise FileNotFoundError(f"{file} is missing: copy or download the whole folder again")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:  # also of the encoding
        raise ValueError(f"{file} is no JSON ({error}): copy or download it again") from error
    if not isinstance(content, dict):
        raise ValueError(f"{file} holds a {type(content).__name__}, not a dictionary of settings")
    return content


def check_pipeline(folder: Path) -> None:
    """Refuse a pipeline's folder that names what is not on the lists, or that lacks a part."""
    index = read_json(folder / "model_index.json")
    for name, said in index.items():
        if name.startswith("_") or said is None or isinstance(said, (bool, int, float, str)):
            continue
        if not isinstance(said, list) or len(said) != 2:
            raise ValueError(f"{folder / 'model_index.json'}: {name} is {said!r}; it is no part")
        if said == [None, None]:
            continue
        if tuple(map(str, said)) not in COMPONENTS.get(name, ()):
            raise ValueError(
                f"{folder / 'model_index.json'} wants {said[1]} of {said[0]} as its {name}, which "
                "blendlab does not open: its code might be anybody's"
            )
        if name not in ("safety_checker", "feature_extractor"):  # these are left out
            _check_part(folder / name, said[1])
    for file in folder.rglob("*.json"):
        if file.stat().st_size < 2**20:  # not a vocabulary
            no_code(file)


def _check_part(folder: Path, kind: str) -> None:
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is missing: copy or download the whole folder again")
    if kind.endswith("Scheduler"):
        scheduler(folder)
    elif "Tokenizer" not in kind:
        check_weights(folder, kind)


def scheduler(folder: Path) -> str:
    """The class of the scheduler in a folder, if it is one that we know."""
    name = read_json(folder / "scheduler_config.json").get("_class_name")
    if name not in SCHEDULERS:
        raise ValueError(
            f"{folder} names the scheduler {name!r}; blendlab opens {', '.join(sorted(SCHEDULERS))}"
        )
    return name


def no_code(file: Path) -> None:
    """Refuse a JSON file that asks for code of its own, at any depth."""

    def search(value):
        if isinstance(value, dict):
            for key, inner in value.items():
                if key in CODE and inner:
                    raise ValueError(
                        f"{file} sets {key}, which runs code of its folder: take that line out"
                    )
                search(inner)
        elif isinstance(value, list):
            for inner in value:
                search(inner)

    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        return  # whoever needs the file says what is wrong with it
    search(content)


def check_clip(folder: Path) -> None:
    """Refuse an open_clip folder that fetches a tower, runs code, or says what we do not read."""
    file = folder / "open_clip_config.json"
    config = read_json(file)
    no_code(file)
    strange = sorted(config.keys() - CLIP_KEYS)
    if strange or "model_cfg" not in config:
        raise ValueError(
            f"{file} has {', '.join(strange) or 'no model_cfg'}; it may have {', '.join(CLIP_KEYS)}"
        )
    text = config["model_cfg"].get("text_cfg", {})
    vision = config["model_cfg"].get("vision_cfg", {})
    fetched = {"hf_model_name": text.get("hf_model_name"), "timm": vision.get("timm_model_name")}
    for key, name in fetched.items():
        if name and (key == "hf_model_name" or ":" in name):
            raise ValueError(f"{file} takes a tower from elsewhere ({name}): blendlab does not")
    strange = sorted((text.get("tokenizer_kwargs") or {}).keys() - TOKENIZER_KEYS)
    if strange:
        raise ValueError(f"{file} has tokenizer_kwargs {', '.join(strange)}: take them out")
    for other in ("tokenizer_config.json", "tokenizer.json"):
        if (folder / other).is_file():
            no_code(folder / other)


def check_weights(folder: Path, kind: str) -> None:
    """Refuse a part whose safetensors are torn, lack weights, or hold other numbers than floats.

    kind: the class of diffusers or transformers that the folder holds.
    """
    import diffusers
    import transformers

    config = read_json(folder / "config.json")
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise FileNotFoundError(f"{folder} holds no .safetensors: copy or download them again")
    found = {}
    for file in files:
        found |= _kinds_of(file)
    with torch.device("meta"):
        if hasattr(diffusers, kind):
            wanted = getattr(diffusers, kind).from_config(config).state_dict()
        else:
            settings = transformers.CLIPTextConfig.from_dict(config)
            wanted = getattr(transformers, kind)(settings).state_dict()
    plain = lambda key: key.removeprefix("text_model.")  # noqa: E731
    found = {plain(key): dtype for key, dtype in found.items()}
    missing = [k for k in map(plain, wanted) if k not in found and not k.endswith("position_ids")]
    if missing:
        raise ValueError(
            f"{folder} lacks {len(missing)} of {len(wanted)} weights, as {missing[0]}: copy or "
            "download the files again"
        )
    wrong = [k for k, dtype in found.items() if dtype not in FLOATS and "position_ids" not in k]
    if wrong:
        raise ValueError(
            f"{folder} holds {found[wrong[0]]} numbers in {wrong[0]}: take weights in F16 or F32"
        )


def _kinds_of(file: Path) -> dict[str, str]:
    """Names and number formats of the tensors in a file, from its header alone."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "pt") as weights:
            kinds = {key: weights.get_slice(key).get_dtype() for key in weights.keys()}
    except SafetensorError as error:
        raise ValueError(f"{file} is torn ({error}): copy or download it again") from error
    for old, new in OLD.items():
        kinds = {key.replace(old, new): dtype for key, dtype in kinds.items()}
    return kinds


def check_finite(module, where) -> None:
    """Refuse a network with weights that are NaN or infinite."""
    for name, weight in module.named_parameters():
        if not weight.isfinite().all():
            raise ValueError(f"{where} has NaN or infinite numbers in {name}: copy it again")
