"""Train a network of tinyworld so that nothing is lost when the machine goes away.

One loop for every network: `train` draws `job.batch(step)`, steps AdamW or Muon on `job.loss`,
averages the weights, and writes a checkpoint every few minutes that replaces the last one in a
single move. All data and all noise of a step derive from (seed, step): a run that was killed and
resumed ends with the weights of a run that was not. Read next: ../muon.py; autoencoder.py, the
shortest job; __init__.py, which starts them.
"""

import copy
import ctypes.util
import json
import math
import os
import shutil
import signal
import sys
import time
import zlib
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from .. import files
from ..errors import Refused
from ..muon import Muon
from ..networks import opening
from ..networks.weights import take_weights
from ..world import HELD_OUT

WEIGHTS = Path(__file__).parent.parent / "weights"  # what ships
PROCESSES = 64  # at most so many train one network together
SEEDS = HELD_OUT // PROCESSES - 1  # the highest seed of a run


def number(name: str, value, low, high, kind=int):
    """Return a number of low .. high (above low unless kind is int); ValueError names the range."""
    whole = kind is int
    good = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
    if not good or not (low <= value if whole else low < value) or not value <= high:
        said = f"a whole number from {low}" if whole else f"a number above {low:g}"
        raise Refused(f"{name} is {value!r}; take {said} to {high:g}")
    return value


class Job:
    """What `train` needs to know about a network: subclasses set and fill in what follows.

    `net` holds every trained weight (and nothing else). Frozen networks are plain attributes, kept
    out of `net`.
    """

    name = "job"
    batch_size = 32
    lr = 1e-3
    ema = 0.999  # decay of the averaged weights
    optimizer = "adamw"  # or "muon"
    net: Any  # an nn.Module; of several parts an nn.ModuleDict
    levels: tuple[int, int] = (1, 8)  # how many widths its network takes, where it has some
    groups = 8  # widths are multiples of it

    def __init__(self, device="cpu", seed=0, rank=0, batch_size=None):
        self.device, self.seed, self.rank = torch.device(device), seed, rank
        number("seed", seed, 0, SEEDS)  # higher ones would train on the scenes that are held out
        number("the number of this process", rank, 0, PROCESSES - 1)
        if batch_size is not None:
            self.batch_size = number("batch", batch_size, 1, 4096)

    def fill(self, step: int) -> None:
        """Render the data that steps from `step` on start with (called once, at first)."""

    def batch(self, step: int) -> dict[str, Tensor]:
        """The data and the noise of one step, from (seed, step) alone."""
        raise NotImplementedError

    def loss(self, batch: dict) -> dict[str, Tensor]:
        """Scalars by name; "loss" is what is minimised, the others are printed beside it."""
        raise NotImplementedError

    def sheet(self):
        """A PIL picture that shows how far the network is, or None."""

    def export(self, folder: Path) -> None:
        """Write the folder that ships: fp16 safetensors and configs."""
        raise NotImplementedError

    def load(self, folder: Path) -> None:
        """Take the weights of an exported folder."""
        raise NotImplementedError

    @classmethod
    def sizes_of(cls, folder: Path) -> dict:
        """The arguments that make a job whose network has the sizes of an exported folder."""
        return {}

    def pool_of(self, pool: int | None, cpu: int, cuda: int = 32768) -> int:
        """How many examples its pool holds: what was asked for, else what suits the device."""
        if pool is None:
            return cuda if self.device.type == "cuda" else cpu
        return number("pool", pool, 16, 10**6)

    def config(self) -> dict:
        """Sizes and settings worth writing down beside the weights."""
        return {}

    def identity(self) -> dict:
        """What must be the same when a run is resumed."""
        return {"seed": self.seed, "batch_size": self.batch_size}

    def world_seed(self) -> int:
        """The seed of this process's scenes: below world.HELD_OUT, and nobody else's."""
        return self.seed * PROCESSES + self.rank

    def generator(self, step: int) -> torch.Generator:
        """The random stream of one step of one process (on the CPU: the same on every device)."""
        stream = (self.seed * 1009 + self.rank) * 0x9E3779B1  # torch reads 32 bits of a seed
        return torch.Generator().manual_seed((stream + step) & 0xFFFFFFFF)


