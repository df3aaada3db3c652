"""`doctor`: what it says agrees with what is installed, and with what the operators do."""

import importlib.metadata
import platform

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
