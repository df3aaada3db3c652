"""Stage speak: which encoders learn on, and where they come from."""

from pathlib import Path

import pytest
import torch

from speak import checkpoint, losses
from speak.checkpoint import load_into
from speak.errors import SpeakError
from speak.models.speak import Speak
from speak.train.command import run_stage
from tests.small_training import batch, build, small
from tests.tolerances import assert_close

CPU = torch.device("cpu")


def test_without_irfd_the_encoders_are_trained_from_scratch(tmp_path: Path, trained: Path) -> None:
    out = tmp_path / "run"
    for stage in ("perceptual", "syncnet"):
        (out / stage).mkdir(parents=True)
        (out / stage / "weights.pt").write_bytes((trained / stage / "weights.pt").read_bytes())
    with pytest.raises(SpeakError, match="--stage irfd"):
        build("speak", out)
    stage = build("speak", out, speak__train_encoders=True)
    stage.networks["speak"].train()
    losses.total_loss(stage.phases[0].losses(batch("speak"), {}), stage.phases[0].weights).backward()
    assert stage.networks["speak"].pose_encoder.linear.weight.grad.abs().sum() > 0


def test_frozen_encoders_stay_and_keep_their_statistics(trained: Path) -> None:
    stage = build("speak", trained)
    model = stage.networks["speak"]
    model.train()
    before = {key: value.clone() for key, value in model.pose_encoder.state_dict().items()}
    losses.total_loss(stage.phases[0].losses(batch("speak"), {}), stage.phases[0].weights).backward()
    assert all(torch.equal(value, model.pose_encoder.state_dict()[key]) for key, value in before.items())
    assert model.pose_encoder.linear.weight.grad is None
    irfd = checkpoint.load(trained / "irfd" / "weights.pt")["models"]["irfd"]
    assert torch.equal(irfd["pose_encoder.linear.weight"], before["linear.weight"])


def test_the_identity_encoder_may_learn_on_alone(trained: Path, tmp_path: Path) -> None:
    before = checkpoint.load(trained / "irfd" / "weights.pt")["models"]["irfd"]
    source = {name: str(trained / name / "weights.pt") for name in ("perceptual", "audio", "irfd", "syncnet")}
    config = small(speak__train_identity=True)
    run_stage("speak", config, "synthetic:3", tmp_path / "first", CPU, steps=1, batch=4, sources=source)
    first = checkpoint.load(tmp_path / "first" / "speak" / "weights.pt")["models"]["speak"]
    moved = {key.split(".")[0] for key in first if key in before and not torch.equal(first[key], before[key])}
    assert moved - {"generator"} == {"identity_encoder"}  # E_p, E_e, pose mapper and prototypes as they were
    # And from those weights E_i goes on from where it was, though stage irfd is there as well.
    still = small(speak__train_identity=True, speak__learning_rate=0.0)
    run_stage("speak", still, "synthetic:3", tmp_path / "second", CPU, steps=1, batch=4, sources=source,
              init=str(tmp_path / "first" / "speak" / "weights.pt"))  # fmt: skip
    second = checkpoint.load(tmp_path / "second" / "speak" / "weights.pt")["models"]["speak"]
    assert all(torch.equal(second[key], first[key]) for key in first if key.startswith("identity_encoder."))


def test_speak_goes_on_from_its_own_weights_without_the_stages_before(trained: Path, tmp_path: Path) -> None:
    """As one who has the shipped weights alone begins."""
    source = {name: str(trained / name / "weights.pt") for name in ("perceptual", "syncnet", "irfd", "audio")}
    run_stage("speak", small(), "synthetic:3", tmp_path / "first", CPU, steps=1, batch=4, sources=source)
    weights = tmp_path / "first" / "speak" / "weights.pt"
    less = {name: source[name] for name in ("perceptual", "syncnet")}
    run_stage("speak", small(speak__train_audio=False), "synthetic:3", tmp_path / "second", CPU, steps=1, batch=4,
              sources=less, init=str(weights))  # fmt: skip
    first, second = (checkpoint.load(file)["models"]["speak"]
                     for file in (weights, tmp_path / "second" / "speak" / "weights.pt"))  # fmt: skip
    same = [key for key in first if key.startswith(("pose_encoder", "emotion_encoder", "audio_encoder"))]
    assert same and all(torch.equal(first[key], second[key]) for key in same)


def test_encoders_that_learn_on_in_speak_have_their_controls_fitted_anew(trained: Path, tmp_path: Path) -> None:
    before = checkpoint.load(trained / "irfd" / "weights.pt")["models"]["irfd"]
    source = {name: str(trained / name / "weights.pt") for name in ("perceptual", "audio", "irfd", "syncnet")}
    fitted = {}
    for learns in (False, True):
        out = tmp_path / str(learns)
        config = small(speak__train_encoders=learns)
        run_stage("speak", config, "synthetic:3", out, CPU, steps=1, batch=4, sources=source)
        fitted[learns] = checkpoint.load(out / "speak" / "weights.pt")["models"]["speak"]
    controls = [key for key in before if key.startswith(("pose_mapper.", "emotion_prototypes."))]
    assert all(torch.equal(fitted[False][key], before[key]) for key in controls)
    assert any(not torch.equal(fitted[True][key], before[key]) for key in controls if key.startswith("pose_mapper"))
    model = Speak(small()).eval()
    load_into(model, fitted[True], "weights")
    frames = batch("speak", 64).frames
    labels = batch("speak", 64).labels.pose
    with torch.no_grad():
        codes, mapped = model.encode_pose(frames).flatten(0, 1), model.pose_mapper(labels.flatten(0, 1))
    spread = codes - codes.mean(0)
    assert (mapped - codes).square().mean() < 0.8 * spread.square().mean()  # poses in numbers say something of codes


def test_every_second_identity_may_be_fitted_to_the_photo_and_the_encoder_learns_from_the_others(
    trained: Path,
) -> None:
    stage = build("speak", trained, speak__train_identity=True, speak__inversion_steps=2, speak__strangers=0.0)
    model, windows, memory = stage.networks["speak"], batch("speak"), {}
    losses.total_loss(stage.phases[0].losses(windows, memory), stage.phases[0].weights).backward()
    assert model.identity_encoder.linear.weight.grad.abs().sum() > 0
    made = memory["frames"].detach()
    photos, count = windows.identity_frame_other, windows.frames.shape[1]
    with torch.no_grad():
        audio = model.encode_audio(windows.speech, count + 2 * windows.context)
        codes = (
            model.encode_pose(windows.pose_frames), model.encode_emotion(windows.emotion_frames_other).mean(1, True),
            audio[:, windows.context : windows.context + count], model.draw_noise(windows.number.tolist()),
        )  # fmt: skip
        fitted, read = (
            model.generate(identity, *codes, model.portrait(identity, photos))
            for identity in (model.read_identity(photos, steps) for steps in (2, 0))
        )
    even = windows.number % 2 == 0
    assert 0 < even.sum() < len(even)
    assert_close(made[even], fitted[even])
    assert_close(made[~even], read[~even])
    assert (made - read)[even].abs().mean() > 1e-3
