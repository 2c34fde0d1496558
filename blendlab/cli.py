"""The command line: blendlab edit | rank | world | train | results | leaderboard | course | doctor.

No paper. Read next: papers/blended_latent.py, which `edit` calls.
"""

import re
import shlex
import sys
from dataclasses import fields
from inspect import signature
from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from .errors import Refused
from .files import beside, replacing
from .papers import methods

app = typer.Typer(
    no_args_is_help=True, add_completion=False, help="Blended diffusion, from the shell."
)
course = typer.Typer(no_args_is_help=True, help="What a lecturer needs of the notebooks.")
app.add_typer(course, name="course")

# The endings that can be written, and how: nothing is lost that the format can hold.
ENDINGS: dict[str, dict] = {
    ".png": {},
    ".jpg": {"quality": 95, "subsampling": "4:4:4"},
    ".jpeg": {"quality": 95, "subsampling": "4:4:4"},
    ".webp": {"lossless": True},
    ".tif": {},
    ".tiff": {},
    ".bmp": {},
}
SHEET = 2**26  # pixels of the largest sheet of `world`: 0.8 GB while it is drawn

Image = Annotated[Path, Option(help="The picture to edit.")]
Mask = Annotated[Path, Option(help="Where to edit: white is edited, black is kept.")]
Prompt = Annotated[str, Option(help="What to see there.")]
Device = Annotated[
    str | None, Option(help="cpu, cuda or mps; without it, cuda where there is one, else cpu.")
]
Seed = Annotated[int, Option(help="The same seed makes the same picture.")]


@app.command()
def edit(
    image: Image,
    mask: Mask,
    prompt: Prompt,
    out: Annotated[Path, Option("--out", "-o", help="The picture to write; several get numbers.")],
    method: Annotated[str, Option(help=f"One of {', '.join(methods())}.")] = "blended_latent",
    model: Annotated[
        str | None,
        Option(help="A known network, a diffusers repository or a folder; see the method."),
    ] = None,
    clip: Annotated[
        str | None,
        Option(help="Guides the edit or orders results: shipped, of open_clip, or a folder."),
    ] = None,
    n: Annotated[int, Option("-n", min=1, help="How many results.")] = 1,
    batch: Annotated[int | None, Option(min=1, help="How many at once.")] = None,
    seed: Seed = 0,
    steps: Annotated[int | None, Option(min=1, help="Moves of the whole schedule.")] = None,
    w: Annotated[float | None, Option("--w", help="Guidance weight; 1 is none.")] = None,
    skip: Annotated[float | None, Option(help="Share left out at the noisy end, 0 to 1.")] = None,
    preset: Annotated[str | None, Option(help="Settings of a paper or a published code.")] = None,
    paste: Annotated[
        bool | None,
        Option(help="The picture's own pixels outside the mask (JPEG: nearly), or not."),
    ] = None,
    soft: Annotated[
        bool, Option("--soft", help="Greys of the mask say how strongly a place may change.")
    ] = False,
    around: Annotated[
        float | None, Option(help="Edit a square of so many sides of the mask's box.")
    ] = None,
    window: Annotated[
        int | None,
        Option(min=0, help="Edit a square of so many pixels or more around the mask; 0: all."),
    ] = None,
    own: Annotated[
        list[str] | None,
        Option("--set", help="NAME=VALUE of the method, as in noises=8; can be repeated."),
    ] = None,
    device: Device = None,
):
    """Change what is under the mask into what the words say.

    The model recommends the settings that you leave out. Options of a method
    without a flag here go to --set, which lists them when a name is wrong.

    Example: blendlab edit --image scene.png --mask mask.png --prompt "a red mushroom" -o out.png -n
    4
    """
    from tqdm import tqdm

    from .attention import hooked
    from .networks.load import load
    from .options import pairs

    known = methods()
    if method not in known:
        raise Refused(f"there is no method {method!r}; choose {', '.join(known)}")
    how, files = known[method], numbered(out, n)
    chosen = pairs(own or [], "noises=8", signature(edit).parameters)
    flags: dict = dict(steps=steps, w=w, skip=skip, preset=preset, batch=batch, around=around)
    flags |= dict(window=window, paste=paste, soft=soft or None, clip=None if how.guided else clip)
    chosen |= {name: value for name, value in flags.items() if value is not None}
    how.check(chosen)
    pipe = load(how.model if model is None else model, device=device)
    if not hasattr(pipe, "unet"):
        raise Refused(f"{model} makes no pictures: pass --model {how.model}")
    networks = (pipe, opened(clip or "tinyworld-clip", device)) if how.guided else (pipe,)
    if "clip" in chosen:
        chosen["clip"] = opened(chosen["clip"], device)

    def count(*_):  # what a hook returns would replace the network's output
        bar.update()

    # delay: a method without diffusion makes no moves, so it shows no bar
    with tqdm(desc=prompt, unit="move", delay=0.01) as bar, hooked({pipe.unet: count}, after=True):
        result = how.change(*networks, image, mask, prompt, n=n, seed=seed, **chosen)
    for file, picture in zip(files, result.images, strict=True):
        save(picture, file)
        print(file)


