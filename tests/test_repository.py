"""Promises about the repository itself: one list of dependencies, nothing of one machine, a light
import.
"""

import ast
import json
import re
import runpy
import subprocess
import sys
import tomllib
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version
from PIL import Image

import blendlab
from blendlab import cards
from blendlab.course import runner

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
README = (ROOT / "README.md").read_text()
EXTRAS = list(PROJECT["optional-dependencies"])
PYTHON = sorted((ROOT / "blendlab").rglob("*.py"))

CONDA = {"pytorch": "torch", "open-clip-torch": "open_clip_torch"}  # conda-forge's name: ours
MODULES = {
    "PIL": "pillow",
    "open_clip": "open_clip_torch",
    "yaml": "pyyaml",
}  # import name: package
UNSEEN = {
    "accelerate",
    "torchvision",
}  # used by diffusers and transformers: fast loading, image processors

MACHINE = r"/(home|work|root|farm|Users)/|/tmp/(bash_jobs|w/|ipykernel|tmp)"
HOSTS = r"pypi\.org|python[h]osted|registry\.npmjs|deb\.debian|conda\.anaconda|files\.pytorch"


def requirements(*extras: str) -> list[Requirement]:
    """The core's dependencies and those of the extras."""
    lists = [
        PROJECT["dependencies"],
        *(PROJECT["optional-dependencies"][extra] for extra in extras),
    ]
    return [Requirement(text) for texts in lists for text in texts]


def pins(file: str = "constraints.txt") -> dict:
    """The pins of a file of constraints by canonical name."""
    lines = [line for line in (ROOT / file).read_text().splitlines() if not line.startswith("#")]
    return {
        canonicalize_name(name): version for name, version in (line.split("==") for line in lines)
    }


def repository_files() -> list[Path]:
    """What git tracks, and what it would on `git add .`."""
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(
        listing, cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split("\0")
    return [ROOT / name for name in names if name and (ROOT / name).is_file()]


def imports(path: Path) -> set[str]:
    """Top names of the modules that a file or notebook imports, at any depth; "" is the package
    itself.
    """
    text = path.read_text()
    if path.suffix == ".ipynb":
        cells = [
            cell["source"] for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"
        ]
        text = re.sub(r"(?m)^( *)[%!].*", r"\1pass", "\n".join("".join(source) for source in cells))
    nodes = list(ast.walk(ast.parse(text)))
    plain = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    froms = [
        "" if node.level else node.module for node in nodes if isinstance(node, ast.ImportFrom)
    ]
    return {name.split(".")[0] for name in plain + froms}


# --- dependencies
# -------------------------------------------------------------------------------------


@pytest.mark.parametrize("extra", EXTRAS)
def test_dependencies_have_floors_and_no_upper_bounds(extra):
    for requirement in requirements(extra):
        assert [spec.operator for spec in requirement.specifier] == [">="], requirement


def test_colab_keeps_its_own_packages():
    colab = pins("constraints-colab.txt")
    assert {"torch", "torchvision", "diffusers", "numpy", "ipywidgets"} <= colab.keys()
    for requirement in requirements():
        shipped = colab.get(canonicalize_name(requirement.name))
        assert shipped is None or shipped in requirement.specifier, (
            f"{requirement}, and Colab has {shipped}"
        )


def test_constraints_pin_every_dependency_plainly():
    for requirement in requirements(*EXTRAS):
        version = pins().get(canonicalize_name(requirement.name))
        assert version and version in requirement.specifier, f"{requirement} is pinned to {version}"
    for name, version in pins().items():
        assert re.fullmatch(r"[a-z0-9-]+", name) and str(Version(version)), f"{name}=={version}"
        assert "+" not in version, f"{name}=={version} is a build that only one index has"
        assert not re.match("nvidia|cuda|pip$|setuptools$", name), (
            f"{name} comes with PyTorch or Python"
        )


def test_environment_yml_says_the_same_as_pyproject():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert [c for c in environment["channels"] if c != "nodefaults"] == ["conda-forge"]
    (pip,) = [entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict)]
    assert pip == ["-e .[lab,test]"], "pip reads everything else from pyproject.toml"
    listed = [Requirement(entry) for entry in environment["dependencies"] if isinstance(entry, str)]
    conda = {CONDA.get(one.name, one.name): str(one.specifier) for one in listed}
    assert conda.pop("python") == PROJECT["requires-python"] and conda.pop("pip") == ""
    ours = {one.name: str(one.specifier) for one in requirements("lab")}
    assert conda == {name: ours[name] for name in conda}
    assert {"torch", "torchvision"} <= set(conda), "these two must come from one place"


