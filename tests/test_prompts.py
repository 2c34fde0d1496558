import json
from pathlib import Path

import checkpoints
import pytest
from transformers import CLIPTokenizer

from blendlab import prompts

WORDS = ["red", "mushroom", "dog", "snow", "on", "a"]


class Pipe:
    """A pipeline as far as prompts go."""

    def __init__(self, tokenizer, name_or_path=None):
        self.tokenizer, self.name_or_path = tokenizer, name_or_path


@pytest.fixture
def small(tmp_path):
    """A tokenizer with a handful of whole words, each merged from its letters from left to
    right.
    """
    letters = [*"abcdefghijklmnopqrstuvwxyz,."]
    merges = {}  # in the order that they are made
    for word in WORDS:
        for i in range(1, len(word)):
            merges[word[:i], word[i] + "</w>" * (i == len(word) - 1)] = None
    tokens = [*letters, *[c + "</w>" for c in letters], *dict.fromkeys(map("".join, merges))]
    vocabulary = {token: i for i, token in enumerate([*tokens, "<|startoftext|>", "<|endoftext|>"])}
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary))
    (tmp_path / "merges.txt").write_text("\n".join(["#version: 0.2", *map(" ".join, merges)]))
    return CLIPTokenizer.from_pretrained(tmp_path, model_max_length=16)


def test_unknown_words_are_refused_with_the_known_ones(small):
    with pytest.raises(ValueError) as refused:
        prompts.check(Pipe(small, Path("/somewhere/tinyworld")), "A red dragon, on snow")
    assert (
        str(refused.value)
        == "tinyworld does not know 'dragon'; it knows dog, mushroom, on, red, snow"
    )


def test_known_words_pass_in_any_case_and_punctuation(small):
    prompts.check(Pipe(small), "A red DOG, on snow.")
    assert small.tokenize("red dog, snow") == ["red</w>", "dog</w>", ",</w>", "snow</w>"]


def test_a_model_can_list_its_words(small, tmp_path):
    (tmp_path / "blendlab.json").write_text(json.dumps({"words": ["a", "cat"]}))
    prompts.check(Pipe(small, str(tmp_path)), "a cat")
    with pytest.raises(ValueError, match="does not know 'dog'; it knows cat"):
        prompts.check(Pipe(small, str(tmp_path)), "a dog")


def test_a_large_vocabulary_reads_any_word():
    prompts.check(Pipe(checkpoints.tokenizer()), "a dragon of the jabberwocky kind, 4k")


def test_the_longest_prompt_that_fits_passes():
    prompts.check(Pipe(checkpoints.tokenizer()), "dog " * 75)
    with pytest.raises(ValueError, match="76 tokens .* room for 75, so it would drop 'cat'"):
        prompts.check(Pipe(checkpoints.tokenizer()), "dog " * 75 + "cat")