@app.command()
def rank(
    images: Annotated[list[Path], Argument(help="The pictures to put in order.")],
    prompt: Prompt,
    clip: Annotated[str, Option(help="Shipped, of open_clip, or a folder.")] = "tinyworld-clip",
    mask: Annotated[Path | None, Option(help="Look at the white part only.")] = None,
    view: Annotated[str | None, Option(help="With a mask: mask (usual), image or both.")] = None,
    device: Device = None,
):
    """Order pictures by their CLIP distance to the words, best first.

    Example: blendlab rank --prompt "a red mushroom" --mask mask.png out_1.png out_2.png
    """
    from .rank import rank as ranked

    view = ("mask" if mask else "image") if view is None else view
    pictures = of_one_size(images)
    model = opened(clip, device)
    order, distances = ranked(pictures, prompt, model, mask, view)
    for index, distance in zip(order, distances, strict=True):
        print(f"{distance:.3f}  {images[index]}")


@app.command()
def world(
    out: Annotated[Path, Argument(help="The picture to write.")],
    n: Annotated[int, Option("-n", min=1, help="How many scenes.")] = 24,
    seed: Seed = 0,
    size: Annotated[int, Option(min=8, help="Side of one scene, in pixels.")] = 128,
):
    """Draw a sheet of scenes of tinyworld.

    Example: blendlab world --seed 3 -n 24 out.png
    """
    from . import viz
    from . import world as tinyworld

    if n * size**2 > SHEET:
        most = f"at --size {size} a sheet holds 1 to {SHEET // size**2} scenes"
        raise Refused(
            f"-n is {n}; {most}" if size**2 <= SHEET else f"--size is {size}; take 8 to 8192"
        )
    (file,) = numbered(out, 1)
    save(viz.sheet(tinyworld.render(tinyworld.sample(n, seed=seed), size=size).image), file)
    print(file)


