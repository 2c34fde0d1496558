"""check: one readable line each, printed once, and useful hints."""

import subprocess
import sys

from blendlab import cards
from blendlab.course import doctor


def test_each_line_says_one_thing(capsys):
    doctor.check()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(doctor.report())
    assert lines[0].startswith("blendlab ") and "torch 2" in lines[0] and "open_clip 3" in lines[0]
    assert (
        lines[1].startswith("device: ")
        and lines[2].startswith("memory: ")
        and " GB free of " in lines[2]
    )
    assert all(len(line) < 120 for line in lines)


def test_every_network_is_there_with_its_size_or_missing_with_its_command(monkeypatch, tmp_path):
    (tmp_path / "tinyworld" / "unet").mkdir(parents=True)
    (tmp_path / "tinyworld" / "unet" / "weights.safetensors").write_bytes(bytes(2_500_000))
    monkeypatch.setattr(doctor, "WEIGHTS", tmp_path)
    lines = doctor.report()
    assert "tinyworld: 2.5 MB" in lines
    assert "tinyworld-clip: not here yet, `blendlab train clip` makes it" in lines
    assert all(any(line.startswith(f"{name}: ") for line in lines) for name in cards.SHIPPED)
    assert all(name in lines[-1] for name in (*cards.KNOWN, *cards.CONVERTED))


def test_colab_without_a_gpu_shows_the_menu_path(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setitem(sys.modules, "google.colab", object())
    assert "Runtime -> Change runtime type -> T4" in doctor.report()[1]


def test_a_gpu_is_named_with_its_free_memory(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda: "Tesla T4")
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda: (14_000_000_000, 15_800_000_000))
    assert doctor.report()[1] == "device: cuda, Tesla T4, 14.0 GB free of 15.8 GB"


def test_a_missing_package_is_a_word_and_no_error(monkeypatch):
    monkeypatch.setattr(doctor, "PACKAGES", {"nosuch": "no-such-package"})
    assert doctor.report()[0].endswith("nosuch (not installed)")


def test_no_heavy_import_for_a_version_number():
    code = (
        "import sys; from blendlab.course.doctor import report; report(); "
        "print([name for name in ('diffusers', 'transformers', 'open_clip') if name in "
        "sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
