"""Tables: made, saved, shown and checked. Random networks, few tasks: this is about arithmetic."""

import functools
import json

import checkpoints
import pytest
import torch
from test_notebooks import made_again

from blendlab import cards, files, world
from blendlab.errors import Refused
from blendlab.measuring import (
    exemplars,
    index,
    latent_blending,
    metrics,
    noise_editing,
    pixel_blending,
    report,
    results,
    sweeps,
    tables,
)
from blendlab.networks import load as loading
from blendlab.networks.clip import load_clip
from blendlab.networks.judge import Found, Judge

SAVED = sorted(p.stem for p in (files.data() / "results").glob("*.json"))
SAVED = [name for name in SAVED if name not in results.ELSEWHERE]  # see test_precision.py


@pytest.fixture(scope="module")
def networks():
    """A latent pipeline and a judge that know nothing."""
    torch.manual_seed(0)
    judge = Judge(world.KINDS, world.COLOURS, widths=(8, 8)).eval().requires_grad_(False)
    return {"tinyworld": checkpoints.sd1(), "tinyworld-judge": judge}


@pytest.fixture
def quick(networks, monkeypatch, tmp_path):
    """Tables of those networks at two steps, saved in a folder of their own."""
    monkeypatch.setattr(loading, "load", networks.get)
    monkeypatch.setattr(cards, "settings", lambda pipe, method: dict(w=3.0, steps=2, skip=0.0))
    monkeypatch.setattr(files, "data", lambda: tmp_path)
    return tmp_path


@pytest.fixture
def toy(quick, monkeypatch):
    """A table without networks: task i succeeds if i is even, and measures i."""

    def toy(n):
        """Numbers that
        are <known>.

        Not shown.
        """
        i = torch.arange(n)
        return {
            "one": {"even": i % 2 == 0, "i (steps)": i.double()},
            "two": {"time (s)": (2.0, 1.5, 2.5)},
        }

    monkeypatch.setattr(results, "TABLES", {"toy": tables.Recipe(toy, 20, ())})
    return quick


@pytest.fixture
def run(run):
    """As `run` of conftest.py, but for `blendlab results`."""
    return functools.partial(run, "results")


# The tables of the course


def test_edits_reproduce_in_a_smaller_run(quick):
    whole, part = results.measure("edits", n=3), results.measure("edits", n=2)
    ours = whole["rows"][0]
    assert ours["latent outside exact"][0] == 1  # whatever the networks' weights
    assert ours["background (dB)"][0] > 0 and ours["an edit, 4 at once (s)"][0] > 0
    assert [len(row["first"]["class"]) for row in whole["rows"]] == [3, 3, 3]
    assert results.reproduces(whole, part) == "16 of 16 outcomes of the first 2 tasks are as saved"


def test_blending_measures_what_is_left_of_the_source(quick, networks):
    made = results.measure("blending", n=2)["rows"]
    rows = {row["label"]: row["left in the latent (rms)"][0] for row in made}
    assert rows["default"] == rows["start='noise'"] == rows["preset='diffusers'"] == 0
    # The last level of the published scripts is t = 0: a little noise, and a slightly darker
    # source.
    s = (1 - networks["tinyworld"].scheduler.alphas_cumprod[0].item()) ** 0.5
    assert rows["level='t', final='noised'"] > 0.5 * s and rows["preset='official-sd2'"] > 0


def test_the_judge_is_measured_on_objects(quick):
    renders, reconstructions = results.measure("judge", n=5)["rows"]
    assert renders["label"] == "renders" and 0 <= renders["class"][0] <= 1
    # a whole block of scenes, so over 15 objects
    assert 0 < renders["class"][2] - renders["class"][1] < 0.5


