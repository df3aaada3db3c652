"""Adaptation to one person: the photo is rebuilt, motion stays, the weights can be kept and used again."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity

from speak.adapt import adapt, motion_bank, ssim
from speak.cli import main
from speak.config import AdaptConfig
from speak.errors import SpeakError
from speak.generation import TalkingHead, load
from speak.media.image import read_image
from tests.tolerances import assert_close

QUICK = AdaptConfig(clip_frames=4, clip_batch=1, bank=32)  # a test has seconds
STEPS = 160  # fewer, and a generator as wide as the shipped one has hardly begun to forget


@pytest.fixture(scope="module")
def trained() -> TalkingHead:
    """The shipped weights: what an untrained generator keeps of its motion says nothing."""
    return load(device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def adapted(trained: TalkingHead):
    photo = trained.photo(Path("examples/id.png"))
    return *adapt(trained, photo, steps=STEPS, config=QUICK, progress=False), photo


def test_ssim_is_that_of_scikit_image() -> None:
    random = torch.Generator().manual_seed(0)
    one, other = torch.rand(2, 3, 20, 24, generator=random), torch.rand(2, 3, 20, 24, generator=random)
    expected = np.mean([
        structural_similarity(a.double().numpy(), b.double().numpy(), channel_axis=0, data_range=1)
        for a, b in zip(one, other, strict=True)
    ])  # fmt: skip
    assert ssim(one * 2 - 1, other * 2 - 1).item() == pytest.approx(expected, abs=1e-5)


def test_the_photo_is_rebuilt_and_motion_stays(adapted) -> None:
    new, report, photo = adapted
    assert report.ssim > report.ssim_before + 0.05 and report.ssim > 0.8
    assert report.pose_kept > 0.7 and report.sound_kept > 0.7
    assert new.identity.norm().item() == pytest.approx(1, abs=1e-5)
    assert "response to pose" in str(report)


@torch.no_grad()
def test_motion_is_forgotten_without_what_holds_it(trained: TalkingHead, adapted) -> None:
    """The same steps with it and on the photo alone: how far poses and what sounds change are from the original's."""
    held, _, photo = adapted
    alone = dataclasses.replace(QUICK, weight_pose=0, weight_emotion=0, weight_mouth=0, weight_identity=0)
    with torch.enable_grad():
        free, _ = adapt(trained, photo, steps=STEPS, config=alone, progress=False)
    codes = motion_bank(trained, None, 16, seed=7)  # not those that it was held with

    def moved(head: TalkingHead, identity: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        frames, still = (
            head.model.generate(identity[None], codes.pose[None], codes.emotion[None], audio[None],
                                head.model.draw_noise([0]))[0]
            for audio in (codes.audio, codes.audio[:1].expand(16, -1))
        )  # fmt: skip
        return trained.model.encode_pose(frames), frames - still

    away = []
    for head in (held, free):
        (pose, change), (true_pose, true_change) = moved(head, head.identity), moved(trained, head.identity)
        away.append(torch.stack([(pose - true_pose).norm(), (change - true_change).abs().mean()]))
    assert (away[0] < 0.8 * away[1]).all(), away


def test_the_head_that_was_given_is_not_changed(head: TalkingHead, inputs: dict) -> None:
    before = {key: value.clone() for key, value in head.model.state_dict().items()}
    adapt(head, head.photo(inputs["photo"]), steps=3, config=QUICK, progress=False)
    assert all(torch.equal(value, before[key]) for key, value in head.model.state_dict().items())
    assert head.identity is None and not any(p.requires_grad for p in head.model.parameters())


def test_where_frames_are_made_in_bfloat16_so_is_the_adaptation(weights: Path, inputs: dict) -> None:
    half = load(weights, "cpu", "bfloat16")
    new, report = adapt(half, half.photo(inputs["photo"]), steps=20, config=QUICK, progress=False)
    assert report.ssim > report.ssim_before and new.dtype == torch.bfloat16
    assert all(value.dtype == torch.float32 for value in new.model.parameters())  # the weights are whole


def test_what_drives_the_regulariser_are_the_models_own_controls(head: TalkingHead) -> None:
    bank = motion_bank(head, None, 40, 0)
    model = head.config.model
    assert bank.pose.shape == (40, model.pose.code_dim) and bank.emotion.shape == (40, model.emotion.code_dim)
    assert bank.audio.shape == (40, model.audio.width) and bank.audio.std(0).mean() > 0
    assert_close(motion_bank(head, None, 40, 0).pose, bank.pose)
    neutral = head.model.emotion_from_names({"neutral": 1.0})
    assert (bank.emotion - neutral).norm(dim=1).max() > 1e-2


def test_a_clip_of_the_person_is_fitted_too(head: TalkingHead, inputs: dict) -> None:
    new, report = adapt(head, head.photo(inputs["photo"]), steps=20, clip=inputs["pose"], config=QUICK, progress=False)
    assert report.ssim > report.ssim_before
    with pytest.raises(SpeakError, match=r"speech\.wav"):
        adapt(head, head.photo(inputs["photo"]), steps=2, clip=inputs["speech"], config=QUICK, progress=False)


def test_adapted_weights_are_saved_and_make_the_same_video(
    tmp_path: Path, inputs: dict, weights: Path, capsys: pytest.CaptureFixture
) -> None:
    given = ["animate", str(inputs["photo"]), str(inputs["speech"]), "--emotion", "happy:0.5"]
    usual = ["--weights", str(weights), "--dtype", "float32"]
    kept = tmp_path / "adapted.pt"
    assert main([*given, *usual, "-o", str(tmp_path / "a.mp4"), "--save-adapted", str(kept), "--adapt", "4"]) == 0
    shown = capsys.readouterr()
    assert "SSIM of the photo" in shown.out and str(kept) in shown.out
    assert "were adapted to one person" not in shown.err  # it is the person in the photo
    again = load(kept, "cpu", "float32")
    assert again.identity is not None
    assert_close(again.person, again.photo(inputs["photo"]).large[0], dtype=torch.float16)
    frames = [np.stack(list(load(path, "cpu", "float32").animate(read_image(inputs["photo"]), inputs["speech"])))
              for path in (kept, weights)]  # fmt: skip
    assert np.abs(frames[0].astype(int) - frames[1]).mean() > 0.5
    assert main([*given, "--weights", str(kept), "-o", str(tmp_path / "b.mp4")]) == 0
    assert "were adapted to one person" in capsys.readouterr().err


def test_steps_below_one_are_refused(tmp_path: Path, inputs: dict, weights: Path, capsys) -> None:
    given = ["animate", str(inputs["photo"]), str(inputs["speech"]), "--weights", str(weights)]
    assert main([*given, "-o", str(tmp_path / "o.mp4"), "--adapt", "0"]) == 2
    assert "--adapt 0: at least one step" in capsys.readouterr().err and list(tmp_path.iterdir()) == []