@dataclass
class Options:
    """How long and how to train; kept in config.json. With `minutes`, the schedule ends then."""

    steps: int
    minutes: float | None = None
    lr: float = 1e-3
    warmup: int = 200
    weight_decay: float = 0.01
    clip: float = 1.0
    precision: str = "auto"  # "auto", "bf16", "fp16" or "no"
    compile: bool = (
        False  # torch.compile: a third faster after minutes of compiling, so for runs of hours
    )
    checkpoint_minutes: float = 3.0
    sheet_minutes: float | None = 30.0  # None: none; each costs a CPU 40 s
    log_seconds: float = 60.0

    def __post_init__(self):
        number("steps", self.steps, 1, 10**8)
        number("lr", self.lr, 0.0, 1.0, float)
        if self.minutes is not None:
            number("minutes", self.minutes, 0.0, 525600.0, float)
        if self.precision not in PRECISIONS:
            raise Refused(f"precision is {self.precision!r}; choose {', '.join(PRECISIONS)}")


PRECISIONS = ("auto", "bf16", "fp16", "no")


class Pool:
    """A window that slides along an endless stream of examples and lives on the device.

    `make(start, n)` returns tensors (n, ...) for examples start .. start+n-1, each depending on its
    own index alone. Every step `renew` examples leave and as many enter (in chunks), so training
    never sees a fixed set, yet pays for few renders. At step k the window starts at `low(k)`, so a
    resumed run finds the same examples.
    """

    def __init__(self, make, size, renew, step=0, chunk=64, progress="rendering"):
        self.make, self.chunk, self.every = make, chunk, max(1, chunk // renew)
        self.size = max(1, round(size / chunk)) * chunk  # whole chunks
        self.start, self.data = self.low(step), {}
        what = f"{progress} {self.size} pictures"
        for done in tqdm(range(0, self.size, chunk), what, unit_scale=chunk, disable=None):
            self._write(self.start + done)

    def low(self, step: int) -> int:
        return step // self.every * self.chunk

    def _write(self, index: int) -> None:
        new = self.make(index, self.chunk)
        if not self.data:
            self.data = {k: v.new_empty((self.size, *v.shape[1:])) for k, v in new.items()}
        slot = index % self.size
        for key, value in new.items():
            self.data[key][slot : slot + self.chunk] = value

    def draw(self, n: int, step: int, generator: torch.Generator) -> dict[str, Tensor]:
        """`n` examples of the window of `step`, with replacement."""
        while self.start < self.low(step):
            self._write(self.start + self.size)
            self.start += self.chunk
        pick = torch.randint(self.size, (n,), generator=generator)
        return {key: value[pick.to(value.device)] for key, value in self.data.items()}


class EMA:
    """A float32 moving average of the weights; its decay warms up, for short runs.

    diffusers' EMAModel forgets the first weights at its first update (decay 0, here 1/10) and keeps
    the precision of the weights, so runs and checkpoints would not stay what they are.
    """

    def __init__(self, net: nn.Module, decay=0.999):
        self.params, self.decay, self.count = (
            [p for p in net.parameters() if p.requires_grad],
            decay,
            0,
        )
        self.shadow = [p.detach().float().clone() for p in self.params]

    @torch.no_grad()
    def update(self) -> None:
        decay = min(self.decay, (1 + self.count) / (10 + self.count))
        self.count += 1
        torch._foreach_lerp_(self.shadow, [p.detach().float() for p in self.params], 1 - decay)

    @contextmanager
    def applied(self):
        """Put the averaged weights into the network, and the trained ones back afterwards."""
        trained = [p.detach().clone() for p in self.params]
        self._put(self.shadow)
        try:
            yield
        finally:
            self._put(trained)

    @torch.no_grad()
    def _put(self, values) -> None:
        for p, value in zip(self.params, values, strict=True):
            p.copy_(value)

    def state_dict(self) -> dict:
        return {"count": self.count, "shadow": self.shadow}

    def load_state_dict(self, state: dict) -> None:
        self.count = state["count"]
        for mine, saved in zip(self.shadow, state["shadow"], strict=True):
            mine.copy_(saved)


def train(job: Job, out, options: Options, accelerator=None) -> Path:
    """Train `job` in the folder `out`, from the checkpoint there if any; returns out/export.

    One process trains in a folder at a time; a second one gets a sentence.
    """
    accelerator = accelerator or make_accelerator(options.precision)
    out, main = Path(out), accelerator.is_main_process
    with files.locked(out) if main else nullcontext():
        if main:
            _sweep(out)
        return _train(job, out, options, accelerator, main)


def _train(job, out, options, accelerator, main):
    net = job.net.to(job.device).train()
    optimizer = make_optimizer(job, options)
    ema = EMA(net, job.ema)
    model, optimizer = accelerator.prepare(_Loss(job), optimizer)
    if options.compile:
        model = torch.compile(model, dynamic=False)
    state = _resume(out, job, ema, optimizer, accelerator)
    if main:
        files.write_json(out / "config.json", describe(job, options, accelerator))

    # Stop at the last step, when the time is up, or when somebody asks; always with a checkpoint.
    clock = time.monotonic() - state["seconds"]
    step, saved, drawn, stop = state["step"], time.monotonic(), time.monotonic(), []
    if _share(step, state["seconds"], options) < 1:
        job.fill(step)
        clock = time.monotonic() - state["seconds"]  # rendering the pool is not training time
    log = Log(job, options, accelerator, step) if main else None
    with _until_terminated(stop) if accelerator.num_processes == 1 else nullcontext():
        while (
            share := _agreed(_share(step, time.monotonic() - clock, options), accelerator)
        ) < 1 and not stop:
            for group in optimizer.param_groups:
                group["lr"] = options.lr * cosine(step, share, options.warmup)
            with fast_attention(job.device):
                losses = model(job.batch(step))
                accelerator.backward(losses["loss"])
            accelerator.clip_grad_norm_(net.parameters(), options.clip)
            optimizer.step()
            optimizer.zero_grad()
            ema.update()
            step += 1
            if main:
                log(step, losses, share, time.monotonic() - clock)
                if time.monotonic() - saved >= options.checkpoint_minutes * 60:
                    seconds = time.monotonic() - clock
                    checkpoint(out, job, ema, optimizer, accelerator, step, seconds)
                    saved = time.monotonic()
                if options.sheet_minutes and time.monotonic() - drawn >= options.sheet_minutes * 60:
                    _sheet(job, ema, out, step)
                    drawn = time.monotonic()

    if main:
        if step > state["step"]:
            checkpoint(out, job, ema, optimizer, accelerator, step, time.monotonic() - clock)
            if options.sheet_minutes:
                _sheet(job, ema, out, step)
        log.close(f"stopped at step {step}" if stop else f"done at step {step}")
    if main and step:
        with ema.applied():
            export(job, out / "export", describe(job, options, accelerator) | {"step": step})
    accelerator.wait_for_everyone()
    return out / "export"


class _Loss(nn.Module):
    """The job's loss as a module, so that accelerate wraps one forward (autocast, several GPUs)."""

    def __init__(self, job):
        super().__init__()
        self.net, self.job = job.net, [job]  # in a list: the job is no submodule

    def forward(self, batch):
        return self.job[0].loss(batch)


def make_optimizer(job: Job, options: Options):
    """AdamW in one pass over the weights, or Muon (../muon.py) with AdamW for what is no matrix."""
    how: dict[str, Any] = dict(betas=(0.9, 0.99), weight_decay=options.weight_decay, fused=True)
    if job.optimizer == "muon":
        return Muon(job.net, options.lr, **how)
    return torch.optim.AdamW(job.net.parameters(), options.lr, **how)


def fast_attention(device: torch.device):
    """On a CPU the plain formula of attention: the fused kernel's backward pass is far slower."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    return sdpa_kernel(SDPBackend.MATH) if device.type == "cpu" else nullcontext()


def with_jemalloc(argv: list[str]) -> None:
    """Start this program again with jemalloc, if it is there: it keeps pages, fresh ones are dear.

    argv: of Python. Returns where there is nothing to do: on a GPU, where it is loaded already, or
    where it is not found.
    """
    if (
        torch.cuda.is_available()
        or sys.platform != "linux"
        or "jemalloc" in os.environ.get("LD_PRELOAD", "")
    ):
        return
    library = ctypes.util.find_library("jemalloc")
    if library is None:
        print(
            "no jemalloc found: training is a fifth slower (Debian and Ubuntu: libjemalloc2)",
            flush=True,
        )
        return
    more = {"LD_PRELOAD": library, "MALLOC_CONF": "dirty_decay_ms:-1,muzzy_decay_ms:-1"}
    os.execve(sys.executable, [sys.executable, *argv], os.environ | more)


def make_accelerator(precision="auto", cpu=False):
    """This machine's accelerator; `precision` "auto": bf16 where the chip has it, else fp16."""
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    if precision == "fp16" and (cpu or not (torch.cuda.is_available() or has_mps())):
        raise Refused("precision is 'fp16', which needs a GPU; choose auto, bf16 or no")
    AcceleratorState._reset_state(
        reset_partial_state=True
    )  # else the first choice in a process is the last
    return Accelerator(
        cpu=cpu, mixed_precision=pick_precision(cpu) if precision == "auto" else precision
    )


def has_mps() -> bool:
    return torch.backends.mps.is_available()


def pick_precision(cpu=False) -> str:
    if torch.cuda.is_available() and not cpu:  # a T4 emulates bf16 slowly: fp16 there
        return "bf16" if torch.cuda.get_device_capability()[0] >= 8 else "fp16"
    has_bf16 = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    return "bf16" if (cpu or not has_mps()) and has_bf16() else "no"


def cosine(step: int, share: float, warmup: int) -> float:
    """The factor on the rate: up over `warmup` steps, then half a cosine down to 1%."""
    down = 0.01 + 0.99 * (1 + math.cos(math.pi * min(share, 1))) / 2
    return min(1.0, (step + 1) / max(1, warmup)) * down


def _share(step: int, seconds: float, options: Options) -> float:
    """How much of the run is over, in [0, 1]: by steps or by time. It has one step at least."""
    if step == 0:
        return 0.0
    return max(step / options.steps, seconds / (options.minutes * 60) if options.minutes else 0.0)


def _agreed(share: float, accelerator) -> float:
    """The share of the first process: all stop at the same step, whatever their clocks say."""
    if accelerator.num_processes == 1:
        return share
    from accelerate.utils import broadcast

    return broadcast(torch.tensor(share, device=accelerator.device)).item()


def checkpoint(out, job, ema, optimizer, accelerator, step, seconds) -> None:
    """Save what resuming needs; out/checkpoint.pt is at any moment the old or the new."""
    state = {
        "net": job.net.state_dict(),
        "ema": ema.state_dict(),
        "optimizer": optimizer.state_dict(),
    }
    state["scaler"] = accelerator.scaler.state_dict() if accelerator.scaler else None
    state |= {"step": step, "seconds": seconds, "identity": job.identity()}
    check_finite(state, f"of {job.name} at step {step}", GO_BACK)
    atomic_save(state, Path(out) / "checkpoint.pt")


def atomic_save(state: dict, path: Path) -> None:
    """torch.save that a power cut cannot tear."""
    with files.replacing(path) as part:
        torch.save(state, part)


GO_BACK = "the last checkpoint is finite: go on from there with a lower lr"


def check_finite(state, where: str, hint: str) -> None:
    """Refuse weights, averages and moments that hold NaN or infinity: such a run is lost."""
    if not all(bool(tensor.isfinite().all()) for tensor in tensors(state)):
        raise Refused(f"the weights {where} are not finite; {hint}")


def tensors(state):
    """Every tensor in nested dictionaries and lists."""
    if isinstance(state, Tensor):
        yield state
    elif isinstance(state, dict | list | tuple):
        for part in state.values() if isinstance(state, dict) else state:
            yield from tensors(part)


def load_checkpoint(out) -> dict | None:
    """The checkpoint in `out`, or None; ValueError says what to do about a damaged one."""
    path = Path(out) / "checkpoint.pt"
    if not path.exists():
        return None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        if {"net", "ema", "optimizer", "step", "seconds", "identity"} <= set(state):
            return state
    except Exception as error:  # torch has a different one for each kind of damage
        raise Refused(_damaged(path)) from error
    raise Refused(_damaged(path))


def _damaged(path):
    return f"{path} is no checkpoint of a run, or damaged; delete it to start again from step 0"


def _same_run(out, job, state, but=()) -> None:
    """Refuse the checkpoint of a run that was asked for something else."""
    for key, mine in job.identity().items():
        was = state["identity"].get(key, mine)  # older checkpoints know fewer
        if key not in but and was != mine:
            fix = "pass that one or another folder"
            if key in ("scaling_factor", "frozen"):
                fix = "it began with other frozen networks: name those, or another --out"
            raise Refused(f"{out} holds a run with {key} {was}, not {mine}; {fix}")


def _resume(out, job, ema, optimizer, accelerator) -> dict:
    """Continue from out/checkpoint.pt, or start at step 0."""
    state = load_checkpoint(out)
    if state is None:
        return {"step": 0, "seconds": 0.0}
    _same_run(out, job, state)
    check_finite(state, f"in {out}/checkpoint.pt", "delete it to start again from step 0")
    try:
        job.net.load_state_dict(state["net"])
        ema.load_state_dict(state["ema"])
        optimizer.load_state_dict(state["optimizer"])
    except (RuntimeError, ValueError, KeyError) as error:
        raise Refused(
            f"{out} holds a run of other sizes or another optimizer; pass those or another folder"
        ) from error
    if accelerator.scaler and state["scaler"]:
        accelerator.scaler.load_state_dict(state["scaler"])
    accelerator.print(f"{job.name}: resumed at step {state['step']}", flush=True)
    return state


def export(job: Job, folder, notes: dict) -> None:
    """Write the shippable folder of `job` with its weights now, and how they were made.

    It is written beside first, so that each file of the folder is at any moment old or new.
    """
    halves = [value.half() for value in job.net.state_dict().values() if value.is_floating_point()]
    check_finite(halves, f"of {job.name} in half precision", "so nothing was exported")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    part = files.beside(folder)
    try:
        part.mkdir()
        if (folder / "blendlab.json").exists():
            shutil.copy(folder / "blendlab.json", part)
        job.net.eval()
        job.export(part)
        for file in part.rglob("config.json"):
            config = json.loads(file.read_text())
            if config.pop("_name_or_path", None):  # the folder of this machine it was loaded from
                files.write_json(file, config)
        files.write_json(part / f"training-{job.name}.json", notes)
        for file in [path for path in part.rglob("*") if path.is_file()]:
            place = folder / file.relative_to(part)
            place.parent.mkdir(parents=True, exist_ok=True)
            os.replace(file, place)
    finally:
        job.net.train()
        shutil.rmtree(part, ignore_errors=True)


def save_half(model, folder) -> None:
    """Save a diffusers or transformers model as fp16 safetensors; the one in training stays."""
    copy.deepcopy(model).half().save_pretrained(folder)


def go_on_from(folder: Path, net: nn.Module) -> None:
    """Take over the weights of the network in a folder, which is of the same class and sizes."""
    known = opening.network(folder, type(net).__name__, safe=False)
    take_weights(net, known.state_dict(), folder)


def fingerprint(net: nn.Module) -> int:
    """A number that tells frozen networks apart by their weights."""
    check = 0
    for value in net.state_dict().values():
        check = zlib.crc32(value.detach().cpu().contiguous().numpy().tobytes(), check)
    return check


def find_autoencoder(folder, device):
    """The frozen autoencoder in `folder`: by default of runs/autoencoder, else the shipped one."""
    places = (
        [Path(folder)]
        if folder
        else [Path("runs/autoencoder/export"), WEIGHTS / "tinyworld" / "vae"]
    )
    for place in places:
        if (place / "config.json").is_file():
            return opening.network(place, "AutoencoderKL", safe=False).to(device)
    raise Refused(
        f"there is no autoencoder in {places[-1]}; train it first: blendlab train autoencoder"
    )


def _sheet(job, ema, out, step) -> None:
    job.net.eval()
    with ema.applied(), torch.no_grad():
        picture = job.sheet()
    job.net.train()
    if picture:
        for name in (f"sheet-{step:07d}.png", "sheet.png"):
            with files.replacing(Path(out) / name) as part:
                picture.save(part, "PNG")


def describe(job, options, accelerator) -> dict:
    """Seed, options, sizes and versions: config.json, saved with the weights."""
    versions = {"torch": torch.__version__, "python": sys.version.split()[0]}
    run = {
        "name": job.name,
        "seed": job.seed,
        "batch_size": job.batch_size,
        "processes": accelerator.num_processes,
    }
    run |= {"parameters": sum(p.numel() for p in job.net.parameters()), "device": job.device.type}
    return (
        run
        | asdict(options)
        | {"precision": accelerator.mixed_precision, "job": job.config(), "versions": versions}
    )


def _sweep(out: Path) -> None:
    """Remove what a killed process had begun to write; the folder is locked, so nobody else is."""
    for part in out.glob(".*.part"):
        shutil.rmtree(part) if part.is_dir() else part.unlink()


@contextmanager
def _until_terminated(stop: list):
    """Let SIGTERM and Ctrl-C end the loop after the running step."""
    before = {}
    try:
        for name in (signal.SIGTERM, signal.SIGINT):
            before[name] = signal.signal(name, lambda *_: stop.append(1))
    except ValueError:  # not in the main thread: Python gives no signals there
        pass
    try:
        yield
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)