def test_words_are_judged_by_every_object_that_they_name():
    look = dict(x=0.3, y=0.6, size=0.15)
    pair = [dict(kind="cat", colour="red", **look), dict(kind="cat", colour="blue", **look)]
    scenes = world.scene("grass", "day", pair)
    cat = lambda colour: Found("cat", colour, 0.1, (0, 0, 1, 1))  # noqa: E731
    assert tables._shows([cat("red"), cat("blue")], scenes, 0) == (True, True)
    assert tables._shows([cat("red"), cat("red")], scenes, 0) == (True, False)
    assert tables._shows([cat("red")], scenes, 0) == (False, False)


def test_pictures_from_words_reproduce_in_a_smaller_run(quick):
    whole, part = results.measure("text_to_image", n=3), results.measure("text_to_image", n=2)
    assert [row["label"] for row in whole["rows"]] == ["one object", "two objects"]
    assert results.reproduces(whole, part) == "8 of 8 outcomes of the first 2 tasks are as saved"


def test_clip_is_asked_for_one_of_a_hundred(quick, networks, tmp_path):
    checkpoints.open_clip_folder(tmp_path / "clip")
    networks["tinyworld-clip"] = load_clip(tmp_path / "clip")
    rows = results.measure("clip", n=130)["rows"]
    assert [row["label"] for row in rows] == ["scenes", "objects on grey", "objects on black"]
    assert all(row["right of 100"][0] < 0.1 for row in rows)  # random weights
    assert tables._distinct(["a", "b", "a", "c", "b"]) == [0, 1, 3]


def test_settings_are_chosen_on_tasks_that_no_other_table_reports(quick, monkeypatch):
    seeds, tasks = [], metrics.tasks
    monkeypatch.setattr(sweeps, "LATENT", dict(list(sweeps.LATENT.items())[:2]))
    monkeypatch.setattr(metrics, "tasks", lambda *args: seeds.append(args[2]) or tasks(*args))
    rows = results.measure("settings", n=1)["rows"]
    how = "steps=25, skip=0.1, eta=1, window=64"
    assert [row["label"] for row in rows] == [f"w={w}, {how}" for w in (2, 1)]
    assert set(seeds) == {world.HELD_OUT + 1}


def test_the_autoencoder_is_measured_on_pictures(quick, networks, monkeypatch):
    monkeypatch.setattr(
        tables, "reconstructed", lambda pipe, images: images + 0.02
    )  # 1% of the range
    (row,) = results.measure("autoencoder", n=34)["rows"]
    assert row["PSNR (dB)"] == pytest.approx([40, 40, 40], abs=1e-3)
    assert row["objects (dB)"][0] == pytest.approx(40, abs=1e-3)
    assert len(row["first"]["PSNR (dB)"]) == results.KEPT


def test_every_table_says_what_it_measures():
    for name, recipe in results.TABLES.items():
        assert recipe.what.endswith(".") and len(recipe.what) > 60, name
        assert set(recipe.needs) <= set(cards.SHIPPED)


@pytest.mark.parametrize("name", SAVED)
def test_saved_tables_are_of_the_weights_that_ship(name):
    saved = results.load(name)
    assert saved["weights"] == {
        model: results.fingerprint(model) for model in results.TABLES[name].needs
    }, f"make it again with `{saved['command']}`"


# A few tasks of each saved table, measured here: seconds each, and so few that one may differ in
# rounding.
FEW = {
    "judge": 60,
    "autoencoder": 8,
    "clip": 100,
    "signs": 16,
    "tendency": 24,
    "exemplars": 3,
    "pixel": 8,
    "exemplar_masks": 6,
    "exemplar_sizes": 3,
    "repainting": 3,
    "tendency_eta": 24,
    "which_layer": 24,
}

