"""What all tests share: no network, and no pictures in windows."""

import os
import socket
import sys
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = (
    "1"  # read when huggingface_hub is imported, so before any test module is
)
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.pop("BLENDLAB_MODEL", None)  # tests are about tinyworld

import pytest  # noqa: E402

FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"]
FLAGS += ["--disable-background-networking"]


# What takes longest, longest first. Tests that share nothing go one by one to whoever is free.
ALONE = ("test_it_runs_top_to_bottom", "test_saved_tables_come_out_again")
TOGETHER = ("again[tendency_eta]", "again[which_layer]")  # but these make the same pictures
LONG = ("test_site.py", "test_training.py", "test_browser.py", "test_precision.py")
LONG += ("test_other_models.py", "test_play.py", "test_wheel.py", "test_course.py")
# Interrupts want a fresh process: where cells of lessons have run, CPython 3.11 never comes out
# of a `with` that is traced.
FRESH = "test_interrupts.py"


def pytest_collection_modifyitems(items):
    """What takes longest comes first, so that workers side by side end together."""

    def turn(item):
        if item.path.name == FRESH:
            return -1
        if item.originalname in ALONE:
            return ALONE.index(item.originalname)
        return len(ALONE) + [*LONG, item.path.name].index(item.path.name)

    items.sort(key=turn)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """A file stays with one worker, which makes its fixtures once. (Marks of groups would say so
    too, but xdist 3.8 does not find them under pytest 9.2.)
    """
    from xdist.scheduler import LoadFileScheduling

    class Files(LoadFileScheduling):
        def _split_scope(self, nodeid):
            if nodeid.endswith(TOGETHER):
                return "together"
            alone = nodeid.split("[")[0].split("::")[-1] in ALONE
            return nodeid if alone else super()._split_scope(nodeid)

    return Files(config, log)


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Everything works offline, so a test that connects to another machine fails."""
    connect = socket.socket.connect

    def local_only(self, address):
        if self.family != socket.AF_UNIX and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise AssertionError(f"a test tried to connect to {address}")
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", local_only)


@pytest.fixture
def run(monkeypatch, capsys):
    """The command line: run(*arguments) -> (exit code, what it printed, what it complained)."""
    from blendlab import cli

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["blendlab", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        return end.value.code, *capsys.readouterr()

    return call


@pytest.fixture(scope="session")
def browser():
    """Headless Chromium, or a skip that says how to get it."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        pytest.skip("playwright is missing: pip install 'blendlab[browser]'")
    from blendlab.course.slides import chromium

    program = chromium()
    if not program or not Path(program).is_file():
        pytest.skip("Chromium is missing: apt-get install chromium, or set CHROMIUM to its path")
    with sync_playwright() as playwright:
        try:
            opened = playwright.chromium.launch(executable_path=program, headless=True, args=FLAGS)
        except Exception as error:
            pytest.skip(f"Chromium does not start: {str(error).strip().splitlines()[0]}")
        yield opened
        opened.close()


@pytest.fixture(scope="session")
def tabs(browser):
    """A window whose tabs share what they have loaded."""
    with browser.new_context(viewport={"width": 1280, "height": 1200}) as context:
        yield context


@pytest.fixture(scope="session")
def server(browser, tmp_path_factory):
    """A JupyterLab on a folder of its own: (address, token, folder)."""
    pytest.importorskip("jupyterlab", reason="JupyterLab is missing: pip install 'blendlab[lab]'")
    import lab

    with lab.serving(tmp_path_factory.mktemp("jupyter")) as served:
        yield served


@pytest.fixture(scope="session")
def desk(tabs, server):
    """A page with JupyterLab, in which notebooks are opened one after the other."""
    import lab

    page = tabs.new_page()
    lab.clear(page, server)
    yield page
    page.close()


@pytest.fixture(scope="module")
def tiny():
    """The shipped latent model."""
    import blendlab as bl

    return bl.load("tinyworld", device="cpu")


@pytest.fixture(scope="module")
def sd():
    """Stable Diffusion 1.x with random weights; cross-attention at the latents' own size and at
    half of it.
    """
    import checkpoints

    return checkpoints.sd1()


@pytest.fixture(scope="module")
def image():
    """Noise for a picture; files with another `image` of their own use that."""
    import torch

    return torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
