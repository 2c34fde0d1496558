"""The networks of an edit in a browser tab: tinyworld as ONNX files, and what the page must know.

Weights travel as whole numbers of 8 bits with one scale for each output channel, and become float32
in the browser before the first call. Sizes come from the model. Next: live/edit.js, our loop.
"""

import copy
import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

import blendlab as bl
from blendlab import cards, door, latents, masks
from blendlab.papers.blended_latent import FALLBACK
from blendlab.schedule import Schedule
from blendlab.world import scenes

SMALL = 1024  # weights of fewer numbers stay float32
FINE = 10_000  # the same for the UNet: an edit hangs on the small weights of its outer level
PARTS = ("text_encoder", "unet", "vae")


def rounded(pipe):
    """The pipeline with its weights on the grid of 8 bits that the browser gets; itself a copy."""
    pipe = copy.copy(pipe)
    for part in PARTS:
        network = copy.deepcopy(getattr(pipe, part)).float()
        for weight in network.parameters():
            if weight.ndim > 1 and weight.numel() >= (FINE if part == "unet" else SMALL):
                scale = weight.detach().flatten(1).abs().amax(1).clamp(min=1e-12) / 127
                scale = scale.view(-1, *[1] * (weight.ndim - 1))
                weight.data = (weight.data / scale).round() * scale
        setattr(pipe, part, network)
    return pipe


class _Calls(torch.nn.Module):
    """A function of tensors as a module with the networks that it calls, as exporting wants it."""

    def __init__(self, function, network):
        super().__init__()
        self.function, self.network = function, network

    def forward(self, *given):
        return self.function(self.network, *given)


def export(pipe, folder: Path) -> dict:
    """Write the networks of `pipe` (already rounded) and the scenes; return what model.json says
    of them.
    """
    card = cards.card(pipe)
    picture = torch.zeros(1, 3, card["size"], card["size"])
    z = latents.encode(pipe.vae, picture)  # (1,C,h,w)
    length = pipe.tokenizer.model_max_length
    text = torch.zeros(2, length, pipe.unet.config.cross_attention_dim)
    both, levels = torch.cat([z, z]), torch.tensor([500.0, 500.0])

    calls = {  # name: function, network, what it is given
        "text": (lambda net, ids: net(ids)[0], pipe.text_encoder, (torch.zeros(2, length).int(),)),
        "unet": (lambda net, x, t, text: net(x, t, text).sample, pipe.unet, (both, levels, text)),
        "encode": (latents.encode, pipe.vae, (picture,)),
        "decode": (latents.decode, pipe.vae, (z,)),
    }
    for name, (function, network, given) in calls.items():
        module = _Calls(function, network).eval()
        how: dict = {"input_names": [f"in{i}" for i in range(len(given))], "output_names": ["out"]}
        if name == "unet":  # squares of any size that the network can halve
            side = door.step(pipe.unet) * torch.export.Dim("side", min=2)
            how["dynamic_shapes"] = {"given": ({2: side, 3: side}, None, None)}
        program = torch.onnx.export(module, given, dynamo=True, verbose=False, **how)
        onnx.save(compressed(program.model_proto), folder / f"{name}.onnx")

    model = described(pipe, card, tuple(z.shape[1:]))
    model["probe"] = probe(pipe.unet, both, levels, text)
    model["networks"] = {name: (folder / f"{name}.onnx").stat().st_size for name in calls}
    shutil.copytree(bl.data("scenes"), folder / "scenes", dirs_exist_ok=True)
    shutil.copytree(bl.data("masks"), folder / "masks", dirs_exist_ok=True)
    return model


@torch.no_grad()
def probe(unet, x, levels, text) -> dict:
    """A few numbers of one call on a wave, for a browser to see that its graphics card is right."""
    wave = torch.arange(x.numel()).sin().view_as(x)
    out = unet(wave, levels, text).sample.flatten()
    every = out.numel() // 64 - 1  # odd, so that they come from all rows and columns
    return {"every": every, "values": out[::every].tolist()}


def described(pipe, card, shape) -> dict:
    """What the loop must know of the model: its words, its levels, its numbers, its scenes."""
    how = FALLBACK | cards.settings(pipe, "blended_latent")
    schedule = Schedule.from_scheduler(pipe.scheduler)
    timesteps = schedule.timesteps(how["steps"], how["skip"])
    size = card["size"]
    pixels = torch.arange(size * size, dtype=torch.float64).view(1, 1, size, size)
    cells = masks.to_latent(pixels, shape[-2:], allow_empty=True)  # the pixel that a cell looks at
    tokenizer = pipe.tokenizer
    words = {word: tokenizer(word).input_ids[1:-1] for word in card["words"]}
    ends = [tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id]
    edits = json.loads(bl.data("edits.json").read_text())
    for name in edits:
        found = bl.images.image(bl.data(f"scenes/{name}.png")).shape[-2:]
        if found != (size, size):
            raise ValueError(
                f"scenes/{name}.png is {found[1]}x{found[0]} and the model paints {size}x{size}: "
                "make the scenes again (python data/make.py)"
            )
    return {
        "size": size,
        "shape": shape,
        "cells": cells.flatten().int().tolist(),
        "words": words,
        "ends": ends,
        "length": tokenizer.model_max_length,
        "width": pipe.unet.config.cross_attention_dim,
        "prediction": pipe.scheduler.config.prediction_type,
        "w": how["w"],
        "eta": how["eta"],
        "window": how["window"],
        "step": door.step(pipe.unet),
        "timesteps": timesteps,
        "levels": [schedule.levels(t) for t in timesteps[:-1]] + [schedule.target(-1)],
        "kinds": [kind for kind in scenes.KINDS if kind in words],
        "colours": [colour for colour in scenes.COLOURS if colour in words],
        "scenes": [{"name": name, **edit} for name, edit in edits.items()],
    }


def compressed(model):
    """The ONNX model with large weights of 8 bits, one scale for each channel; the same numbers, as
    the weights were rounded before.
    """
    graph, stored, made = model.graph, [], []
    for weight in graph.initializer:
        values = numpy_helper.to_array(weight)
        if weight.data_type != TensorProto.FLOAT or values.size < SMALL or values.ndim < 2:
            stored.append(weight)
            continue
        grids = (_grid(values, axis) for axis in range(values.ndim))
        whole, scale, error = min(grids, key=lambda grid: grid[2])
        if error > 1e-6 * np.abs(values).max():  # not a weight, but made of weights
            stored.append(weight)
            continue
        stored += [
            numpy_helper.from_array(whole, weight.name + ".whole"),
            numpy_helper.from_array(scale, weight.name + ".scale"),
        ]
        made += [
            helper.make_node("Cast", [weight.name + ".whole"], [weight.name + ".float"], to=1),
            helper.make_node(
                "Mul", [weight.name + ".float", weight.name + ".scale"], [weight.name]
            ),
        ]
    nodes = [*made, *graph.node]
    for node in nodes:  # where in Python each came from
        del node.metadata_props[:]
    del graph.node[:], graph.initializer[:], graph.value_info[:]
    graph.node.extend(nodes)
    graph.initializer.extend(stored)
    onnx.checker.check_model(model)
    return model


def _grid(values, axis):
    """Weights as whole numbers with a scale along an axis, and how far off they are at most."""
    others = tuple(i for i in range(values.ndim) if i != axis % values.ndim)
    scale = np.maximum(np.abs(values).max(others, keepdims=True), 1e-12) / np.float32(127)
    whole = np.round(values / scale).astype(np.int8)
    return whole, scale, np.abs(whole * scale - values).max()
