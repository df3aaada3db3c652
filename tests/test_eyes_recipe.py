"""examples/eye_reader.py: eyes become part of f_P, and nothing that read f_P before sees anything else."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from speak.datasets.rendered import RenderedData, fresh
from speak.shipped import load_speak

RECIPE = Path(__file__).parent.parent / "examples/eye_reader.py"


@pytest.fixture(scope="module")
def recipe() -> ModuleType:
    spec = importlib.util.spec_from_file_location("eyes_recipe", RECIPE)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_the_reader_learns_and_eyes_go_where_poses_do_not(
    recipe: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(recipe, "BATCH", 16)
    monkeypatch.setattr(recipe, "MEASURED", 64)
    monkeypatch.setattr(recipe, "AVERAGE", 0.9)
    monkeypatch.setattr(recipe, "WARM_UP", 10)
    before, _, _ = load_speak()
    recipe.main(["--out", str(tmp_path), "--data", "synthetic:7", "--steps", "250"])
    after, config, _ = load_speak(tmp_path / "weights.pt")
    assert config.model.pose.eyes == recipe.WIDTH and str(tmp_path / "weights.pt") in capsys.readouterr().out
    for key, value in before.state_dict().items():
        if not key.startswith(("pose_encoder.eyes.", "pose_mapper.eyes", "generator.fuse.", "photo_warp.poses.")):
            assert torch.equal(after.state_dict()[key], value) or "affine" in key, key
    batch = RenderedData("judge", 8, "test", 64, fresh(config.rendered, blinks=0.4)).batch(range(64))
    with torch.no_grad():
        eyes = after.pose_mapper.eyes
        read = (after.encode_pose(batch.frames) - recipe.head_pose(after, batch.frames)) @ eyes.T
        read = read / eyes.square().sum(1)
        poses = after.pose_mapper(batch.labels.pose)
    shut = torch.corrcoef(torch.stack([read[:, 0], batch.labels.eyes[:, 0]]))[0, 1]
    assert shut > 0.5  # after 250 steps
    directions = eyes / eyes.norm(dim=1, keepdim=True)
    assert ((poses - poses.mean(0)) @ directions.T).std(0).max() < 0.1 * poses.std(0).max()
    assert eyes.norm(dim=1).min() > 2
    photos, noise = batch.frames[:4], after.draw_noise([0] * 4)
    with torch.no_grad():  # frames are as before, whatever eyes do: nobody has learnt to read them yet
        pose, sound = after.pose_mapper(batch.labels.pose[:4])[:, None], after.encode_silence().expand(4, 1, -1)
        made = []
        for model, moved in ((before, pose), (after, pose), (after, pose + eyes.sum(0))):
            identity, emotion = model.encode_identity(photos), model.encode_emotion(photos)[:, None]
            portrait = model.portrait(identity, photos)
            made.append(model.generate(identity, moved, emotion, sound, noise, portrait))
        turned = after.pose_mapper(batch.labels.pose[4:8])[:, None]
        other = after.generate(identity, turned, emotion, sound, noise, portrait)
    assert (made[1] - made[0]).abs().mean() < 0.1 * (other - made[0]).abs().mean()
    assert (made[2] - made[1]).abs().max() < 1e-3


def test_what_it_is_to_look_at_are_the_eyes(recipe: ModuleType) -> None:
    landmarks = torch.zeros(1, 68, 2)
    landmarks[0, [36, 39, 42, 45], 0] = torch.tensor([19.5, 27.5, 35.5, 43.5])
    landmarks[0, [36, 39, 42, 45], 1] = 23.5
    middle_and_corner = torch.tensor([[0.0, -0.25, 0.375, 0.0]])
    assert torch.allclose(recipe.eyes_at(landmarks, 64), middle_and_corner)


def test_only_rendered_people_can_teach_it(recipe: ModuleType, capsys: pytest.CaptureFixture) -> None:
    for wrong in (["--data", "corpus"], ["--steps", "0"]):
        with pytest.raises(SystemExit) as caught:
            recipe.main(wrong)
        assert caught.value.code == 2
    assert "only rendered people" in capsys.readouterr().err
