"""Threads: two that use one pipeline at once, as widgets do, each get what they get alone."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

import blendlab as bl
from blendlab import attention, prompts

HOW = dict(steps=3, w=3.0, seed=3)
MASK = torch.zeros(1, 1, 64, 64)
MASK[..., 16:48, 8:40] = 1
BOXES = [("car", (0.0, 0.0, 0.5, 1.0))]


def edit(pipe, image):
    return bl.blended_latent(pipe, image, MASK, "a red car", skip=0.0, **HOW).tensor


def tuning(pipe, image):
    z = torch.ones(1, 4, 8, 8)
    return bl.reconstruct(pipe, z, image, MASK, steps=3, lr=1e-2).tensor


def capturing(pipe, image):
    with attention.capture(pipe.unet) as maps:
        made = bl.reword(pipe, "a red car", "a red bus", keep=0.0, **HOW).tensor
    return torch.cat([made.flatten(), *(m.weights.flatten() for m in maps)])


def rewording(pipe, image):
    return bl.reword(pipe, "a red car", "a red bus", keep=1.0, **HOW).tensor


def laying_out(pipe, image):
    return bl.layout(pipe, "a red car", BOXES, guide="mask", strength=0.5, **HOW).tensor


BESIDE = [tuning, capturing, rewording, laying_out, edit]


def together(*tasks, times=2):
    """What tasks give that start at the same moment in a thread each, and again."""
    for _ in range(times):
        start = threading.Barrier(len(tasks))

        def run(task, start=start):
            start.wait()
            return task()

        with ThreadPoolExecutor(len(tasks)) as threads:
            yield [future.result() for future in [threads.submit(run, task) for task in tasks]]


def test_threads_take_turns_with_a_tokenizer(sd, monkeypatch):
    """It keeps how it pads as a state: without turns, now and then an edit died of two lengths."""
    order, begun, encode_prompt = [], threading.Event(), sd.encode_prompt

    def slow(*args, **kwargs):
        begun.set()
        time.sleep(0.3)
        order.append("encoded")
        return encode_prompt(*args, **kwargs)

    monkeypatch.setattr(sd, "encode_prompt", slow)
    thread = threading.Thread(target=prompts.encode, args=(sd, ["a red car"]))
    thread.start()
    begun.wait()
    prompts.check(sd, "a car")
    order.append("checked")
    thread.join()
    assert order == ["encoded", "checked"]


@pytest.mark.parametrize("beside", BESIDE)
def test_an_edit_beside_another_task_is_the_edit_alone(sd, image, beside):
    tasks = [lambda: edit(sd, image), lambda: beside(sd, image)]
    alone = [task() for task in tasks]
    for found in together(*tasks):
        assert torch.equal(found[0], alone[0]) and torch.equal(found[1], alone[1])


def test_two_that_tune_leave_the_autoencoder_and_each_gives_what_it_gives_alone(sd, image):
    before = {name: x.clone() for name, x in sd.vae.state_dict().items()}
    tasks = [lambda: tuning(sd, image), lambda: tuning(sd, image.flip(-1))]
    alone = [task() for task in tasks]
    for found in together(*tasks):
        assert all(map(torch.equal, found, alone))
    after = sd.vae.state_dict()
    assert all(torch.equal(x, after[name]) for name, x in before.items())


def test_a_capture_sees_its_own_thread_alone(sd):
    opened, done = threading.Event(), threading.Event()

    def other():
        opened.wait()
        with torch.no_grad():
            sd.unet(torch.zeros(1, 4, 8, 8), 10, torch.zeros(1, 77, 32))
        done.set()

    thread = threading.Thread(target=other)
    thread.start()
    with attention.capture(sd.unet) as maps:
        opened.set()
        done.wait()
        thread.join()
        assert not maps
        with torch.no_grad():
            sd.unet(torch.zeros(1, 4, 8, 8), 10, torch.zeros(1, 77, 32))
    assert len(maps) == 4