# And of tables that compare many settings a few rows: those of the ends, or the quickest. (At eta 1
# objects land by chance, so any pictures would pass; "weights and paste" tunes as "weights" does.)
FEW_ROWS = [
    (sweeps, "LATENT", slice(2)),
    (sweeps, "PIXEL", slice(1)),
    (sweeps, "EXEMPLAR", slice(1)),
    (sweeps, "DECODER", slice(1, 2)),  # a third of the usual steps
    (tables, "BLENDINGS", slice(2)),
    (tables, "OPTIMIZERS", slice(0)),  # they do not ship
    (latent_blending, "TUNING", slice(0, 6, 5)),  # without the background; 10 steps
    (latent_blending, "WIDER", slice(1)),
    (latent_blending, "SCHEDULES", slice(0, None, 2)),
    (exemplars, "LADDER", slice(0)),  # its rungs do not ship
    (exemplars, "WEIGHTS", slice(0, None, 3)),
    (exemplars, "SIZES", slice(0, None, 3)),
    (noise_editing, "REMEDIES", slice(1)),
    (noise_editing, "LAYOUTS", slice(3, 4)),
    (noise_editing, "SHARED", slice(1)),
    (noise_editing, "ETAS", slice(1)),
    (noise_editing, "MOMENTS", slice(0, 4, 3)),
    (pixel_blending, "LAMBDAS", slice(2, 3)),
    (pixel_blending, "SHIFTS", slice(0, None, 2)),
    (pixel_blending, "SAMPLERS", slice(3, None, 4)),  # 10 steps of DDPM and of DDIM
]


TAUGHT = made_again("results.measure")
HERE = [name for name in SAVED if FEW.get(name, 1) > TAUGHT.get(name, 0)]


def test_what_lessons_make_again_is_saved():
    assert TAUGHT and all(map(results.saved, TAUGHT))


@pytest.fixture(scope="module")
def shipped():
    """Networks are loaded once: what a table left in one would show in the next."""
    return functools.cache(loading.load)


@pytest.fixture(scope="module")
def landings():
    """What two tables ask for is made once: where objects land with eta 0."""
    make, made = noise_editing.landings_of, {}

    def landings_of(pipe, judge, said, **how):
        key = (pipe, *said, *sorted(({"eta": 0.0} | how).items()))
        if key not in made:
            made[key] = make(pipe, judge, said, **how)
        return made[key]

    return landings_of


@pytest.mark.parametrize("name", HERE)
def test_saved_tables_come_out_again(name, shipped, landings, monkeypatch):
    monkeypatch.setattr(loading, "load", shipped)
    monkeypatch.setattr(noise_editing, "landings_of", landings)
    saved = results.load(name)
    for module, rows, some in FEW_ROWS:
        all_of_them = getattr(module, rows)
        pairs = all_of_them.items() if isinstance(all_of_them, dict) else all_of_them
        monkeypatch.setattr(module, rows, type(all_of_them)(list(pairs)[some]))
    few = ("plain", "noises=8", "around=1.5")
    monkeypatch.setattr(
        latent_blending, "SAMPLING", {name: latent_blending.SAMPLING[name] for name in few}
    )
    most = [method for method in latent_blending.METHODS if method != "weights"]
    monkeypatch.setattr(latent_blending, "METHODS", most)
    live = results.measure(name, n=FEW.get(name, 1))
    if any("first" in row for row in live["rows"]):
        # CLIP's gradient makes errors of rounding grow, and a batch of one rounds differently: one
        # result of a guided row may become another, with its class, colour and distance.
        guided = {"tinyworld-pixel", "tinyworld-clip"} <= saved["weights"].keys()
        results.reproduces(saved, live, **({"differ": 3, "near": 0.1} if guided else {"differ": 1}))
        return
    rows = {row["label"]: row for row in saved["rows"]}
    for row in live["rows"]:
        # Counted over all objects at once: the saved share lies in the small sample's interval.
        label = row.pop("label")
        for column, (_, low, high) in row.items():
            assert low - 0.02 <= rows[label][column][0] <= high + 0.02, (label, column)


# Making and saving


def test_results_of_one_prompt_count_once():
    alike = (torch.arange(12) % 3 == 0)[:, None].expand(12, 4)  # four results that always agree
    row = results._row("", {"in its box": alike})
    assert row["in its box"][0] == pytest.approx(1 / 3, rel=1e-4)
    _, low, high = metrics.proportion(4, 12)
    assert high - low == pytest.approx(row["in its box"][2] - row["in its box"][1], abs=0.08)
    assert row["first"] == {"in its box": "1111000000001111"}


