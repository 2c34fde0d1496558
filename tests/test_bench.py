"""bench/bench.py counts and divides rightly. How fast anything is, no test asks."""

import importlib.util
import json
import re
import statistics
import subprocess
import sys
import types
from collections import Counter
from pathlib import Path

import checkpoints
import pytest
import torch

import blendlab
from blendlab import masks, world
from blendlab.measuring import metrics, results

SPEC = importlib.util.spec_from_file_location(
    "bench", Path(__file__).parent.parent / "bench" / "bench.py"
)
bench = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(bench)


@pytest.fixture(scope="module")
def pipe():
    return checkpoints.sd1()


def test_the_program_prints_its_table_and_saves_all_that_was_measured(
    pipe, monkeypatch, tmp_path, capsys
):
    monkeypatch.setattr(bench, "tinyworld", lambda: pipe)
    bench.main(["--quick", "--pairs", "3", "--out", str(tmp_path / "new" / "results.json")])
    saved = json.loads((tmp_path / "new" / "results.json").read_text())
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["results.json"]
    assert (
        saved["versions"]["blendlab"] == blendlab.__version__
        and saved["device"]
        and saved["n"] == 3
    )

    # Every ratio is that of the seconds beside it, and both contestants asked the UNet as often.
    assert len(saved["rows"]) == 2 * 2  # n=1 and n=4, two ratios
    for row in saved["rows"]:
        a, b = row["seconds"]["A"], row["seconds"]["B"]
        ratios = [x / y for x, y in zip(a, b, strict=True)]
        ratio, low, high = row["A/B (ratio)"]
        assert row["pairs"] == 3 == len(ratios) and min(a + b) > 0
        assert ratio == pytest.approx(statistics.median(ratios), rel=1e-4)
        assert row["A (s)"][0] == pytest.approx(statistics.median(a), rel=1e-4)
        assert row["range"] == pytest.approx([min(ratios), max(ratios)], rel=1e-4)
        assert row["range"][0] <= low <= ratio <= high <= row["range"][1]
        assert row["calls"]["A"]["unet.forward"] == row["calls"]["B"]["unet.forward"] == 2

    printed = capsys.readouterr().out
    lines = [line.split("|")[1].strip() for line in printed.splitlines() if line.startswith("|")]
    assert lines[2:] == [row["label"] for row in saved["rows"]]
    assert saved["device"] in printed


def test_the_networks_alone_are_called_as_the_edit_calls_them(pipe):
    runs = bench.latent_edits(pipe, n=3, steps=4)
    edit, alone = (bench.network_calls(pipe, runs[name]) for name in ("edit", "networks"))
    assert [call[:2] for call in edit] == [call[:2] for call in alone]
    # a quarter of the four levels is skipped
    assert Counter(call[:2] for call in edit)["unet", "forward"] == 3
    for (_, _, args, kwargs), (_, _, again, kwargs_again) in zip(edit, alone, strict=True):
        torch.testing.assert_close(list(args), list(again))
        torch.testing.assert_close(kwargs, kwargs_again)
    assert "forward" not in vars(pipe.unet) and "encode" not in vars(
        pipe.vae
    )  # nothing is left behind


def test_two_passes_a_step_make_the_same_picture_with_twice_the_calls(tmp_path):
    model = bench.tinyworld_pixel()
    runs = bench.guided_edits(model, n=1, steps=2)
    once, twice = (
        Counter(call[:2] for call in bench.network_calls(model, runs[name]))["unet", "forward"]
        for name in ("guided", "twice")
    )
    assert twice == 2 * once > 0
    assert torch.equal(runs["guided"]().tensor, runs["twice"]().tensor)


def test_decoder_tuning_is_compared_at_the_same_background():
    pipe = blendlab.load("tinyworld")
    runs = bench.tunings(pipe, n=1, steps=8)
    image = world.render(world.sample(1, seed=world.HELD_OUT), 128).image
    mask = masks.from_box((0.25, 0.25, 0.75, 0.75), (128, 128))
    made = {name: run() for name, run in runs.items()}
    losses = {name: edit.settings["loss"] for name, edit in made.items()}
    assert len(losses["plain"]) == 8 and losses["plain"][-1] < losses["plain"][0]

    fewer = dict(plateau=0.0, precision="float32", steps=len(losses["tuned"]) - 1, **bench.TUNED)
    made["fewer"] = blendlab.reconstruct(pipe, made["plain"], image, mask, **fewer)
    tuned, plain, less = (
        metrics.background_error(made[name].tensor.cpu(), image, mask).item()
        for name in ("tuned", "plain", "fewer")
    )
    assert tuned <= plain < less  # no step more than it takes
    assert plain < 1.1 * tuned  # about as good, and not far better


