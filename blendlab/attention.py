"""Where the words look: cross-attention maps of a UNet, and which token a word is.

For every cell of the picture a cross-attention layer weighs the tokens of the prompt (latent
diffusion, 2112.10752, section 3.3). Initial image editing (2305.03382) reads from the first step's
maps where an object will appear. Next: guidance.py, which stacks the two branches that `capture`
takes apart.
"""

import re
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from numbers import Integral

import torch
from torch import Tensor

from . import prompts
from .errors import Refused
from .options import choice


@dataclass
class Map:
    """What one layer did in one call of the network."""

    step: int  # position of the call: 0 is the first one of the capture
    layer: str  # as in "up_blocks.0.attentions.1.transformer_blocks.0.attn2"
    size: tuple[int, int]  # (h, w): the cells of this layer
    weights: Tensor  # (B,heads,h,w,tokens) float32, on the CPU; over the tokens they sum to 1


class Maps(list):
    """A list of `Map`, in the order in which the layers ran, that can be asked for one tensor."""

    def at(self, step=0, layers=None, size=None, heads="mean") -> Tensor:
        """One step's attention, (B,h,w,tokens): the mean over heads and over layers of one size.

        layers: as in `capture`. size: (h, w); needed where layers differ in it. heads: "mean", or
                one head's number.
        """
        found = [m for m in self if m.step == step and _named(m.layer, layers)]
        if not found:
            names = ", ".join(dict.fromkeys(m.layer for m in self))
            there = f"steps {sorted({m.step for m in self})} of {names}"
            raise Refused(f"no map is of step {step} and layers {layers!r}; there are {there}")
        sizes = sorted({m.size for m in found})
        if size is None and len(sizes) == 1:
            (size,) = sizes
        if size is None or tuple(size) not in sizes:
            cells = ", ".join(map(str, sizes))
            raise Refused(f"size is {size}; these maps have {cells} cells: choose one (h, w)")
        chosen = [m.weights for m in found if m.size == tuple(size)]
        least = min(w.shape[1] for w in chosen)
        whole = isinstance(heads, Integral) and not isinstance(heads, bool)
        if heads != "mean" and not (whole and 0 <= heads < least):
            raise Refused(f"heads is {heads!r}: take 'mean', or a number from 0 to {least - 1}")
        return torch.stack([w.mean(1) if heads == "mean" else w[:, heads] for w in chosen]).mean(0)


@contextmanager
def capture(unet, layers=None, branch="cond", steps=None, grad=False):
    """Collect the cross-attention maps of a UNet2DConditionModel within a `with`, as `Maps`.

    layers: part of a layer's name, or several: "up", ["mid", "up_blocks.0"]; None: all.
    branch: of cfg's pair of branches the one with the prompt, "uncond" the other, "both" every row
            of the batch as it came (under cfg without, then with the prompt). Where w is 1 there is
            no pair, and "cond" is all. A pair is a batch whose second half of latents repeats the
            first: so does a batch of your own that shows one noise to two prompts; take "both"
                   there.
    steps:  the calls to keep, as in (0,); None: all, which for 50 steps of Stable Diffusion is
            gigabytes.
    grad:   let gradients flow back through the maps, to train a network on where its words look.

    Layers and processors stay what they are: hooks read what the layers are given and work out the
    weights again, in float32, so the network's output is the same bit for bit. Every kept map waits
    for the GPU. What other threads run meanwhile is not seen.
    """
    chosen = cross_attention(unet, layers)
    choice("branch", branch, ("cond", "uncond", "both"))
    if steps is not None and not isinstance(steps, list | tuple | set | range):
        raise Refused(f"steps is {steps!r}: pass several, as in ({steps!r},)")
    maps = Maps()
    step, kept, rows, latent = -1, False, None, None  # of the call that runs now

    def begin(unet, args, kwargs):
        nonlocal step, kept, rows, latent
        step += 1
        kept = steps is None or step in steps
        if kept:
            x = args[0] if args else kwargs["sample"]
            rows, latent = _rows(x, branch), x.shape[-2:]

    def look(name, attn, args, kwargs):
        if kept:
            hidden, text = args[0][rows], kwargs["encoder_hidden_states"][rows]
            mask = kwargs.get("attention_mask")
            mask = mask if mask is None else mask[rows]
            with torch.set_grad_enabled(grad):
                weights = attention_weights(attn, hidden, text, mask)
            size = cells_of(weights.shape[2], *latent)
            maps.append(Map(step, name, size, weights.unflatten(2, size).cpu()))

    with hooked({unet: begin} | {attn: partial(look, name) for name, attn in chosen.items()}):
        yield maps


