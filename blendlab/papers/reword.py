"""A changed prompt that keeps the source's attention (Prompt-to-Prompt, 2208.01626, section 3.2).

What a word looked at may be kept while the word is exchanged. The walk is ../walk.py's. Next:
repaint.py.
"""

from contextlib import contextmanager, nullcontext
from dataclasses import asdict, replace
from functools import partial
from os.path import commonprefix

import torch

from .. import attention, prompts
from ..edit import Edit
from ..errors import Refused
from ..guidance import stacked
from ..latents import decode
from ..options import number, takes
from ..schedule import read_from
from ..twins import twin
from ..walk import Drawing, Walk, admit, settled


@takes(Drawing)
@torch.no_grad()
def reword(
    pipe, prompt: str, changed: str, *,
    keep=0.8, image=None, noise=None, layers=None, negative="",
    n=1, seed=0, batch=None, first=0, **options,
) -> Edit:  # fmt: skip
    """Exchange words of a prompt; new ones first look where the old did. Return an `Edit`.

    Both prompts start from the same noise and run beside each other; for the first `keep` of the
    steps (section 3.2's tau) the maps of the prompt stand in the place of those of the changed one.

    prompt, changed: two texts with the same number of tokens, or that differ in one word
    keep:   share of the steps, 0 to 1; 0 is the changed prompt alone
    image:  start from the noise of a picture that the prompt describes (see invert); n are made of
            it
    noise:  start from this (1 or n,C,h,w); without both, seed draws it
    layers: in which of them, as in attention.capture; None: all
    w, steps, options: see walk.Drawing. n, seed, batch, first: sample i is the same whatever n,
            batch and first are

    settings["before"]: the pictures (n,3,H,W) of the prompt itself.
    """
    how = settled(Drawing, reword, pipe, options)
    number("keep", keep, whole=False)
    counts = dict(n=n, seed=seed, batch=batch, first=first)
    request = admit(pipe, [prompt, changed], negative, image, noise, how, **counts)
    mapping = mapped(pipe, prompt, changed)
    attention.cross_attention(pipe.unet, layers)

    with request.memory():
        unet = twin(pipe.unet)  # hooks go to the twin
        walk = Walk.of(pipe, prompt, how, negative, request.size, unet)
        other = Walk.of(pipe, changed, how, negative, request.size, unet)
        z, kept = walk.start(request), walk.timesteps[: round(keep * how.steps)]

        parts = []
        for rows, part in request.batches(z=z):
            m, pair = len(rows), torch.cat([part.z, part.z])  # (2m,C,h,w)
            both = replace(walk, text=stacked(walk.text, other.text, m))
            within = _while(kept, partial(same_attention, unet, m, mapping, layers))
            pair = both.down(pair, request.noise("step", [*rows, *rows]), within)
            parts.append((*decode(pipe.vae, pair).split(m), pair[m:]))
    before, tensor, latents = zip(*parts, strict=True)
    used = dict(prompt=prompt, changed=changed, keep=keep, layers=layers, negative=negative)
    used |= {"before": torch.cat(before)} | read_from(pipe.scheduler) | asdict(how)
    return request.finish(tensor, latents, used)


@contextmanager
def same_attention(unet, n, mapping=None, layers=None):
    """In a `with`, the last n rows of a UNet's batch look where the n rows before them look.

    mapping: (tokens,tokens), from the tokens of those to the tokens of these; None: token by token.
    Hooks work out what such a layer would put out, so layers and processors stay what they are.
    """
    source, changed = slice(-2 * n, -n), slice(-n, None)

    def look(attn, args, kwargs, out):
        hidden, text, mask = args[0], kwargs["encoder_hidden_states"], kwargs.get("attention_mask")
        seen = mask if mask is None else mask[source]
        # (n,heads,cells,tokens)
        weights = attention.attention_weights(attn, hidden[source], text[source], seen)
        weights = weights if mapping is None else weights @ mapping.to(weights)
        values = attn.head_to_batch_dim(attn.to_v(text[changed]))  # (n*heads,tokens,d)
        x = attn.batch_to_head_dim(weights.flatten(0, 1).to(values.dtype) @ values)  # (n,cells,C)
        for part in attn.to_out:
            x = part(x)
        return torch.cat([out[:-n], x])

    layers = attention.cross_attention(unet, layers).values()
    with attention.hooked(dict.fromkeys(layers, look), after=True):
        yield


def mapped(pipe, prompt, changed):
    """Which tokens of a prompt stand for which of another: None (each for each), or a matrix.

    Where a word gives way to one of more or fewer pieces, what the old pieces got is shared by the
    new ones (section 3.2, word swap), and the tokens after it follow at their new places.
    """
    with prompts.one_at_a_time:
        old, new = (pipe.tokenizer.tokenize(text) for text in (prompt, changed))
    if len(old) == len(new):
        return None
    head = len(commonprefix([old, new]))
    tail = len(commonprefix([old[head:][::-1], new[head:][::-1]]))
    was, now = (pieces[head : len(pieces) - tail] for pieces in (old, new))
    if any(sum(piece.endswith("</w>") for piece in pieces) != 1 for pieces in (was, now)):
        raise Refused(
            f"the prompts have {len(old)} and {len(new)} tokens and differ in more than one word: "
            "replace one word by one, or words by as many tokens"
        )
    room, first = pipe.tokenizer.model_max_length, head + 1  # the start token is 0
    after, shift = first + len(was), len(now) - len(was)
    matrix = torch.eye(room)
    matrix[first:] = 0
    matrix[first:after, first : first + len(now)] = 1 / len(now)
    following = torch.arange(after, room)
    matrix[following, (following + shift).clamp(max=room - 1)] = 1
    return matrix


def _while(levels, context):
    """For Walk.steps: the context at these levels, nothing at others."""
    return lambda t: context() if t in levels else nullcontext()
