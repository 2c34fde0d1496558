"""A CLIP tokenizer for tinyworld: byte-pair encoding in which every known word is one token.

The stock vocabulary would be larger than the whole model. Same files, same class, so that
transformers opens it. Read next: latent.py.
"""

import json
from pathlib import Path

from .. import files

START, END = "<|startoftext|>", "<|endoftext|>"
LETTERS = [chr(c) for c in range(33, 127) if not chr(c).isupper()]  # CLIP lowers the case first
LENGTH = 32  # tokens in a prompt, with start and end


def build_merges(words) -> list[tuple[str, str]]:
    """Byte-pair merges under which each word becomes one token.

    Word by word: encode it with the merges so far, then add the merges that join what is left. New
    merges rank behind the old ones, so they never change how an earlier word is encoded.
    """
    merges: list[tuple[str, str]] = []
    for word in words:
        pieces = encode(word, merges)
        while len(pieces) > 1:
            merges.append((pieces[0], pieces[1]))
            pieces = encode(word, merges)
    return merges


def encode(word: str, merges: list) -> list[str]:
    """Byte-pair encoding: join the neighbours whose merge came first, until none is left."""
    rank = {pair: i for i, pair in enumerate(merges)}
    pieces = [*word[:-1], word[-1] + "</w>"]
    while pairs := [
        (rank[p], i) for i, p in enumerate(zip(pieces, pieces[1:], strict=False)) if p in rank
    ]:
        i = min(pairs)[1]
        pieces[i : i + 2] = [pieces[i] + pieces[i + 1]]
    return pieces


def save_tokenizer(folder, words) -> None:
    """Write vocab.json, merges.txt and tokenizer_config.json for `words`."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    merges = build_merges(sorted(words))
    tokens = [*LETTERS, *(c + "</w>" for c in LETTERS), *(a + b for a, b in merges), START, END]
    vocab = {token: i for i, token in enumerate(tokens)}
    (folder / "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False, indent=0) + "\n")
    (folder / "merges.txt").write_text(
        "\n".join(["#version: 0.2", *(f"{a} {b}" for a, b in merges)]) + "\n"
    )
    special = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": END}
    config = special | {
        "model_max_length": LENGTH,
        "do_lower_case": True,
        "tokenizer_class": "CLIPTokenizer",
    }
    files.write_json(folder / "tokenizer_config.json", config)


def load_tokenizer(words):
    """The CLIPTokenizer of `words`."""
    from tempfile import TemporaryDirectory

    from transformers import CLIPTokenizer

    with TemporaryDirectory() as folder:
        save_tokenizer(folder, words)
        return CLIPTokenizer.from_pretrained(folder)


def tokenize(tokenizer, texts: list[str]):
    """The ids of texts, (n,LENGTH), padded."""
    options = {
        "padding": "max_length",
        "truncation": True,
        "max_length": LENGTH,
        "return_tensors": "pt",
    }
    return tokenizer(texts, **options).input_ids