@contextmanager
def hooked(hooks, after=False):
    """Hooks {module: hook} for the length of a `with`; only this thread's calls run them.

    after: run them on what a module gave, not on what it gets. They are called with keyword
           arguments, as torch's hooks are with `with_kwargs=True`.
    """
    placed = _Hooks(hooks, after)
    with placed, placed, placed:  # each end removes all, so two more interrupts may cut it short
        placed.place()
        yield


class _Hooks:
    """Hooks that go dead at once, and then are removed, however often one tries."""

    def __init__(self, hooks, after):
        self.after, self.live, self.thread = after, True, threading.get_ident()
        self.hooks = [(module, self._own(hook)) for module, hook in hooks.items()]

    def _own(self, hook):
        def run(module, args, kwargs=None, *out):
            if self.live and threading.get_ident() == self.thread:
                return hook(module, args, kwargs, *out)

        return run

    def place(self):
        for module, hook in self.hooks:
            if self.after:
                module.register_forward_hook(hook, with_kwargs=True)
            else:
                module.register_forward_pre_hook(hook, with_kwargs=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.live = False
        kind = "_forward_hooks" if self.after else "_forward_pre_hooks"
        for module, hook in self.hooks:
            held, flags = getattr(module, kind), getattr(module, f"{kind}_with_kwargs")
            for key in [key for key, value in list(held.items()) if value is hook]:
                flags.pop(key, None)
                held.pop(key, None)


def cross_attention(unet, layers=None) -> dict:
    """The cross-attention layers by name: all, or those that `capture` takes for `layers`."""
    if not isinstance(unet, torch.nn.Module):
        raise Refused(f"unet is a {type(unet).__name__}: pass a network, as pipe.unet")
    parts = (layers,) if layers is None or isinstance(layers, str) else layers
    several = isinstance(parts, list | tuple) and parts
    if not several or not all(part is None or isinstance(part, str) and part for part in parts):
        raise Refused(
            f"layers is {layers!r}; pass part of a layer's name, several of them, or None for all"
        )
    every = {name: attn for name, attn in unet.named_modules() if name.endswith("attn2")}
    if not every:
        raise Refused(
            f"unet is a {type(unet).__name__} that reads no words, so it has no cross-attention: "
            "pass the UNet of a text-to-image model"
        )
    chosen = {name: attn for name, attn in every.items() if _named(name, layers)}
    if not chosen:
        raise Refused(
            f"no cross-attention layer has {layers!r} in its name; they are: {', '.join(every)}"
        )
    return chosen


def tokens(pipe, prompt: str, word: str) -> list[int]:
    """Where a word or phrase stands among the tokens of a prompt; the start token is 0.

    A word of several pieces has several places; so has one that occurs several times.
    """
    prompts.check(pipe, prompt)
    prompts.listed(word, "word")
    with prompts.one_at_a_time:
        pieces, wanted = (pipe.tokenizer.tokenize(text) for text in (prompt, word))
    n = len(wanted)
    # A word's last piece ends with </w>, so words begin after such a piece: no "cat" in "bobcat".
    starts = [i for i in range(len(pieces)) if i == 0 or pieces[i - 1].endswith("</w>")]
    found = {i + k + 1 for i in starts if pieces[i : i + n] == wanted for k in range(n)}
    if not found:
        there = ", ".join(dict.fromkeys(re.findall(r"[\w'-]+", prompt)))
        raise Refused(f"{word!r} is not in the prompt; its words are: {there}")
    return sorted(found)


def _named(name, layers):
    """Whether a layer's name holds one of the parts asked for."""
    parts = [layers] if isinstance(layers, str) else layers
    return layers is None or any(part in name for part in parts)


def _rows(x, branch):
    """The rows of a batch that belong to a branch: cfg stacks [x, x], without the prompt first."""
    half = len(x) // 2
    pair = torch.equal(x[:half], x[half:])
    if branch == "uncond" and not pair:
        raise Refused(
            "this call has no branch without the prompt: take branch='cond', or another w"
        )
    if branch == "both" or not pair:
        return slice(None)
    return slice(half) if branch == "uncond" else slice(half, None)


def cells_of(cells, h, w):
    """(h, w) of a layer with that many cells: each level halves both sides, rounding up."""
    while h * w > cells:
        h, w = (h + 1) // 2, (w + 1) // 2
    return h, w


def attention_weights(attn, hidden, text, mask):
    """softmax(q k / sqrt(d)) over the tokens, (B,heads,cells,tokens), always in float32."""
    q = attn.head_to_batch_dim(attn.to_q(hidden)).float()  # (B*heads,cells,d)
    k = attn.head_to_batch_dim(attn.to_k(text)).float()  # (B*heads,tokens,d)
    if mask is not None:  # (B,1,tokens): 0, or far below where a token must not be seen
        mask = attn.prepare_attention_mask(mask, text.shape[1], len(text)).float()
    return attn.get_attention_scores(q, k, mask).unflatten(0, (-1, attn.heads))
