"""The command that remakes examples/: whole inputs with their truth, a video, figures against that truth."""

import importlib.util
from pathlib import Path

import pytest
import torch

from speak import checkpoint
from speak.config import preset, to_dict
from speak.media.image import read_image
from speak.media.video import probe
from speak.models.judge import Judge
from tests.animate.inputs import save_model, untrained

SCRIPT = Path(__file__).parent.parent / "examples" / "remake.py"


@pytest.fixture(scope="module")
def remake():
    spec = importlib.util.spec_from_file_location("remake", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_examples_are_rendered_animated_and_measured(tmp_path: Path, remake, capsys: pytest.CaptureFixture) -> None:
    save_model(tmp_path / "w.pt", untrained())
    config = preset("tiny")
    torch.manual_seed(0)
    judge = {"stage": "judge", "config": to_dict(config), "step": 0,
             "models": {"judge": Judge(config.model.judge).state_dict()}}  # fmt: skip
    checkpoint.save(tmp_path / "j.pt", judge)
    given = ["--weights", str(tmp_path / "w.pt"), "--judge", str(tmp_path / "j.pt"), "--out", str(tmp_path / "e"),
             "--sheet", str(tmp_path / "sheet.png"), "--people", str(tmp_path / "people.png"), "--seconds", "1",
             "--size", "64"]  # fmt: skip
    assert remake.main(given) == 0
    made = sorted(path.name for path in (tmp_path / "e").iterdir())
    assert made == ["emo.mp4", "id.png", "out.mp4", "pose.mp4", "speech.wav"] and (tmp_path / "sheet.png").exists()
    people = read_image(tmp_path / "people.png")
    assert people.shape == (3 * 128, 10 * 128, 3)
    rows = people.reshape(3, 128, 10, 128, 3).astype(float)  # photo and truth are of one clip
    assert abs(rows[0] - rows[1]).mean() < abs(rows[2] - rows[1]).mean()
    shown = capsys.readouterr().out
    assert "SSIM" in shown and "mouth opening, correlation" in shown and "frames read as happy" in shown
    assert probe(tmp_path / "e" / "out.mp4").sound


def test_figures_of_a_perfect_reading_are_perfect(remake) -> None:
    from speak.config import EMOTIONS
    from speak.models.judge import Reading

    pose, opening = torch.randn(20, 6), torch.rand(20)
    logits = torch.nn.functional.one_hot(torch.full((20,), EMOTIONS.index(remake.EMOTION)), len(EMOTIONS)).float()
    found = remake.figures(Reading(torch.zeros(20, 68, 2), pose, opening, logits, torch.ones(20, 4)), pose, opening)
    for name, value in found.items():
        assert value == pytest.approx(0 if "error" in name else 1, abs=1e-6), name
    turned = remake.figures(Reading(torch.zeros(20, 68, 2), pose + 3, -opening, 0 * logits, torch.ones(20, 4)), pose,
                            opening)  # fmt: skip
    assert turned["yaw, mean error in degrees"] == pytest.approx(3, abs=1e-5)
    assert turned["mouth opening, correlation"] == pytest.approx(-1, abs=1e-6)
    assert turned["frames read as happy"] == 0