@app.command()
def train(
    name: Annotated[
        str, Argument(help="autoencoder, judge, latent, clip, pixel, exemplar, inpaint; all.")
    ],
    steps: Annotated[int | None, Option(help="How many; may change when a run is resumed.")] = None,
    minutes: Annotated[
        float | None, Option(help="Stop then; the learning rate ends with it.")
    ] = None,
    out: Annotated[
        Path | None, Option(help="Folder of the run; one there goes on. Without it: runs/NAME.")
    ] = None,
    source: Annotated[
        str | None, Option("--from", help="'shipped', or a folder of weights.")
    ] = None,
    batch: Annotated[int | None, Option(help="Pictures per step and process.")] = None,
    lr: Annotated[float | None, Option(help="Highest learning rate.")] = None,
    seed: Seed = 0,
    precision: Annotated[str, Option(help="auto, bf16, fp16 or no.")] = "auto",
    cpu: Annotated[bool, Option("--cpu", help="Leave the GPU alone.")] = False,
    autoencoder: Annotated[Path | None, Option(help="The one that judge and latent use.")] = None,
    export_to: Annotated[
        Path | None, Option("--export", help="Only write the weights there.")
    ] = None,
    own: Annotated[
        list[str] | None, Option("--set", help="NAME=VALUE of the job, as in rung=tokens.")
    ] = None,
    compiled: Annotated[
        bool, Option("--compile", help="Compile the step; pays in runs of hours.")
    ] = False,
    share: Annotated[float, Option(help="With all: share of the plan's minutes.")] = 1.0,
    background: Annotated[
        bool, Option("--background", help="With all: return at once and go on.")
    ] = False,
):
    """Train one of tinyworld's networks, or all; stop it and call it again, and it goes on.

    Example: blendlab train latent --from shipped --minutes 60
    """
    given = {key: value for key, value in locals().items() if value is not None}
    for word in ("own", "compiled", "share", "background"):
        given.pop(word, None)
    from . import training

    given |= training.settings(own or []) | {"options": {"compile": compiled}}
    again = ["-m", "blendlab", *sys.argv[1:]]
    if name != "all":
        if background or share != 1:
            raise Refused("--background and --share go with all, as in blendlab train all")
        return print(training.main(**given, restart=again))
    from .training import plan

    del given["name"]
    if background:
        return plan.in_background(share=share, **given)
    plan.train_all(share=share, restart=again, **given)


@app.command()
def results(
    name: Annotated[
        str | None,
        Argument(
            help="A table; all (outdated ones); phenomena or index for a page; none: list them."
        ),
    ] = None,
    n: Annotated[int | None, Option("-n", min=1, help="Its first n tasks only.")] = None,
    save: Annotated[
        bool, Option(help="Write data/results/NAME.json if all tasks are measured.")
    ] = True,
    out: Annotated[
        Path | None,
        Option("--out", "-o", help="Write this file instead; of precision, the folder."),
    ] = None,
    methods: Annotated[
        str | None,
        Option(help="Of precision: names, patterns, name:8 for 8 scenes; commas between."),
    ] = None,
    scenes: Annotated[int, Option(min=1, help="Of precision: how many.")] = 50,
    batch: Annotated[int, Option(min=1, help="Of precision: results of a scene.")] = 24,
    task: Annotated[str, Option(help="Of precision: add or remove an object.")] = "add",
    add: Annotated[Path | None, Option(help="Of precision: a file with your own @method.")] = None,
    images: Annotated[Path | None, Option(help="Of precision: a folder of photographs.")] = None,
    model: Annotated[str | None, Option(help="Of --images: what edits them; sd15.")] = None,
):
    """Make a table of measurements, a page of all, or compare methods by precision and diversity.

    Example: blendlab results edits -n 8
    """
    if name == "precision":
        if n is not None or not save:
            raise Refused("precision has --scenes and --batch, and keeps what it measures")
        if images is None and model:
            raise Refused("--model edits the photographs of --images: name their folder, too")
        if images and (task, add) != ("add", None):
            raise Refused("--task and --add are of tinyworld's scenes: leave them or --images out")
        from .measuring import photographs, precision

        if images is None:
            how = (methods, scenes, batch, task, out or Path("runs/precision"), add)
            return show(precision.run(*how))
        how = (methods, scenes, batch, out or Path("runs/photographs"))
        return show(photographs.run(images, model or "sd15", *how))
    asked = (methods, scenes, batch, task, add, images, model)
    if asked != (None, 50, 24, "add", None, None, None):
        raise Refused("--methods, --scenes, --batch, --task, --add and --images are of precision")
    from .measuring import index, report, results

    if name in (None, "index") and (n is not None or out):
        raise Refused("-n and -o are of a table: name one, as in blendlab results edits -n 8")
    if name == "all" and (n is not None or out or not save):
        raise Refused("all takes no other option; make one table with -n or -o")
    if out and not save:
        raise Refused("-o saves and --no-save does not: choose one")
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        writable(out)
    if name is None:
        print(results.listing())
        print("precision (--methods, --scenes, --batch, --task add or remove, --add FILE)")
        print("  Editing methods side by side: precision, diversity, background, light, time.")
    elif name == "all":
        remake()
    elif name == "index":
        print(index.write() if save else index.page())
    elif name == "phenomena":
        print(report.write(n, save, out))
        if save and out is None and n is None:
            index.write()
    elif save and (out or results.is_whole(name, n)):
        print(results.table(results.run(name, n, out)))
        if out is None:
            index.write()
    else:
        print(results.table(results.measure(name, n)))
        if save:
            print(f"Not saved: n is {n}, the table has {results.TABLES[name].n}; -o FILE saves it.")


