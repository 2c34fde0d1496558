"""A private JupyterLab for tests in a browser, and what runs a notebook in it."""

import json
import secrets
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager, suppress
from pathlib import Path

from blendlab.course import runner

ROOT = Path(__file__).parent.parent
SETTINGS = {
    "@jupyterlab/apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "@jupyter-widgets/jupyterlab-manager/plugin": {"saveState": True},
}
FOLDERS = {
    "JUPYTERLAB_SETTINGS_DIR": "settings", "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
    "JUPYTER_CONFIG_DIR": "config", "JUPYTER_RUNTIME_DIR": "runtime", "IPYTHONDIR": "ipython",
}  # fmt: skip
READY = """() => { const session = window.jupyterapp?.shell?.currentWidget?.sessionContext;
    return session?.isReady && session.session?.kernel?.status === 'idle' }"""
RUN_ALL = """() => { window.ended = null; jupyterapp.commands.execute('notebook:run-all-cells')
    .then(() => { window.ended = 'all'; }, error => { window.ended = String(error); }) }"""
SAVE = "() => jupyterapp.commands.execute('docmanager:save').then(() => true)"
QUIT = "() => jupyterapp.shell.currentWidget.sessionContext.shutdown().then(() => true)"
OPEN = """path => jupyterapp.commands.execute('docmanager:open', {path, factory: 'Notebook'})
    .then(() => true)"""
SHOWN = "path => window.jupyterapp?.shell?.currentWidget?.context?.path === path"
CLOSE = "() => { jupyterapp.shell.currentWidget.close(); return true }"


@contextmanager
def serving(home: Path):
    """A JupyterLab server whose folders all lie in home: (address, token, the folder it shows)."""
    (home / "root").mkdir()
    for name, values in SETTINGS.items():
        file = home / "settings" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(values))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token, address = secrets.token_hex(8), f"http://127.0.0.1:{port}"
    env = runner.kernel_environment() | {name: str(home / FOLDERS[name]) for name in FOLDERS}
    env |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    options = [
        "--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}",
        "--ServerApp.port_retries=0", f"--IdentityProvider.token={token}",
        f"--ServerApp.root_dir={home / 'root'}", "--LabApp.expose_app_in_browser=True",
        "--JupyterNotebookApp.expose_app_in_browser=True",
        # On a busy machine a tab answers late and messages come in bursts: neither may be lost.
        "--ServerApp.tornado_settings={'ws_ping_interval': 0}",
        "--ZMQChannelsWebsocketConnection.limit_rate=False",
    ]  # fmt: skip
    with (home / "log").open("w") as log:
        command = [sys.executable, "-m", "jupyterlab", *options]
        process = subprocess.Popen(command, env=env, stdout=log, stderr=subprocess.STDOUT)
    try:
        for _ in range(720):
            try:
                urllib.request.urlopen(f"{address}/api/status?token={token}", timeout=1)
                break
            except OSError:
                assert process.poll() is None, (home / "log").read_text()
                time.sleep(0.25)
        yield address, token, home / "root"
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()


def run_all(page, server, path: str, seconds: float = 600):
    """Open a notebook on the page, in "lab/tree" or in "notebooks", and run all its cells."""
    visit(page, server, path)
    run_open(page, seconds)


def visit(page, server, path: str):
    """Load a page of the server afresh."""
    address, token, _ = server
    page.goto(
        f"{address}/{path}?reset&token={token}", wait_until="domcontentloaded", timeout=180_000
    )


def clear(page, server):
    """Load JupyterLab without a notebook, and wait until it is there."""
    visit(page, server, "lab")
    page.wait_for_function("() => window.jupyterapp", timeout=180_000, polling=200)
    page.evaluate("() => jupyterapp.restored.then(() => true)")


def run_open(page, seconds: float = 600):
    """Run all cells of the notebook that the page shows, or will."""
    page.wait_for_function(READY, timeout=180_000, polling=200)
    page.evaluate(RUN_ALL)
    # Not at every frame, as is usual: drawing frames takes the core that the notebook needs.
    page.wait_for_function("() => window.ended", timeout=1000 * seconds, polling=200)
    assert page.evaluate("() => window.ended") == "all"
    page.wait_for_function(READY, timeout=60_000, polling=200)


def problems(desk, server, path: Path, name: str) -> list[str]:
    """Run a notebook under this name in the JupyterLab on a page; a text for each error, those in
    widgets too.
    """
    import nbformat

    *_, root = server
    there = root / name
    there.parent.mkdir(parents=True, exist_ok=True)
    there.write_bytes(path.read_bytes())
    try:
        desk.evaluate(OPEN, name)
        desk.wait_for_function(SHOWN, arg=name, timeout=60_000, polling=200)
        run_open(desk)
        desk.wait_for_timeout(500)  # what widgets show lands after the cells are done
        desk.evaluate(SAVE)
        desk.evaluate(QUIT)
        desk.evaluate(CLOSE)
    except BaseException:
        with suppress(Exception):
            desk.evaluate(QUIT)
        clear(desk, server)  # for the next notebook
        raise
    nb = nbformat.read(there, as_version=4)
    told = [(cell, output) for cell in runner.code(nb) for output in cell.outputs]
    errors = [
        f"{path.name}: {cell.source[:200]}\n{output.ename}: {output.evalue}"
        for cell, output in told
        if output.output_type == "error"
    ]
    skipped = [cell.source for cell in runner.code(nb) if not cell.execution_count]
    errors += [f"{path.name}: did not run: {source[:200]}" for source in skipped]
    return errors + runner.hidden_errors(nb, path.name)