def test_a_table_is_saved_with_all_that_made_it(toy):
    made = results.run("toy")
    assert results.load("toy") == made and [p.name for p in (toy / "results").iterdir()] == [
        "toy.json"
    ]
    assert made["what"] == "Numbers that are <known>." and made["n"] == 20
    assert (
        made["command"] == "blendlab results toy" and made["versions"]["torch"] == torch.__version__
    )
    one, two = made["rows"]
    assert one["even"] == pytest.approx(metrics.proportion(10, 20), rel=1e-4)
    assert one["i (steps)"] == pytest.approx(metrics.mean(range(20)), rel=1e-4)
    assert one["first"] == {"even": "10" * 8, "i (steps)": list(range(16))}
    assert two == {"label": "two", "time (s)": [2.0, 1.5, 2.5]}


@pytest.fixture
def drawn(toy, monkeypatch):
    """The same table with a figure of its own."""
    from PIL import Image

    rows = results.TABLES["toy"].function

    def make(n):
        """Numbers and a picture."""
        return rows(n), Image.new("RGB", (40, 30), (n, 0, 0))

    monkeypatch.setitem(results.TABLES, "toy", tables.Recipe(make, 20, ()))
    return toy / "results" / "toy.png"


def test_a_figure_counts_only_beside_its_own_table(drawn):
    results.run("toy")
    assert results.current("toy") and len(results.load("toy")["figure"]) == 12
    content = drawn.read_bytes()
    for torn in (content[:-20], b"", content + b"x"):
        drawn.write_bytes(torn)
        assert not results.current("toy")
        assert results.listing().startswith("toy (n = 20, but its figure is not of this table)")
    drawn.unlink()
    assert not results.current("toy")


def test_all_makes_what_is_missing_or_stale_and_leaves_the_rest(drawn, run):
    assert "1 tables; they take about 0 minutes" in run("all")[1]
    made = drawn.with_suffix(".json").read_bytes()
    assert run("all")[1].startswith("0 tables;")
    assert drawn.with_suffix(".json").read_bytes() == made
    drawn.unlink()
    assert run("all")[1].startswith("1 tables;") and results.current("toy")
    assert run("all", "-n", 3)[0] == 2


def test_all_goes_on_after_a_table_whose_networks_do_not_ship(toy, run, monkeypatch):
    def lacking(n):
        """What cannot be."""
        tables.unshipped("nowhere", tables.optimizers)

    recipes = {"first": tables.Recipe(lacking, 20, ()), "toy": results.TABLES["toy"]}
    monkeypatch.setattr(results, "TABLES", recipes)
    code, said, _ = run("all")
    assert code == 0 and "first is left out: runs/nowhere/export is missing" in said
    assert results.current("toy") and not results.saved("first")


def test_a_process_killed_while_it_draws_leaves_no_torn_figure(drawn, monkeypatch):
    results.run("toy")
    before = drawn.read_bytes(), drawn.with_suffix(".json").read_bytes()

    def killed(self, path, *_, **__):
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr("PIL.Image.Image.save", killed)
    with pytest.raises(KeyboardInterrupt):
        results.run("toy")
    assert (drawn.read_bytes(), drawn.with_suffix(".json").read_bytes()) == before
    assert results.current("toy") and len(list(drawn.parent.iterdir())) == 2


def test_a_smaller_table_replaces_no_saved_one_and_is_not_current(toy, run):
    whole = results.run("toy")
    code, out, _ = run("toy", "-n", 16)
    assert code == 0 and "Not saved: n is 16, the table has 20; -o FILE saves it." in out
    assert results.load("toy") == whole and results.current("toy")
    with pytest.raises(ValueError, match="n is 16, but the table toy has 20 tasks; name a file"):
        results.run("toy", 16)
    code, out, _ = run("toy", "-n", 16, "-o", toy / "new" / "few.json")
    assert code == 0 and "Not saved" not in out
    few = json.loads((toy / "new" / "few.json").read_text())
    assert few["n"] == 16 and few["command"] == "blendlab results toy -n 16"
    assert results.load("toy") == whole
    results.save(few, toy / "results" / "toy.json")  # as earlier versions did
    assert not results.current("toy") and "n = 16, but of 20 tasks" in run()[1]