def remake():
    """Make every table that is missing or was made with other weights; again called, go on."""
    from .measuring import index, precision, results, tables

    outdated = results.outdated() | precision.outdated()
    print(f"{len(outdated)} tables; they take about {sum(outdated.values()) / 60:.0f} minutes")
    for name, seconds in outdated.items():
        print(f"{name}, about {seconds / 60:.1f} minutes", flush=True)
        try:
            (precision.again if name in results.ELSEWHERE else results.run)(name)
        except tables.Unshipped as error:
            print(f"{name} is left out: {error}", flush=True)
        index.write()


def show(table):
    """Print a table of methods; None where other processes still have scenes to make."""
    from .measuring import results

    print(results.table(table) if table else "other processes still have scenes to make")


@app.command()
def leaderboard(folder: Annotated[Path, Argument(help="Where the rows are, in folders below it.")]):
    """Merge rows that `blendlab results precision` made into one page.

    Example: blendlab leaderboard class/
    """
    from .measuring import leaderboard, results

    table, refused = leaderboard.merge(folder)
    print(results.table(table))
    for reason in refused:
        print(f"Refused: {reason}")


@course.command()
def pack(
    names: Annotated[list[Path] | None, Argument(help="Notebooks; without names, all.")] = None,
    out: Annotated[Path, Option("--out", "-o", help="The folder to write.")] = Path("out/pack"),
):
    """Write of each notebook the students' version with points, the solved one, and slides.

    Example: blendlab course pack notebooks/03_latent_blending.ipynb --out lecture
    """
    from .course import pack, runner
    from .measuring import goals

    found = runner.chosen(names)
    for path in names or []:
        if path.parent.name == "solutions":
            raise Refused(f"{path} is a solution: name the notebook itself, without solutions/")
    found = [path for path in found if path.parent.name != "solutions"]
    worth = dict.fromkeys(goals.GOALS, goals.WORTH)
    for sentence in pack.pack(found, out, worth):
        print(sentence)
    print(f"Written to {out}: {', '.join(path.stem for path in found)}")


@app.command()
def doctor():
    """Say which versions, device, memory and networks there are.

    Example: blendlab doctor
    """
    from .course import doctor

    doctor.check()


def numbered(out: Path, n: int) -> list[Path]:
    """The n files to write: out itself, or out_1, out_2, ...; tried before any network runs."""
    from .options import number

    number("n", n)
    if out.suffix.lower() not in ENDINGS:
        raise Refused(f"cannot write {out}: end the name with {', '.join(ENDINGS)}")
    out = out.expanduser()
    out.parent.mkdir(parents=True, exist_ok=True)
    files = [out] if n == 1 else [out.with_stem(f"{out.stem}_{i}") for i in range(1, n + 1)]
    for file in {files[0], files[-1]}:
        writable(file)
    return files


