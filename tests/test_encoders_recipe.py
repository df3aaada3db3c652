"""examples/pose_emotion_encoders.py: E_p and E_e learn to read other people, nothing else changes."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from speak.shipped import load_speak

RECIPE = Path(__file__).parent.parent / "examples/pose_emotion_encoders.py"
LEARNING = ("pose_encoder.", "emotion_encoder.")


@pytest.fixture(scope="module")
def recipe() -> ModuleType:
    spec = importlib.util.spec_from_file_location("encoders_recipe", RECIPE)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_twins_are_the_same_people_in_the_same_pose_and_emotion(recipe: ModuleType) -> None:
    _, config, _ = load_speak()
    shown, twin = (data.batch(range(8)) for data in recipe.twins(config, 3, "test", 1, 1.0, 0.0))
    for name in ("identity", "emotion", "level", "pose"):
        assert torch.equal(getattr(shown.labels, name), getattr(twin.labels, name))
    eyes = [(batch.labels.landmarks[:, 39] - batch.labels.landmarks[:, 36]).norm(dim=1) for batch in (shown, twin)]
    assert (eyes[0] < 0.85 * eyes[1]).all()  # how wide


def test_about_half_of_the_pictures_are_lit_and_shaded_softly_the_others_stay(recipe: ModuleType) -> None:
    torch.manual_seed(0)
    frames = torch.full((200, 3, 64, 64), -0.4)
    shown = recipe.shaded(frames)
    assert shown.abs().max() <= 1 and torch.equal(shown[:, 0], shown[:, 2])
    changed = (shown - frames).abs().amax((1, 2, 3)) > 1e-5
    assert 70 < changed.sum() < 130
    light = ((shown[changed] + 1) / 0.6).log()[:, 0]  # of a reflectance of 0.6 / 2
    assert 0.15 < light.std() < 0.35 and light.mean().abs() < 0.05
    assert all(light.diff(dim=dim).abs().mean() < 0.35 * light.std() for dim in (1, 2))


def test_both_encoders_learn_from_other_people_and_nothing_else_changes(
    recipe: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(recipe, "BATCH", 16)
    monkeypatch.setattr(recipe, "MEASURED", 64)
    monkeypatch.setattr(recipe, "WARM_UP", 10)
    monkeypatch.setattr(recipe, "AVERAGE", 0.9)
    before, config, _ = load_speak()
    with torch.no_grad():  # as if they had learnt nothing: there is much to learn in a few steps
        for name in ("pose_encoder", "emotion_encoder"):
            getattr(before, name).linear.weight.mul_(0.3)
    learnt, _, _ = load_speak()
    learnt.load_state_dict(before.state_dict())
    recipe.learn(learnt, config, 7, 60)
    lines = capsys.readouterr().out.splitlines()
    was, now = ([float(word.rstrip(",")) for word in line.split()[2::2]] for line in (lines[0], lines[-1]))
    assert lines[0].startswith("before: ") and lines[-1].startswith("after: ")
    assert all(new < 0.8 * old for old, new in zip(was, now, strict=True))
    state = learnt.state_dict()
    for key, value in before.state_dict().items():
        assert torch.equal(state[key], value) != (key.startswith(LEARNING) and "running" not in key), key


def test_it_writes_whole_weights_that_load(recipe: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipe, "BATCH", 4)
    monkeypatch.setattr(recipe, "MEASURED", 4)
    assert recipe.main(["--out", str(tmp_path / "run"), "--data", "synthetic:7", "--steps", "1"]) == 0
    before, after = (load_speak(path)[0].state_dict() for path in (None, tmp_path / "run/weights.pt"))
    assert after.keys() == before.keys()


def test_what_cannot_work_is_refused_before_any_work(recipe: ModuleType, tmp_path: Path) -> None:
    out = ("--out", str(tmp_path / "run"))
    for words in (("--data", "corpora/mine"), ("--steps", "0")):
        with pytest.raises(SystemExit) as stopped:
            recipe.main([*out, *words])
        assert stopped.value.code == 2
    assert not (tmp_path / "run").exists()