@pytest.mark.parametrize("n", [0, -1, 1.5, True, 10**9])
def test_impossible_counts_of_tasks_are_refused(toy, n):
    with pytest.raises(ValueError, match=f"n is {n}; take a whole number from 1 to 100000"):
        results.measure("toy", n)


def test_the_page_of_phenomena_takes_few_tasks_and_saves_only_whole_ones(toy, run, monkeypatch):
    section = report.Section("Even ones", "toy", ("one", "even"), 0.1, "{more}, by chance {less}")
    monkeypatch.setattr(report, "SECTIONS", (section,))
    assert "100% [21, 100]" in run("phenomena", "-n", 1)[1] and not list(toy.iterdir())
    assert "n = 20" in run("phenomena", "--no-save")[1] and not list(toy.iterdir())
    page = toy / "few.md"
    assert "n = 6" in run("phenomena", "-n", 6, "-o", page)[1]
    assert "n = 6" in page.read_text() and list(toy.iterdir()) == [page]
    assert run("phenomena")[0] == 0
    assert (toy / "phenomena.md").read_text() == report.page() and results.current("toy")


def test_measuring_saves_nothing_and_says_how_many(toy):
    made = results.measure("toy", n=3)
    assert not list(toy.iterdir()) and made["command"] == "blendlab results toy -n 3"
    assert len(made["rows"][0]["first"]["even"]) == 3


def test_the_file_has_a_line_for_each_row(toy):
    results.run("toy")
    lines = (toy / "results" / "toy.json").read_text().splitlines()
    assert sum('"label"' in line for line in lines) == 2 and len(lines) < 16


def test_a_table_that_fails_leaves_the_saved_one_alone(toy):
    made = results.run("toy")
    with pytest.raises(RuntimeError):
        results.TABLES["toy"] = tables.Recipe(lambda n: torch.zeros(2) @ torch.zeros(3), 20, ())
        results.run("toy")
    assert json.loads((toy / "results" / "toy.json").read_text()) == made


def test_missing_and_unknown_tables_are_explained(toy):
    with pytest.raises(FileNotFoundError, match="make it with `blendlab results toy`"):
        results.table("toy")
    with pytest.raises(ValueError, match="there is no table 'dragon'; there are toy"):
        results.run("dragon")


def test_the_fingerprint_follows_the_weights(monkeypatch, tmp_path):
    monkeypatch.setattr(cards, "WEIGHTS", tmp_path)
    (tmp_path / "judge").mkdir()
    (tmp_path / "judge" / "a.json").write_text("1")
    before = results.fingerprint("judge")
    assert before == results.fingerprint("judge") and len(before) == 12
    (tmp_path / "judge" / "a.json").write_text("2")
    assert results.fingerprint("judge") != before


# Checking


@pytest.mark.parametrize("column, outcome", [("even", "0"), ("i (steps)", [0.5])])
def test_another_outcome_is_named(toy, column, outcome):
    saved, live = results.run("toy"), results.measure("toy", n=6)
    assert results.reproduces(saved, live).startswith("12 of 12 outcomes")
    live["rows"][0]["first"][column] = outcome + live["rows"][0]["first"][column][1:]
    with pytest.raises(
        AssertionError, match=f"1 of 12 .*one, {column.split()[0]}.*, task 0: .* was saved"
    ):
        results.reproduces(saved, live)
    assert results.reproduces(saved, live, differ=1).startswith("11 of 12")


