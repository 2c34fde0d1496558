"""What becomes of the words: refused when the model cannot read them, else encoded for the UNet.

Works for one text encoder (Stable Diffusion 1.x and 2.x, tinyworld) and for two (SDXL, 2307.01952).
Next: guidance.py, whose `cfg` takes the text and the null that `encode` returns.
"""

import re

import torch

from . import cards

SMALL = 5000  # a vocabulary below this holds whole words and no others; CLIP's has 49408 entries


def check(pipe, prompt: str):
    """Refuse a prompt with words that the model never saw, or too long for its encoder, naming the
    words.
    """
    name = re.split(r"[/\\]", str(pipe.name_or_path or "this model"))[-1]
    known_words(prompt, _known(pipe), name)

    for tokenizer in _tokenizers(pipe):
        ids, room = (
            tokenizer(prompt, truncation=False, verbose=False).input_ids,
            tokenizer.model_max_length,
        )
        if len(ids) > room:
            dropped = tokenizer.decode(
                ids[room - 1 : -1]
            ).strip()  # the end token takes the last place
            raise ValueError(
                f"the prompt has {len(ids) - 2} tokens and the text encoder room for {room - 2}, "
                f"so it would drop '{dropped}': shorten it"
            )


@torch.no_grad()
def encode(pipe, prompts: list[str], negative: str = "", size: tuple[int, int] = (512, 512)):
    """(text, null) as `cfg` takes them: tensors (B, L, d), or for SDXL dicts of the UNet's
    arguments.

    negative: what to steer away from, in the null's place. size: (H, W) of the picture, which SDXL
              is told.
    """
    device = (
        pipe._execution_device
    )  # where the networks run, also when they wait on the CPU for their turn
    encoded = pipe.encode_prompt(
        prompts,
        device=device,
        num_images_per_prompt=1,
        do_classifier_free_guidance=True,
        negative_prompt=[negative] * len(prompts) if negative else None,
    )
    if not hasattr(pipe, "text_encoder_2"):
        return encoded  # text, null

    # SDXL also hears a pooled embedding, and the sizes: of the original, of the crop's corner, of
    # the target.
    text, null, pooled, null_pooled = encoded
    time_ids = torch.tensor([[*size, 0, 0, *size]], dtype=torch.float32, device=device)  # (1,6)

    def arguments(tokens, pooled):
        added = {"text_embeds": pooled, "time_ids": time_ids.expand(len(tokens), -1)}
        return {"encoder_hidden_states": tokens, "added_cond_kwargs": added}

    return arguments(text, pooled), arguments(null, null_pooled)


def known_words(text: str, known, who: str) -> None:
    """Refuse a text with words outside `known` (None: all are), naming them and those that `who`
    knows.
    """
    strange = [word for word in re.findall(r"[\w'-]+", text.lower()) if known and word not in known]
    if strange:
        listed = ", ".join(sorted(word for word in known if len(word) > 1 and word.isalpha()))
        raise ValueError(f"{who} does not know {', '.join(map(repr, strange))}; it knows {listed}")


def _tokenizers(pipe):
    return [t for t in (pipe.tokenizer, getattr(pipe, "tokenizer_2", None)) if t is not None]


def _known(pipe):
    """The words that the model was trained on, or None where it reads any."""
    listed = cards.card(pipe).get("words")
    vocabulary = pipe.tokenizer.get_vocab()
    if listed or len(vocabulary) > SMALL:
        return listed and set(listed)
    return {token.removesuffix("</w>") for token in vocabulary if token.endswith("</w>")}
