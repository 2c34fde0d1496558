"""What becomes of the words: refused when the model cannot read them, else encoded for the UNet.

Works for one text encoder (Stable Diffusion 1.x and 2.x, tinyworld) and for two (SDXL, 2307.01952).
Next: guidance.py, whose `cfg` takes the text and the null that `encode` returns.
"""

import re
import threading

import torch

from . import cards
from .errors import Refused, WrongType

SMALL = 5000  # a vocabulary below this holds whole words and no others; CLIP's has 49408 entries

# A tokenizer keeps how it pads and cuts as a state, so threads take turns.
one_at_a_time = threading.RLock()


def listed(prompt, name: str = "prompt") -> list[str]:
    """One text or several as a list of texts; TypeError or ValueError says which is none."""
    several = [prompt] if isinstance(prompt, str) else prompt
    if not isinstance(several, list | tuple):
        _check_text(prompt, f"the {name}")
    if not several:
        raise Refused(f'the {name} is an empty list: pass a text, "" for none')
    for i, text in enumerate(several):
        _check_text(text, f"{name} number {i}" if len(several) > 1 else f"the {name}")
    return list(several)


def check(pipe, prompt: str, name: str = "prompt"):
    """Refuse a prompt with words that the model never saw, or too long for an encoder."""
    if prompt is None and name == "negative":
        return
    _check_text(prompt, f"the {name}")
    reads_texts(pipe)
    model = re.split(r"[/\\]", str(pipe.name_or_path or "this model"))[-1]
    known_words(prompt, _known(pipe), model)
    fits(prompt, pipe.tokenizer, pipe.tokenizer.model_max_length, name)
    if second := getattr(pipe, "tokenizer_2", None):
        fits(prompt, second, second.model_max_length, name, "the second text encoder")


def reads_texts(pipe):
    """Refuse what has no tokenizer."""
    if getattr(pipe, "tokenizer", None) is None or not hasattr(pipe, "name_or_path"):
        raise Refused(f"{type(pipe).__name__} reads no texts: pass bl.load('tinyworld')")


def fits(text: str, tokenizer, room: int, name: str = "prompt", who: str = "the text encoder"):
    """Refuse a text of more tokens than `room`, or with a token that would end it early."""
    with one_at_a_time:
        ids = tokenizer(text, truncation=False, verbose=False).input_ids  # start, words, end
    marks = {tokenizer.bos_token_id, tokenizer.eos_token_id}
    if marks & set(ids[1:-1]):
        raise Refused(
            f"the {name} {text!r} holds what {who} takes for its start or end: leave out symbols "
            "and other scripts"
        )
    if len(ids) > room:
        dropped = tokenizer.decode(ids[room - 1 : -1]).strip()  # the end token takes the last place
        raise too_long(name, len(ids) - 2, who, room - 2, dropped)


def too_long(name, tokens, who, room, dropped) -> Refused:
    """The sentence on a text that would be cut."""
    return Refused(
        f"the {name} has {tokens} tokens and {who} room for {room}, so it would drop '{dropped}': "
        "shorten it"
    )


def _check_text(text, what):
    if not isinstance(text, str):
        kind = "None" if text is None else f"of type {type(text).__name__}"
        raise WrongType(f'{what} is {kind}: pass a text, "" for none')
    if re.search("[\ud800-\udfff]", text):
        raise Refused(f"{what} {text!r} holds half of a symbol: leave it out, or type it again")


@torch.no_grad()
def encode(pipe, prompts: list[str], negative: str = "", size: tuple[int, int] | None = None):
    """(text, null) as `cfg` takes them: (B,L,d), or for SDXL dicts of the UNet's arguments.

    negative: what to steer away from, in the null's place. size: (H, W) of the picture, which SDXL
              is told; None: the model's own.
    """
    # where the networks run, also when they wait on the CPU for their turn
    device = pipe._execution_device
    with one_at_a_time:
        encoded = pipe.encode_prompt(
            prompts,
            device=device,
            num_images_per_prompt=1,
            do_classifier_free_guidance=True,
            negative_prompt=[negative] * len(prompts) if negative else None,
        )
    if not hasattr(pipe, "text_encoder_2"):
        return encoded  # text, null

    # SDXL also hears a pooled embedding and sizes: original, corner of the crop, target.
    text, null, pooled, null_pooled = encoded
    size = size or (pipe.unet.config.sample_size * pipe.vae_scale_factor,) * 2
    time_ids = torch.tensor([[*size, 0, 0, *size]], dtype=torch.float32, device=device)  # (1,6)

    def arguments(tokens, pooled):
        added = {"text_embeds": pooled, "time_ids": time_ids.expand(len(tokens), -1)}
        return {"encoder_hidden_states": tokens, "added_cond_kwargs": added}

    return arguments(text, pooled), arguments(null, null_pooled)


def known_words(text: str, known, who: str) -> None:
    """Refuse a text with words or symbols outside `known` (None: all are), naming both."""
    parts = dict.fromkeys(re.findall(r"[\w'-]+|[^\w\s]", text.lower()))
    strange = [part for part in parts if known and part not in known]
    if strange:
        words = ", ".join(sorted(word for word in known if len(word) > 1 and word.isalpha()))
        raise Refused(f"{who} does not know {', '.join(map(repr, strange))}; it knows {words}")


def _known(pipe):
    """The words that the model was trained on, or None where it reads any."""
    listed = cards.card(pipe).get("words")
    if listed or len(pipe.tokenizer) > SMALL:
        return listed and set(listed)
    vocabulary = pipe.tokenizer.get_vocab()
    return {token.removesuffix("</w>") for token in vocabulary if token.endswith("</w>")}