def test_each_import_is_timed_in_a_process_of_its_own_that_has_read_its_files(monkeypatch):
    asked, run = [], subprocess.run

    def heard(words, **options):
        done = run(words, **options)
        asked.append((words[0] == sys.executable, *words[1:], done.returncode))

    monkeypatch.setattr(bench.subprocess, "run", heard)
    (row,) = bench.import_rows(1)
    once = [(True, "-c", f"import {name}", 0) for name in ("blendlab", "torch")]
    assert asked == 2 * once  # the first time no clock runs
    a, b = row["seconds"]["A"], row["seconds"]["B"]
    assert len(a) == len(b) == row["pairs"] == 1 and min(a + b) > 0
    assert row["label"].startswith("import blendlab / import torch")
    assert row["A/B (ratio)"][0] == pytest.approx(a[0] / b[0], rel=1e-4)


def test_contestants_take_turns_there_and_back():
    heard = []
    runs = {name: lambda name=name: heard.append(name) for name in "abc"}
    taken = bench.take_turns(runs, pairs=3)
    assert "".join(heard) == "abccbaabc" and {
        name: len(times) for name, times in taken.items()
    } == dict(a=3, b=3, c=3)


def test_training_steps_are_asked_of_workers_that_wait_in_between(monkeypatch, tmp_path):
    (tmp_path / "training_step.py").write_text(
        "import sys\nprint('noise')\nprint('ready', flush=True)\n"
        "for _ in sys.stdin:\n    print('more')\n    print('done', flush=True)\n"
        "    if sys.argv[1] == 'ends': break\n"
    )
    monkeypatch.setattr(bench, "HERE", tmp_path)
    (row,) = bench.training_rows(3)
    assert row["label"].startswith("two training steps") and row["pairs"] == 3
    assert min(row["seconds"]["A"] + row["seconds"]["B"]) > 0
    with bench.training_steps(["ends"]) as runs:
        runs["ends"]()
        with pytest.raises(RuntimeError, match="training_step.py ended before it said 'done'"):
            runs["ends"]()


def test_the_interval_of_the_median_holds_it_and_shrinks_with_more_pairs():
    assert bench.median([2.0]) == [2.0, 2.0, 2.0]
    few, many = (torch.linspace(1, 2, n).tolist() for n in (5, 101))
    assert bench.median(few)[0] == bench.median(many)[0] == 1.5
    # of 101 values, the 41st and the 61st bound the median in 95% of cases (binomial)
    assert bench.median(many)[1:] == pytest.approx([1.4, 1.6], abs=0.03)
    assert (
        bench.median(few)[1] < bench.median(many)[1]
        and bench.median(few)[2] > bench.median(many)[2]
    )


def test_without_diffusers_pipeline_its_row_is_left_out_with_a_sentence(pipe, monkeypatch):
    old = types.ModuleType("diffusers")
    old.__version__ = "0"
    monkeypatch.setitem(sys.modules, "diffusers", old)
    contest = bench.Contest("small", lambda: pipe, bench.latent_edits, counts=(1,), steps=2)
    result = bench.measure([contest], 1, "")
    assert [row["label"] for row in result["rows"]] == [
        f"small, n=1, 2 UNet calls: {bench.RATIOS[0][2]}"
    ]
    assert "left out" in result["notes"][0] and result["notes"][0] in bench.markdown(result)


def test_the_large_networks_have_stable_diffusions_size():
    networks = bench.sd15_networks("meta")
    sizes = {
        name: sum(p.numel() for p in network.parameters()) for name, network in networks.items()
    }
    assert sizes == {
        "unet": 859_520_964,
        "vae": 83_653_863,
        "text_encoder": 123_060_480,
    }  # as in the published files


def test_the_large_pipeline_edits_in_half_precision_and_is_called_random(monkeypatch):
    # The parts are small here; and the autoencoder is one that our edit runs in float32, diffusers
    # in float16.
    small = checkpoints.sd1()
    parts = dict(
        unet=small.unet, text_encoder=small.text_encoder, vae=checkpoints.autoencoder(0.18, True)
    )
    monkeypatch.setattr(bench, "sd15_networks", lambda device: parts)
    chosen = bench.contests(quick=True, large=True)
    assert [contest.load for contest in chosen] == [bench.tinyworld, bench.sd15_sized]
    pipe = chosen[1].load()
    assert pipe.tokenizer.model_max_length == 77
    pipe.to(torch.float16)
    result = bench.measure(
        [bench.Contest(chosen[1].label, lambda: pipe, bench.latent_edits, (1,), 1)], 1, ""
    )
    assert len(result["rows"]) == 2 and "random weights" in result["rows"][0]["label"]
    assert "not for pictures" in bench.markdown(result)


def test_no_pairs_are_refused(capsys):
    with pytest.raises(SystemExit):
        bench.main(["--pairs", "0"])
    assert "take 1 or more" in capsys.readouterr().err


def test_the_page_shows_the_committed_table():
    folder = Path(bench.__file__).parent
    saved, page = (
        json.loads((folder / "results.json").read_text()),
        (folder / "README.md").read_text(),
    )
    assert saved["command"] in page and saved["device"]
    shown = re.findall(r"\| (\S+ \[\S+ \S+\]) \|$", page, re.MULTILINE)
    ratios = [results.text(row["A/B (ratio)"], "A/B (ratio)") for row in saved["rows"]]
    assert shown == ratios
