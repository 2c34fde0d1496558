"""The site: it builds without warnings, it needs nothing from elsewhere, and its front page edits.

It is built once into out/site. Needs the extra `site`, Node.js with npm, and for the tests of the
page Chromium and playwright; what cannot run is skipped. Screenshots go to out/site/shots/.
"""

import html
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from filelock import FileLock

import blendlab as bl
from blendlab import images
from blendlab.course.slides import chromium

ROOT = Path(__file__).parent.parent
OUT = ROOT / "out" / "site"
BUDGET = 15e6  # bytes of an edit's page, loaded for the first time


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """The built site's folder; BLENDLAB_SITE names one that is built already."""
    if os.environ.get("BLENDLAB_SITE"):
        return Path(os.environ["BLENDLAB_SITE"])
    needed = ("sphinx", "myst_nb", "sphinx_book_theme", "onnx", "onnxscript")
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} is missing: pip install 'blendlab[site]'")
    if not (shutil.which("node") and shutil.which("npm")):
        pytest.skip("Node.js is missing: apt-get install nodejs npm")
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID", str(os.getpid()))
    built = tmp_path_factory.getbasetemp().parent / f"site-{run}"  # of all workers of this run
    with FileLock(f"{built}.lock"):
        if not built.exists():
            build()
            built.touch()
    return OUT / "html"


def build():
    command = [sys.executable, "-W", "ignore", "site/make.py", "--out", OUT]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode and "npm" in done.stderr and not (OUT / "node_modules").is_dir():
        pytest.skip("npm cannot fetch the site's packages: connect, or run make site before")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="session")
def address(site):
    """Where a plain file server gives out the site."""
    with serve.served(site, Counting) as found:
        yield found


