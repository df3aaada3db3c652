"""Weights that come with the package: one file or parts of one, found, joined, or missed with one clear line."""

from pathlib import Path

import pytest
import torch

import speak
from speak import checkpoint, shipped
from speak.config import preset, to_dict, with_changes
from speak.errors import SpeakError
from speak.models.speak import Speak


def content(**models: dict) -> dict:
    torch.manual_seed(0)
    return {"stage": "speak", "config": to_dict(preset("tiny")), "step": 5,
            "models": models or {"net": {"weight": torch.randn(40, 40)}}}  # fmt: skip


@pytest.mark.parametrize("largest", [1 << 20, 1500])
def test_weights_come_back_from_one_file_or_from_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, largest: int
) -> None:
    monkeypatch.setattr(shipped, "LARGEST_FILE", largest)
    files = shipped.save_for_shipping("speak", content(), tmp_path)
    assert (len(files) > 1) == (largest < 3000) and all(file.stat().st_size <= largest for file in files)
    assert shipped.files_of("speak", tmp_path) == files and sorted(tmp_path.iterdir()) == files
    weight = shipped.load_shipped("speak", tmp_path)["models"]["net"]["weight"]
    assert torch.equal(weight, content()["models"]["net"]["weight"].half().float())


def test_other_weights_of_the_same_name_are_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipped, "LARGEST_FILE", 1500)
    shipped.save_for_shipping("judge", content(), tmp_path)
    monkeypatch.undo()
    assert shipped.save_for_shipping("judge", content(), tmp_path) == [tmp_path / "judge.pt"]
    assert [path.name for path in tmp_path.iterdir()] == ["judge.pt"]


def test_a_part_that_is_missing_or_damaged_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipped, "LARGEST_FILE", 1500)
    files = shipped.save_for_shipping("speak", content(), tmp_path)
    files[-1].unlink()
    with pytest.raises(SpeakError, match=r"speak\.pt in \d parts: truncated") as caught:
        shipped.load_shipped("speak", tmp_path)
    assert "\n" not in str(caught.value)


def test_without_weights_the_remedy_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipped, "FOLDER", tmp_path)
    with pytest.raises(SpeakError, match="no speak weights come with this installation.*--weights FILE"):
        speak.load()


def test_a_whole_model_comes_back_as_it_was(tmp_path: Path) -> None:
    model = Speak(preset("tiny"))
    checkpoint.save(tmp_path / "m.pt", content(speak=model.state_dict()))
    loaded, config, rest = shipped.load_speak(tmp_path / "m.pt")
    assert config == preset("tiny") and rest["step"] == 5 and not loaded.training
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in loaded.state_dict().items())


def test_weights_of_another_stage_or_shape_are_refused(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "irfd.pt", {**content(irfd={"a": torch.zeros(1)}), "stage": "irfd"})
    with pytest.raises(SpeakError, match=r"irfd\.pt: holds irfd of stage irfd, not a whole model"):
        shipped.load_speak(tmp_path / "irfd.pt")
    other = with_changes(preset("tiny"), {"model.pose.code_dim": 7})
    checkpoint.save(tmp_path / "m.pt", {**content(speak=Speak(preset("tiny")).state_dict()), "config": to_dict(other)})
    with pytest.raises(SpeakError, match=r"m\.pt: does not fit Speak"):
        shipped.load_speak(tmp_path / "m.pt")
    checkpoint.save(tmp_path / "c.pt", {**content(speak={}), "config": {"colour": 1}})
    with pytest.raises(SpeakError, match=r"c\.pt: unknown configuration key 'colour'"):
        shipped.load_speak(tmp_path / "c.pt")