def writable(file: Path) -> None:
    """Refuse a file that cannot be written, before anything runs; what is there stays."""
    if file.is_dir():
        raise Refused(f"cannot write {file}: it is a folder; name a file in it")
    new = not file.exists()
    file.open("ab").close()  # an OSError says what is in the way
    if new:
        file.unlink()
    part = beside(file.resolve())  # `save` writes this first, so the folder has to take it
    part.open("xb").close()
    part.unlink()


def save(picture, file: Path):
    """Write a picture as its ending says; a write that fails leaves what was there."""
    from PIL import Image as PIL

    ending = file.suffix.lower()
    try:
        with replacing(file.resolve()) as part:  # of a link, what it leads to
            picture.save(part, PIL.registered_extensions()[ending], **ENDINGS[ending])
    except ValueError as error:  # WebP holds 16383 pixels a side
        raise Refused(f"cannot write {file}: {error}; end the name with .png") from error


def opened(clip: str, device):
    """A CLIP by its name: shipped, of open_clip, or a folder."""
    from .cards import SHIPPED
    from .networks.clip import load_clip
    from .networks.load import load

    return (load if clip in SHIPPED else load_clip)(clip, device=device)


def of_one_size(files: list[Path]) -> list:
    """The pictures in these files, (1,3,H,W) each, all of one size."""
    from . import images

    pictures = [images.image(file) for file in files]
    sizes = ["{}x{}".format(*picture.shape[:-3:-1]) for picture in pictures]
    for file, size in zip(files, sizes, strict=True):
        if size != sizes[0]:
            raise Refused(
                f"{files[0]} is {sizes[0]} and {file} is {size}: rank pictures of one size"
            )
    return pictures


# The options that sentences of the package speak of, in Python's words, and have a flag here.
FLAGS = "n steps w skip preset paste soft around window seed batch mask view device clip".split()
FLAGS += "minutes share precision lr".split()


def in_shell_words(sentence: str) -> str:
    """A sentence of the package with its options as a shell takes them: skip=0.1 is --skip 0.1, and
    noises=8, which has no flag, is --set noises=8.
    """

    def option(name, value=""):
        if name not in FLAGS:
            return f"--set {name}={value}"
        flag = "-n" if name == "n" else f"--{name}"
        return flag if value in ("", "True") else f"{flag} {value}"

    own = {field.name for how in methods().values() for field in fields(how.kind)}
    names = "|".join({*FLAGS, *own})
    sentence = re.sub(  # a call, as in fit(image, mask=mask), stays Python
        rf"\w\([^()]*\)|(?<![\w.-])({names})=('[^']*'|[\w./:-]*\w|)",
        lambda found: option(found[1], found[2].strip("'")) if found[1] else found[0],
        sentence,
    )
    sentence = re.sub(rf"^({'|'.join(FLAGS)})(?= is )", lambda found: option(found[1]), sentence)
    return re.sub(r"pass ((?:Image\w*|bl\.images)\..+)$", in_a_file, sentence)


def in_a_file(found) -> str:
    """How a shell makes the picture of an expression in Python, and what it passes then."""
    program = "import blendlab as bl, numpy as np; from PIL import Image, ImageCms, ImageOps; "
    program += f"({found[1]}).save('fixed.png')"
    safe = not set(program) & set('"$`\\!')
    quoted = f'"{program}"' if safe else shlex.quote(program)
    return f"pass fixed.png, which this makes: python -c {quoted}"


def main():
    """Run a command; a mistake of the user, and what the machine refuses, end as one sentence and
    exit code 2. A bug keeps its traceback.
    """
    try:
        app()
    except (Refused, OSError, MemoryError) as error:
        sentence = str(error) or "out of memory: ask for less at once"
        if isinstance(error, OSError) and error.strerror and error.filename:
            sentence = f"{error.filename}: {error.strerror}"
        typer.secho(in_shell_words(sentence), fg="red", err=True)
        sys.exit(2)