def test_rounding_is_no_difference_and_nothing_to_compare_is_one(toy):
    saved, live = results.run("toy"), results.measure("toy", n=6)
    live["rows"][0]["first"]["i (steps)"][3] = 3.001
    assert results.reproduces(saved, live)
    live["rows"] = live["rows"][1:]
    with pytest.raises(AssertionError, match="0 of 0"):
        results.reproduces(saved, live)
    live["rows"] = [{"label": "three"}]
    with pytest.raises(Refused, match="'three' is no row of the saved table, which has: "):
        results.reproduces(saved, live)


# Showing


@pytest.mark.parametrize(
    "interval, column, shown",
    [
        ([0.83, 0.7719, 0.8758], "class", "83% [77, 88]"),
        ([0.984, 0.9775, 0.9886], "class", "98.4% [97.8, 98.9]"),
        ([27.4312, 27.213, 27.649], "PSNR (dB)", "27.4 [27.2, 27.6]"),
        ([0.52, 0.41, 1.9], "time (s)", "0.5 [0.4, 1.9]"),
        ([0.0293, 0.0291, 0.0295], "left (rms)", "0.0293 [0.0291, 0.0295]"),
        ([250.0, 190.0, 310.0], "steps (of 1000)", "250 [190, 310]"),
        ([0.0, 0.0, 0.0], "left (rms)", "0 [0, 0]"),
        ([27.4312, None, None], "PSNR (dB)", "27.4"),
        ([None, None, None], "PSNR (dB)", ""),
        (None, "class", ""),
    ],
)
def test_values_have_the_digits_that_their_interval_allows(interval, column, shown):
    assert results.text(interval, column) == shown


def test_a_table_shows_itself_everywhere(toy):
    results.run("toy")
    table = results.table("toy")
    shown = repr(table).splitlines()
    assert shown[0] == "Numbers that are <known>."
    assert "n = 20" in shown[-1] and "`blendlab results toy`" in shown[-1]
    assert len({len(line) for line in shown[2:6]}) == 1 and "50% [30, 70]" in shown[4]
    assert table._repr_markdown_() == repr(table)
    html = table._repr_html_()
    assert "&lt;known&gt;" in html and "<b>50%</b>" in html and "linear-gradient" in html
    assert html.count("<tr") == html.count("</tr>") == 3 and html.count("<td") == 6
    assert "<code>blendlab results toy</code>" in html


# The command line


def test_the_command_lists_the_tables(toy, run):
    code, out, _ = run()
    assert code == 0 and "toy (not saved yet)" in out and "Numbers that" in out
    results.run("toy")
    assert "toy (n = 20)" in run()[1]


def test_a_table_of_other_weights_is_marked(toy, run, monkeypatch):
    results.run("toy")
    recipe = tables.Recipe(results.TABLES["toy"].function, 20, ("tinyworld",))
    monkeypatch.setitem(results.TABLES, "toy", recipe)
    assert "made with other weights" in run()[1]


def test_the_command_makes_a_table(toy, run):
    code, out, err = run("toy", "-n", 4, "--no-save")
    assert code == 0, err
    assert "50% [15, 85]" in out and not list(toy.iterdir())
    assert run("toy")[0] == 0 and results.load("toy")["n"] == 20
    assert (toy / "results" / "index.md").is_file()


def test_the_page_begins_with_all_methods_side_by_side(toy):
    one = {"label": "mine", "batch precision": [0.5, 0.4, 0.6]}
    made = {"what": "Known.", "rows": [one], "n": 3, "command": "c", "seconds": 2.0}
    made |= {"device": "a CPU", "versions": {"torch": "1"}, "weights": {"mine": "0"}}
    results.save(made, toy / "results" / "precision.json")
    assert results.load("precision") == made
    page = index.page()
    assert page.index("## All methods side by side") < page.index("| mine | 50% [40, 60]")


def test_a_mistake_gets_a_sentence(toy, run):
    code, _, err = run("dragon")
    assert code == 2 and "there is no table 'dragon'" in err and "Traceback" not in err
