"""`doctor`: what it says agrees with what is installed, and with what the operators do."""

import importlib.metadata
import os
import platform
import re
import subprocess
import sys

import pytest
import torch

from speak import doctor, ops
from speak.cli import main
from speak.config import preset
from speak.models.speak import Speak
from speak.ops import extension


def test_versions_threads_and_missing_extras_are_named(capsys: pytest.CaptureFixture, monkeypatch) -> None:
    monkeypatch.setitem(doctor.EXTRAS, "more", (("no_such_module", "torch", "no_such_package.part"), "for this test"))
    assert main(["doctor"]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line.startswith("  ")}
    for package in ("torch", "numpy", "imageio-ffmpeg"):
        assert importlib.metadata.version(package) in lines[package]
    assert platform.python_version() in lines["python"]
    assert f"{torch.get_num_threads()} of" in lines["threads"] and "GiB" in lines["memory"]
    assert "lacks no_such_module, no_such_package.part; for this test" in lines["more"]


def test_a_pipe_that_reads_no_further_ends_the_command_quietly() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        command = subprocess.run([sys.executable, "-m", "speak", "doctor"], stdout=writing, stderr=subprocess.PIPE)
    finally:
        os.close(writing)
    assert (command.returncode, command.stderr) == (141, b"")


def test_the_path_that_is_said_is_the_path_that_is_taken() -> None:
    for row in doctor.operator_paths():
        x = torch.randn(2, 3, device=row["device"]).to(getattr(torch, row["dtype"]))
        with ops.backend("compiled"):
            if row["bias_act"] == "compiled":
                ops.bias_act(x)
            else:
                with pytest.raises(extension.SpeakError, match=row["why"]):
                    ops.bias_act(x)


def test_without_a_library_every_path_is_the_reference_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    missing = extension.Library(None, "the package was installed without a compiler")
    monkeypatch.setattr(extension, "LIBRARY", missing)
    for row in doctor.operator_paths():
        assert row["epilogue"] == "reference" and row["why"] == missing.missing


def test_a_preset_is_described_with_the_size_that_it_has(capsys: pytest.CaptureFixture) -> None:
    assert main(["doctor", "--preset", "tiny"]) == 0
    rows = capsys.readouterr().out.split("preset tiny")[1].splitlines()
    generator = Speak(preset("tiny")).generator
    millions = sum(parameter.numel() for parameter in generator.parameters()) / 1e6
    assert any(row.startswith("G_g") and f"{millions:.2f} M" in row for row in rows)


def test_the_paper_preset_lists_parameters_multiply_adds_and_memory_of_every_part(
    capsys: pytest.CaptureFixture,
) -> None:
    assert main(["doctor", "--preset", "paper"]) == 0
    parts, training = capsys.readouterr().out.split("preset paper")[1].split("\n\n")
    heading, *rows = parts.splitlines()[1:]
    assert heading.split() == ["part", "per", "parameters", "multiply-adds", "weights", "activations"]
    names = ("E_i", "E_p", "E_e", "E_a", "editing", "G_g", "G_d", "D", "SyncNet", "SyncNet", "perceptual", "judge")
    assert tuple(row.split()[0] for row in rows) == names
    figures = re.compile(r"(frame|window|second) +([\d.]+) M +([\d,]+) M +([\d.]+) MiB +([\d.]+) MiB$")
    for row in rows:
        unit, parameters, work, weights, activations = figures.search(row).groups()
        assert (unit == "second") == row.startswith("E_a") and (unit == "window") == row.startswith("SyncNet")
        assert float(work.replace(",", "")) > 0 and float(activations) > 0
        assert float(weights) >= 0.98 * 4e6 * float(parameters) / 2**20  # float32, and buffers
    # ResNet-50 with 512 outputs; wav2vec2-base: published sizes
    assert "24.56 M" in rows[0] and "94.37 M" in rows[3]
    stages = [re.findall(r"([\d.]+) GiB", row) for row in training.splitlines()[2:]]
    assert len(stages) == 2
    for fixed, sample, recomputed in stages:
        assert 0 < float(recomputed) < float(sample) and float(fixed) + float(sample) < 16  # fits a V100