def test_what_is_imported_is_declared_and_what_is_declared_is_imported():
    imported = set().union(
        *(imports(path) for path in [*PYTHON, *runner.notebooks(ROOT / "notebooks")])
    )
    imported -= {
        *sys.stdlib_module_names,
        "",
        "blendlab",
        "google",
        "IPython",
    }  # the last two: in the kernel
    packages = {canonicalize_name(MODULES.get(name, name)) for name in imported}
    declared = {canonicalize_name(one.name) for one in requirements()}
    lab = {  # only runner.py runs notebooks, and slides.py shows them
        canonicalize_name(one.name) for one in requirements("lab", "lectures")
    }
    assert packages - lab <= declared, f"declare {packages - lab - declared} in pyproject.toml"
    assert declared <= packages | UNSEEN, f"nothing imports {declared - packages - UNSEEN}"


# --- the package
# --------------------------------------------------------------------------------------


def test_importing_blendlab_loads_none_of_the_heavy_libraries():
    heavy = {
        "diffusers",
        "transformers",
        "accelerate",
        "torchvision",
        "open_clip",
        "kornia",
        "lpips",
    }
    heavy |= {"scipy", "matplotlib", "ipywidgets", "typer"}
    program = f"import sys, blendlab; print(*sorted({heavy!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout.split()) == (0, []), done.stderr


@pytest.mark.parametrize("path", PYTHON, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_every_module_says_what_it_is(path):
    assert ast.get_docstring(ast.parse(path.read_text())), (
        "say what it is, which paper, what to read next"
    )


def test_weights_load_safely_and_no_remote_code_runs():
    for path in PYTHON:
        for call in [
            node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)
        ]:
            given = {word.arg: ast.unparse(word.value) for word in call.keywords}
            assert given.get("trust_remote_code", "False") == "False", f"{path.name}:{call.lineno}"
            if ast.unparse(call.func) == "torch.load":
                assert given.get("weights_only") == "True", (
                    f"{path.name}:{call.lineno} may run a file's code"
                )


def test_no_file_that_git_ignores_is_tracked():
    listing = ["git", "ls-files", "--cached", "--ignored", "--exclude-standard"]
    ignored = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert not ignored.splitlines()


def test_shipped_weights_stay_small():
    sizes = [
        path.stat().st_size for path in (ROOT / "blendlab" / "weights").rglob("*") if path.is_file()
    ]
    assert sizes and sum(sizes) <= 64e6 and max(sizes) <= 16 * 2**20


def test_the_exemplar_model_was_trained_with_the_networks_that_lend_it_parts():
    card = json.loads(
        (ROOT / "blendlab" / "weights" / "tinyworld-exemplar" / "blendlab.json").read_text()
    )
    assert card["lent"] == cards.lent(), (
        "train it on with the new CLIP: blendlab train exemplar --from shipped"
    )


def test_the_model_card_says_what_the_tables_say():
    make = runpy.run_path(str(ROOT / "data" / "make.py"))
    card = (ROOT / "data" / "MODEL_CARD.md").read_text()
    made = card.split(make["BEGIN"])[1].split(make["END"])[0].strip()
    assert made == make["figures"]().strip(), "make it again: python data/make.py card"


# --- the repository
# -----------------------------------------------------------------------------------


FORMATTED = ["blendlab", "tests", "bench", "site", "data/make.py"]