def script(name):
    """A module of the folder site/."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "site" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


serve = script("serve")


class Counting(serve.Quiet):
    """It counts the bytes that it sends."""

    sent = 0

    def copyfile(self, source, output):
        Counting.sent += os.fstat(source.fileno()).st_size if hasattr(source, "fileno") else 0
        super().copyfile(source, output)


@pytest.fixture
def page(browser, address):
    """An empty page; it notes errors, and what it asks of other servers."""
    opened = browser.new_page(viewport={"width": 1400, "height": 1000})
    opened.set_default_timeout(120_000)
    opened.troubles, opened.asked = [], []
    opened.on("pageerror", lambda error: opened.troubles.append(str(error)))
    opened.on("request", lambda asked: note(opened, asked.url, address))
    yield opened
    opened.close()
    assert not opened.troubles


def note(page, url, address):
    page.asked.append(url)
    if not url.startswith((address, "blob:", "data:")):
        page.troubles.append(f"asks {url}")


# --- the loop
# -------------------------------------------------------------------------------------


def rounded():
    """tinyworld as the browser gets it."""
    return script("export").rounded(bl.load("tinyworld"))


def in_node(site, **asked):
    """What the site's JavaScript answers."""
    command = ["node", ROOT / "tests" / "site_edit.mjs", site / "live"]
    done = subprocess.run(command, input=json.dumps(asked), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_same_seed_gives_the_same_latents_in_javascript_and_in_python(site):
    scene, mask = bl.data("scenes/meadow.png"), bl.data("masks/meadow.png")
    words = "A red mushroom, on grass at sunset."
    ours = bl.blended_latent(rounded(), scene, mask, words, seed=3, paste=True)
    picture, where = images.image(scene).flatten().tolist(), images.mask(mask).flatten().tolist()
    seen = in_node(site, picture=picture, mask=where, words=words, seed=3)
    latents = torch.tensor(seen["latents"]).view_as(ours.latents)
    assert (latents - ours.latents).abs().max() < 1e-3
    assert (torch.tensor(seen["picture"]).view_as(ours.tensor) - ours.tensor).abs().max() < 1e-3
    length = len(seen["tokens"])
    tokenizer = bl.load("tinyworld").tokenizer
    wanted = tokenizer(words, padding="max_length", max_length=length).input_ids
    assert seen["tokens"] == wanted


def test_weights_of_8_bits_change_an_edit_little():
    given = bl.data("scenes/meadow.png"), bl.data("masks/meadow.png"), "a red mushroom"
    full, small = (bl.blended_latent(pipe, *given) for pipe in (bl.load("tinyworld"), rounded()))
    error = (full.tensor - small.tensor).square().mean().sqrt()
    assert error < 0.02  # 1% of the range from -1 to 1


@pytest.mark.parametrize(
    "change, sentence",
    [
        ({"words": "a red zebra"}, "does not know “zebra”. It knows an, and, art"),
        ({"words": "a " * 40}, "40 words, and the model reads 30"),
        ({"mask": "nowhere"}, "Nothing is painted"),
        ({"mask": "a pixel"}, "paint it thicker"),
    ],
    ids=["unknown word", "too long", "nothing painted", "too thin"],
)
def test_what_cannot_be_edited_is_refused_before_any_network_runs(site, change, sentence):
    size = json.loads((site / "live" / "model.json").read_text())["size"]
    masks = {"nowhere": [0] * size**2, "a pixel": [1] + [0] * (size**2 - 1)}
    asked = {"words": "a red cat", "mask": [1] * size**2} | change
    asked["mask"] = masks.get(change.get("mask"), asked["mask"])
    answer = in_node(site, picture=[0] * 3 * size**2, seed=0, refused=True, **asked)
    assert sentence in answer["error"]


def test_the_loop_fits_in_200_lines():
    lines = (ROOT / "site" / "live" / "edit.js").read_text().splitlines()
    assert len(lines) < 200


# --- the panel
# -------------------------------------------------------------------------------------

PIXELS = """async (selector) => {
  const image = document.querySelector(selector);
  if (image.decode) await image.decode();
  const canvas = document.createElement("canvas");
  canvas.width = image.naturalWidth ?? image.width;
  canvas.height = image.naturalHeight ?? image.height;
  const context = canvas.getContext("2d");
  context.drawImage(image, 0, 0);
  return [...context.getImageData(0, 0, canvas.width, canvas.height).data];
}"""
WATCH = """() => {
  window.gaps = [];
  let last = performance.now();
  setInterval(() => { window.gaps.push(performance.now() - last); last = performance.now(); }, 20);
}"""


def pixels(page, selector):
    """The pixels of a picture or canvas, (H * W, 4)."""
    return torch.tensor(page.evaluate(PIXELS, selector)).view(-1, 4)


def panel(page, address):
    page.goto(f"{address}/index.html")
    page.wait_for_selector("#live[data-state=idle]")
    assert page.evaluate("crossOriginIsolated"), "the networks have threads"


def shot(page, name):
    folder = OUT / "shots"
    folder.mkdir(exist_ok=True)
    page.screenshot(path=folder / f"{name}.png")


def test_a_person_paints_and_edits_and_only_the_painted_part_changes(page, address):
    start = Counting.sent
    panel(page, address)
    networks = [url for url in page.asked if url.endswith((".onnx", ".bin"))]
    assert not networks, "the model loads at the first touch, not before"
    page.get_by_role("radio", name="beach").check(force=True)
    page.get_by_role("button", name="Clear").click()
    canvas = page.locator(".bl-painter canvas").bounding_box()
    x, y, side = canvas["x"], canvas["y"], canvas["width"]
    page.mouse.move(x + 0.2 * side, y + 0.3 * side)
    page.mouse.down()
    for row in range(3):
        page.mouse.move(x + 0.4 * side, y + (0.3 + 0.1 * row) * side, steps=4)
        page.mouse.move(x + 0.2 * side, y + (0.35 + 0.1 * row) * side, steps=4)
    page.mouse.up()
    page.get_by_role("button", name="blue").click()
    page.get_by_role("button", name="balloon").click()
    assert page.get_by_label("Choose words").input_value() == "a blue balloon"

    page.evaluate(WATCH)
    page.get_by_role("button", name="Edit").click()
    page.wait_for_selector("#live[data-state=busy] .bl-view:not([hidden])", timeout=240_000)
    shot(page, "steps")
    page.wait_for_selector("#live[data-state=done]", timeout=240_000)
    shot(page, "edited")

    painted = pixels(page, ".bl-painter canvas")[:, 3] > 0
    before = pixels(page, ".bl-painter img")[:, :3]
    after = pixels(page, ".bl-viewer .bl-after")[:, :3]
    assert 0.02 < painted.float().mean() < 0.3
    assert torch.equal(before[~painted], after[~painted]), "outside the mask the scene survives"
    change = (before[painted] - after[painted]).abs().float().mean()
    assert change > 8, "the edit shows"
    assert sorted(page.evaluate("window.gaps"))[-3] < 1000, "the page answers while it edits"
    assert 8e6 < Counting.sent - start < BUDGET
    frames = page.locator(".bl-frame").get_attribute("max")
    page.locator(".bl-frame").fill("1")
    first = pixels(page, ".bl-viewer .bl-after")[:, :3]
    assert int(frames) > 5 and not torch.equal(first, after), "the film holds the steps"


CARD = """async () => {
  const { RUNTIMES, open } = await import("/live/networks.js"), { module, file } = RUNTIMES.webgpu;
  const ort = await import("/live/ort/" + module), get = (name) => fetch("/live/" + name);
  const bytes = async (name) => new Uint8Array(await (await get(name)).arrayBuffer());
  const unpacked = (await get(file)).body.pipeThrough(new DecompressionStream("gzip"));
  const wasmBinary = await new Response(unpacked).arrayBuffer();
  const wasmPaths = location.origin + "/live/ort/";
  Object.assign(ort.env.wasm, { wasmBinary, numThreads: 1, wasmPaths });
  const model = await (await get("model.json")).json(), files = {};
  for (const name in model.networks) files[name] = await bytes(name + ".onnx");
  const tried = () => open(ort, model, files, "webgpu").then(() => "right", (e) => e.message);
  const right = await tried();
  model.probe.values[0] += 1;
  return [right, await tried()];
}"""


@pytest.mark.slow  # the CPU imitates the graphics card
def test_a_graphics_card_is_used_if_it_gets_the_numbers_that_pytorch_got(browser, address):
    """Shown on one that the CPU imitates, which the page itself leaves alone as too slow."""
    flags = ["--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader", "--no-sandbox"]
    other = browser.browser_type.launch(executable_path=chromium(), args=flags)
    try:
        page = other.new_page()
        page.goto(f"{address}/live/model.json")
        adapter = "async () => Boolean(await navigator.gpu?.requestAdapter())"
        if not page.evaluate(adapter) or not page.evaluate("'Suspending' in WebAssembly"):
            pytest.skip("this Chromium has no WebGPU, or none with SwiftShader")
        right, wrong = page.evaluate(CARD)
    finally:
        other.close()
    assert right == "right"
    assert "other numbers than PyTorch" in wrong


def test_keys_alone_paint_edit_and_stop(page, address):
    panel(page, address)
    page.locator(".bl-painter canvas").focus()
    page.keyboard.press("Delete")
    page.keyboard.down(" ")
    for _ in range(6):
        page.keyboard.press("Shift+ArrowRight")
    page.keyboard.up(" ")
    assert "painted" in page.locator(".bl-painter .bl-status").inner_text()
    assert (pixels(page, ".bl-painter canvas")[:, 3] > 0).any()
    words = page.get_by_label("Choose words")
    words.focus()
    words.fill("a red zebra")
    page.keyboard.press("Enter")
    page.get_by_role("alert").filter(has_text="does not know “zebra”").wait_for(timeout=240_000)
    words.fill("a red cat")
    page.keyboard.press("Enter")
    page.wait_for_selector(".bl-view:not([hidden])", timeout=240_000)
    page.get_by_role("button", name="Stop").focus()
    page.keyboard.press("Enter")
    page.locator(".bl-viewer .bl-status", has_text="Stopped").wait_for(timeout=60_000)
    page.wait_for_timeout(1500)
    assert page.locator("#live").get_attribute("data-state") == "idle", "a stopped edit stays so"


# --- the pages
# -------------------------------------------------------------------------------------


class Outline(HTMLParser):
    """The levels of headings, pictures without alternative text, and what a page loads."""

    def __init__(self, text):
        super().__init__()
        self.levels, self.bare, self.loads = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        if re.fullmatch("h[1-6]", tag):
            self.levels.append(int(tag[1]))
        if tag == "img" and not given.get("alt", "").strip():
            self.bare.append(given.get("src"))
        if tag in ("img", "script", "iframe", "source"):
            self.loads.append(given.get("src") or "")
        if tag == "link" and given.get("rel") in ("stylesheet", "icon", "preload"):
            self.loads.append(given.get("href") or "")


def outlines(site):
    pages = [path for path in site.rglob("*.html") if path.parent.name != "_static"]
    return {path.relative_to(site).as_posix(): Outline(path.read_text()) for path in pages}


def test_every_notebook_paper_table_and_module_has_a_page(site):
    made = set(outlines(site))
    wanted = {f"notebooks/{path.stem}.html" for path in (ROOT / "notebooks").glob("*.ipynb")}
    assert wanted | {"glossary.html", "times.html", "data/phenomena.html"} <= made
    claims = (site / "data" / "results" / "index.html").read_text()
    claims = html.unescape(re.sub("<[^>]+>", "", claims))  # what one copies from the page
    tables = (ROOT / "data" / "results").glob("*.json")
    assert all(json.loads(path.read_text())["command"] in claims for path in tables)
    times = (site / "times.html").read_text()
    assert times.count("GB of memory") >= len(list((ROOT / "notebooks").glob("*.ipynb")))
    core = (site / "api" / "core.html").read_text()
    assert 'id="blendlab.sampler.sample"' in core


def test_headings_are_in_order_and_pictures_have_alternative_text(site):
    for name in outlines(site):
        article = re.search("(?s)<article.*</article>", (site / name).read_text())
        if name in ("search.html", "genindex.html"):
            continue
        outline = Outline(article[0])
        steps = [(a, b) for a, b in zip(outline.levels, outline.levels[1:], strict=False)]
        assert outline.levels[0] == 1 and outline.levels.count(1) == 1, name
        assert all(b <= a + 1 for a, b in steps), f"{name}: {outline.levels}"
        assert not outline.bare, f"{name}: {outline.bare}"


def test_nothing_is_loaded_from_elsewhere(site):
    for name, outline in outlines(site).items():
        assert not [url for url in outline.loads if re.match("(https?:)?//", url)], name


def test_equations_are_set_without_a_network(page, address):
    page.goto(f"{address}/notebooks/03_latent_blending.html")
    page.wait_for_selector("mjx-container svg", timeout=60_000)
    assert page.locator("mjx-container").count() > 10
    assert page.locator("mjx-merror, [data-mjx-error]").count() == 0
    shot(page, "equations")


SEEN = [
    "index", "lessons", "glossary", "times", "data/results/index", "data/phenomena",
    "data/MODEL_CARD", "api/core", "notebooks/03_latent_blending",
]  # fmt: skip


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("name", SEEN)
def test_pages_are_accessible_and_fit_a_phone(page, address, site, name, theme):
    page.emulate_media(color_scheme=theme)
    page.goto(f"{address}/{name}.html")
    if name == "index":
        page.wait_for_selector("#live[data-state=idle]")
    shot(page, f"{name.replace('/', '-')}-{theme}")
    page.add_script_tag(path=OUT / "node_modules" / "axe-core" / "axe.min.js")
    rules = {"runOnly": ["wcag2a", "wcag2aa"]}
    found = page.evaluate("rules => axe.run('main', rules).then(r => r.violations)", rules)
    told = [f"{v['id']}: {v['nodes'][0]['html'][:150]} ({len(v['nodes'])} times)" for v in found]
    assert not told, "\n".join(told)
    page.set_viewport_size({"width": 390, "height": 844})
    shot(page, f"{name.replace('/', '-')}-{theme}-narrow")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390, "it scrolls sideways"
