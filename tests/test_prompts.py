import json
from pathlib import Path

import checkpoints
import pytest
from transformers import CLIPTokenizer

from blendlab import cards, prompts

TINYWORLD = cards.WEIGHTS / "tinyworld"
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


def trained():
    """tinyworld's own tokenizer and card."""
    return Pipe(CLIPTokenizer.from_pretrained(TINYWORLD / "tokenizer"), TINYWORLD)


STRANGE = [
    "a red mushroom!",
    "a red \N{MUSHROOM}",
    "\u043a\u0440\u0430\u0441\u043d\u044b\u0439",
    "a (red) dog",
    "red/blue",
    "red_dog",
    "dog\0",
]
STRANGE += [
    "a \u2014 dog",
    "\u7ea2 dog",
    "dog\u200d",
    "dog's",
    "b",
    "a red-dog",
    "<|endoftext|>",
    "a dog; a cat",
]


@pytest.mark.parametrize("text", STRANGE)
def test_every_character_is_one_that_tinyworld_saw(text):
    with pytest.raises(ValueError, match="^tinyworld does not know .*; it knows an, and, art,"):
        prompts.check(trained(), text)


@pytest.mark.parametrize("text", ["", " ", "A red dog, on snow.", "a\tdog\n", "a  cat,a dog"])
def test_what_tinyworld_reads_passes(text):
    prompts.check(trained(), text)


@pytest.mark.parametrize("text", [None, 3, [], ["a dog"], b"a dog", 1.5, ("a", "dog")])
def test_what_is_no_text_is_refused(text):
    with pytest.raises(
        TypeError, match='^the prompt is (None|of type .*): pass a text, "" for none'
    ):
        prompts.check(trained(), text)


def test_a_negative_of_none_is_no_text():
    prompts.check(trained(), None, "negative")
    with pytest.raises(TypeError, match="^the negative is of type int"):
        prompts.check(trained(), 3, "negative")


@pytest.mark.parametrize("bad", [None, 5, {"a": 1}, [None], ["a", 3], [["a"]], (b"a",), iter("ab")])
def test_lists_hold_texts(bad):
    with pytest.raises(TypeError, match='^(the prompt|prompt number 1) is .*: pass a text, "" for'):
        prompts.listed(bad)


def test_an_empty_list_is_refused_and_good_ones_come_out_as_lists():
    with pytest.raises(ValueError, match="the prompt is an empty list"):
        prompts.listed([])
    assert prompts.listed("a") == ["a"] and prompts.listed(("a", "b")) == ["a", "b"]


def test_both_encoders_of_sdxl_are_asked(monkeypatch):
    pipe = Pipe(checkpoints.tokenizer())
    pipe.tokenizer_2 = checkpoints.tokenizer(pad="!")  # as SDXL's second one
    monkeypatch.setattr(pipe.tokenizer_2, "model_max_length", 12)
    prompts.check(pipe, "dog " * 10)
    with pytest.raises(ValueError, match="the second text encoder room for 10, .* drop 'cat'"):
        prompts.check(pipe, "dog " * 10 + "cat")


def test_a_mark_that_ends_a_text_early_is_refused():
    with pytest.raises(ValueError, match="takes for its start or end"):
        prompts.check(Pipe(checkpoints.tokenizer()), "a dog <|endoftext|> on snow")