class Log:
    """Progress: a bar on a terminal, else one plain line every `log_seconds`."""

    def __init__(self, job, options, accelerator, step):
        self.job, self.options, self.bar = job, options, None
        self.pictures = job.batch_size * accelerator.num_processes
        self.sums, self.n, self.since, self.step = {}, 0, time.monotonic(), step
        if sys.stderr.isatty():
            self.bar = tqdm(
                total=options.steps, initial=step, desc=job.name, unit="step", dynamic_ncols=True
            )

    def __call__(self, step, losses, share, seconds):
        for key, value in losses.items():  # summed on the device: the GPU is not waited for
            self.sums[key] = self.sums.get(key, 0) + value.detach()
        self.n += 1
        if self.bar:
            self.bar.update()
        if (now := time.monotonic()) - self.since < self.options.log_seconds:
            return
        means = {key: (value / self.n).item() for key, value in self.sums.items()}
        if not math.isfinite(means["loss"]):
            raise Refused(
                f"the loss of {self.job.name} is {means['loss']} at step {step}; resume with "
                "a lower lr"
            )
        check_finite(self.job.net.state_dict(), f"of {self.job.name} at step {step}", GO_BACK)
        rate = self.n * self.pictures / (now - self.since)
        left = seconds / max(share, 1e-9) * (1 - share) / 60
        text = (
            "  ".join(f"{key} {value:.4f}" for key, value in means.items())
            + f"  {rate:.0f} pictures/s"
        )
        if self.bar:
            self.bar.set_postfix_str(text)
        else:
            print(
                f"{self.job.name}  step {step}/{self.options.steps}  {text}  {left:.0f} min left",
                flush=True,
            )
        self.sums, self.n, self.since = {}, 0, now

    def close(self, message):
        if self.bar:
            self.bar.close()
        print(f"{self.job.name}: {message}", flush=True)


def export_checkpoint(job: Job, out, folder: Path, options, accelerator) -> Path:
    """Write the shippable folder from the checkpoint in `out`, also while its run goes on."""
    state = load_checkpoint(out)
    if state is None:
        raise Refused(f"there is no checkpoint in {out} to export; train first")
    _same_run(out, job, state, but=("seed", "batch_size"))
    ema = EMA(job.net.to(job.device))
    try:
        job.net.load_state_dict(state["net"])
        ema.load_state_dict(state["ema"])
    except (RuntimeError, ValueError, KeyError) as error:
        raise Refused(
            f"{out} holds a run of other sizes; pass those, as in --set widths=8,8,8"
        ) from error
    file = Path(out) / "config.json"  # how the run was made, not this command
    notes = json.loads(file.read_text()) if file.exists() else describe(job, options, accelerator)
    with ema.applied():
        export(job, folder, notes | {"step": state["step"]} | state["identity"])
    return folder