@pytest.mark.parametrize("how", [["check", "."], ["format", "--check", *FORMATTED]])
def test_ruff_finds_nothing(how):
    ruff = [sys.executable, "-m", "ruff", *how, "--output-format=concise"]
    done = subprocess.run(ruff, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_mypy_finds_nothing():
    mypy = [sys.executable, "-m", "mypy", "blendlab"]
    done = subprocess.run(mypy, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_module_imports_only_what_its_wing_may():
    linter = [Path(sys.executable).with_name("lint-imports"), "--no-cache"]
    done = subprocess.run(linter, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_file_names_this_machine_or_a_package_host():
    for path in repository_files():
        data = path.read_bytes()
        if path.suffix == ".ipynb" or b"\0" in data[:8000]:
            # a picture in a notebook may spell anything; test_notebooks looks at their text
            continue
        for number, line in enumerate(data.decode("utf-8").splitlines(), 1):
            found = re.search(f"{MACHINE}|{HOSTS}", line)
            assert not found, f"{path.relative_to(ROOT)}:{number} names {found.group()}"


def test_no_file_holds_a_half_of_a_merge():
    for path in repository_files():
        for line in path.read_bytes().splitlines():
            assert not re.match(rb"(<{7}|>{7}) ", line), f"{path.relative_to(ROOT)}: {line!r}"


def test_make_reads_its_file_and_explains_every_target():
    targets = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.M)[1].split()
    shown = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    explained = re.findall(r"^make (\w+) ", shown.stdout, re.M)
    assert sorted([*explained, "help"]) == sorted(targets)


def test_make_test_installs_every_extra():
    """So that no test is skipped for a package that pip can bring."""
    recipes = re.findall(r"pip install.* -e '\.\[(.*?)\]'", (ROOT / "Makefile").read_text())
    assert sorted(",".join(recipes).split(",")) == sorted(EXTRAS)


def test_no_file_is_larger_than_16_megabytes():
    assert not [path for path in repository_files() if path.stat().st_size > 16 * 2**20]


def test_the_version_is_the_same_everywhere():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert blendlab.__version__ == citation["version"] == PROJECT["version"]
    assert runner.RELEASE == f"v{PROJECT['version']}"


def test_citation_names_the_four_papers():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    papers = {paper["identifiers"][0]["value"] for paper in citation["references"]}
    assert papers == {
        "arXiv:2111.14818",
        "arXiv:2206.02779",
        "arXiv:2211.13227",
        "arXiv:2305.03382",
    }


def test_the_readme_names_the_commands_and_every_notebook():
    names = [path.name for path in (ROOT / "notebooks").glob("*.ipynb")]
    missing = [
        wanted for wanted in ["make run", "make test", "make lab", *names] if wanted not in README
    ]
    assert not missing


def test_every_picture_in_a_text_says_what_it_shows():
    for path in [path for path in repository_files() if path.suffix in (".md", ".ipynb")]:
        for text in texts(path):
            bare = re.findall(r"!\[\s*\]\([^)]*\)|<img(?![^>]*\balt=\"[^\"])[^>]*>", text)
            assert not bare, f"{path.relative_to(ROOT)}: {bare[0][:100]}"


def texts(path: Path) -> list[str]:
    """What a file says in Markdown."""
    if path.suffix == ".md":
        return [path.read_text()]
    cells = json.loads(path.read_text())["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"]


def test_the_readmes_film_is_short_and_says_what_it_shows():
    (said,) = re.findall(r"!\[([^\]]*)\]\(data/pictures/film\.webp\)", README)
    assert len(said.split()) >= 8
    path = ROOT / "data" / "pictures" / "film.webp"
    assert path.stat().st_size < 3e6
    with Image.open(path) as film:
        assert film.n_frames >= 20 and film.info["loop"] == 0


# --- what CI runs
# -------------------------------------------------------------------------------------


def run_ci(folder: Path, cases: str, status: int) -> subprocess.CompletedProcess:
    """Run .ci/run in a folder where `make test` is a stand-in that reports these test cases."""
    (folder / ".ci").mkdir()
    (folder / ".ci" / "run").write_bytes((ROOT / ".ci" / "run").read_bytes())
    suites = ET.tostring(
        ET.fromstring(f"<testsuites><testsuite {cases}/></testsuites>"), encoding="unicode"
    )
    recipe = f"@mkdir -p out; echo '{suites}' > out/tests.xml; exit {status}"
    (folder / "Makefile").write_text(f"test:\n\t{recipe}\n")
    return subprocess.run(["bash", ".ci/run"], cwd=folder, capture_output=True, text=True)


def test_ci_runs_make_test_and_passes_with_it(tmp_path):
    done = run_ci(tmp_path, 'tests="5" skipped="1" failures="0" errors="0"', 0)
    assert (
        done.returncode == 0
        and "make test" in done.stdout
        and "4 tests passed, 1 skipped" in done.stdout
    )


@pytest.mark.parametrize(
    "cases, status",
    [
        ('tests="5" skipped="0" failures="1" errors="0"', 1),
        ('tests="0" skipped="0" failures="0" errors="0"', 5),
        ('tests="0" skipped="0" failures="0" errors="0"', 0),
        ('tests="3" skipped="3" failures="0" errors="0"', 0),
    ],
    ids=["a test failed", "nothing collected", "nothing ran", "all skipped"],
)
def test_ci_fails_when_a_test_fails_or_none_runs(tmp_path, cases, status):
    assert run_ci(tmp_path, cases, status).returncode != 0
