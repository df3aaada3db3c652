"""examples/identity_encoder.py: a new E_i learns codes fitted to frames; the rest of the weights stays as it was."""

import functools
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from speak.shipped import load_speak

RECIPE = Path(__file__).parent.parent / "examples/identity_encoder.py"


@pytest.fixture(scope="module")
def recipe() -> ModuleType:
    spec = importlib.util.spec_from_file_location("identity_recipe", RECIPE)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def refused(recipe: ModuleType, *words: str) -> bool:
    with pytest.raises(SystemExit) as stopped:
        recipe.main(list(words))
    return stopped.value.code == 2


def test_an_error_of_a_code_weighs_what_it_changes_in_the_pictures(recipe: ModuleType) -> None:
    model, _, _ = load_speak()
    torch.manual_seed(0)
    pictures = torch.randint(256, (48, 2, 3, 64, 64), dtype=torch.uint8)
    codes = torch.nn.functional.normalize(torch.randn(48, 256), dim=-1)
    weighing = recipe.response(model, pictures, codes, rounds=6)
    small = torch.nn.functional.normalize(torch.randn(48, 256), dim=-1) * 0.02
    shown = recipe.in_range(pictures[:, -1])
    with torch.no_grad():
        pose, emotion = model.encode_pose(shown)[:, None], model.encode_emotion(shown)[:, None]
        rest = (pose, emotion, model.encode_silence().expand(48, 1, -1), model.draw_noise([0] * 48))
        changed = (model.generate(codes + small, *rest) - model.generate(codes, *rest)).square().mean()
    weighed = recipe.weighed_error(codes + small, codes, weighing)
    assert 0.7 < weighed / changed < 1.4


def test_a_new_encoder_learns_and_nothing_else_changes(
    recipe: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(recipe, "response", functools.partial(recipe.response, rounds=2))
    words = ["--out", str(tmp_path), "--data", "synthetic:7", "--windows", "16"]
    for setting in ("grid=2", "width=8", "image_size=64"):
        words += ["--set", f"model.identity.{setting}"]
    assert recipe.main([*words, "--steps", "40"]) == 0
    before, old, _ = load_speak()
    after, new, _ = load_speak(tmp_path / "weights.pt")
    assert new.model.identity.grid == 2 and new.model.pose == old.model.pose
    assert after.identity_encoder.linear.in_features == 4 * after.identity_encoder.trunk.channels
    state = after.state_dict()
    for key, value in before.state_dict().items():
        assert key.startswith("identity_encoder.") or torch.equal(state[key], value)

    # The codes are fitted once: the same command again learns from those that are there.
    monkeypatch.setattr(recipe, "fitted_window", None)
    capsys.readouterr()
    assert recipe.main([*words, "--steps", "200"]) == 0
    lines = capsys.readouterr().out.splitlines()
    errors = [float(line.split("of the last batch ")[1]) for line in lines if line.startswith("step ")]
    pictures, codes = recipe.collected(before, old, tmp_path / "codes", 7, 16)
    untrained = recipe.Encoder(new.model.identity, True)
    weighing = recipe.response(before, pictures, codes)
    assert errors[-1] < 0.5 * recipe.measured(untrained, pictures, codes, weighing)

    # In the shape that it has E_i goes on from what it is, not from nothing.
    assert recipe.main([*words[:6], "--steps", "1"]) == 0
    was, after_a_step = capsys.readouterr().out.splitlines()[:2]
    assert float(after_a_step.split("new people ")[1].split(",")[0]) == pytest.approx(float(was.split()[-1]), rel=0.05)


def test_what_cannot_work_is_refused_before_any_work(recipe: ModuleType, tmp_path: Path) -> None:
    out = ("--out", str(tmp_path / "run"))
    assert refused(recipe, *out, "--data", "corpora/mine")
    assert refused(recipe, *out, "--windows", "3")
    assert refused(recipe, *out, "--set", "model.pose.width=8")
    assert not (tmp_path / "run").exists()
