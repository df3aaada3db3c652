"""The whole at preset tiny: one photo, poses, emotions and speech in; frames out."""

import pytest
import torch

from speak.config import preset, sample_of_frame
from speak.errors import SpeakError
from speak.models.codes import FACTORS
from speak.models.irfd import ENCODERS, IRFD
from speak.models.speak import ClipNoise, Speak
from tests.tolerances import assert_close

TINY = preset("tiny")


@pytest.fixture(scope="module")
def model() -> Speak:
    torch.manual_seed(0)
    model = Speak(TINY)
    for name, parameter in model.named_parameters():
        if name.endswith("noise_strength"):  # starts at zero; here the noise must be seen
            torch.nn.init.constant_(parameter, 0.1)
    return model.eval()


def driven(model: Speak, frames: int, clips: int = 1) -> dict[str, torch.Tensor]:
    """Codes of random inputs."""
    torch.manual_seed(frames)
    pictures = torch.rand(clips, frames, 3, 64, 64) * 2 - 1
    with torch.no_grad():
        return {
            "identity": model.encode_identity(pictures[:, 0]),
            "pose": model.encode_pose(pictures),
            "emotion": model.encode_emotion(pictures),
            "audio": model.encode_audio(torch.randn(clips, sample_of_frame(frames)) * 0.1, frames),
        }


def test_everything_at_once_gives_a_frame_for_every_pose_and_every_parameter_learns() -> None:
    torch.manual_seed(0)
    model = Speak(TINY)
    pictures = torch.rand(2, 3, 3, 64, 64) * 2 - 1
    frames = model(pictures[:, 0], pictures, pictures[:, :1], torch.randn(2, sample_of_frame(3)) * 0.1, seeds=[0, 1])
    assert frames.shape == (2, 3, 3, 64, 64) and frames.isfinite().all() and 0.05 < frames.std() < 2
    frames.square().mean().backward()
    for name, parameter in model.named_parameters():
        if not name.startswith("pose_mapper"):
            assert parameter.grad is not None and parameter.grad.isfinite().all(), name
            assert parameter.grad.abs().max() > 0, name


def test_a_seed_gives_the_same_video_whatever_else_is_in_the_batch(model: Speak) -> None:
    both = driven(model, frames=2, clips=2)
    second = {name: code[1:] for name, code in both.items()}
    with torch.no_grad():
        together = model.generate(**both, noise=model.draw_noise([3, 7]))
        alone = model.generate(**second, noise=model.draw_noise([7]))
        other = model.generate(**second, noise=model.draw_noise([8]))
    assert_close(together[1:], alone)
    assert (other - alone).abs().max() > 1e-2


def test_a_still_input_gives_a_still_video(model: Speak) -> None:
    codes = driven(model, frames=1)
    still = {name: code if name == "identity" else code.expand(-1, 4, -1) for name, code in codes.items()}
    with torch.no_grad():
        frames = model.generate(**still, noise=model.draw_noise([0]))
    assert_close(frames, frames[:, :1].expand_as(frames))


def test_a_clip_generated_in_pieces_is_the_clip_generated_whole(model: Speak) -> None:
    codes, noise = driven(model, frames=5), model.draw_noise([1])
    with torch.no_grad():
        whole = model.generate(**codes, noise=noise)
        pieces = []
        for piece in (slice(0, 2), slice(2, 5)):
            part = {name: code if name == "identity" else code[:, piece] for name, code in codes.items()}
            pieces.append(model.generate(**part, noise=noise))
    assert_close(torch.cat(pieces, 1), whole)


def test_one_emotion_serves_a_whole_clip(model: Speak) -> None:
    codes, noise = driven(model, frames=3), model.draw_noise([1])
    constant = codes["emotion"][:, :1]
    with torch.no_grad():
        short = model.generate(**{**codes, "emotion": constant}, noise=noise)
        assert_close(short, model.generate(**{**codes, "emotion": constant.expand(-1, 3, -1)}, noise=noise))


@pytest.mark.parametrize("frames", [1, 2])
def test_short_clips_and_silence_work(model: Speak, frames: int) -> None:
    codes = driven(model, frames)
    with torch.no_grad():
        codes["audio"] = model.encode_audio(torch.zeros(1, sample_of_frame(frames)), frames)
        video = model.generate(**codes, noise=model.draw_noise([0]))
    assert video.shape == (1, frames, 3, 64, 64) and video.isfinite().all()


def test_every_input_changes_the_video(model: Speak) -> None:
    codes, noise = driven(model, frames=2), model.draw_noise([0])
    with torch.no_grad():
        video = model.generate(**codes, noise=noise)
        for name in codes:
            other = driven(model, frames=3)[name]
            moved = {**codes, name: other if name == "identity" else other[:, :2]}
            assert (model.generate(**moved, noise=noise) - video).abs().max() > 1e-3, name


def test_frames_may_come_with_any_leading_dimensions(model: Speak) -> None:
    pictures = torch.rand(2, 3, 3, 64, 64)
    with torch.no_grad():
        codes = model.encode_pose(pictures)
        assert codes.shape == (2, 3, TINY.model.pose.code_dim)
        assert_close(model.encode_pose(pictures[1, 2]), codes[1, 2])


def test_bfloat16_gives_nearly_the_same_frames(model: Speak) -> None:
    codes, noise = driven(model, frames=2), model.draw_noise([0])
    with torch.no_grad():
        expected = model.generate(**codes, noise=noise)
        with torch.autocast("cpu", torch.bfloat16):
            found = model.generate(**codes, noise=noise)
    assert_close(found, expected, dtype=torch.bfloat16)


def test_what_stage_irfd_has_trained_is_taken_over_whole() -> None:
    torch.manual_seed(1)
    irfd, model = IRFD(TINY), Speak(TINY)
    irfd.encode(torch.rand(4, 3, 64, 64))  # moves the running statistics
    irfd.pose_mapper.fitted.fill_(True)
    irfd.emotion_prototypes.known[4] = True
    model.take_irfd(irfd)
    irfd.eval(), model.eval()
    frames = torch.rand(2, 3, 64, 64)
    expected = irfd.encode(frames)
    for factor in FACTORS:
        assert_close(getattr(model, ENCODERS[factor])(frames), getattr(expected, factor))
    assert_close(model.pose_from_numbers(torch.ones(6)), irfd.pose_mapper(torch.ones(6)))
    assert_close(model.emotion_from_names({"happy": 1.0}), irfd.emotion_prototypes({"happy": 1.0}))


def test_poses_in_numbers_and_emotions_by_name_become_codes() -> None:
    model = Speak(TINY)
    with pytest.raises(SpeakError):
        model.pose_from_numbers(torch.zeros(6))
    with pytest.raises(SpeakError):
        model.emotion_from_names({"happy": 1.0})
    model.pose_mapper.fitted.fill_(True)
    model.emotion_prototypes.known.fill_(True)
    assert model.pose_from_numbers(torch.zeros(5, 6)).shape == (5, TINY.model.pose.code_dim)
    assert model.emotion_from_names({"happy": 1.0}).shape == (TINY.model.emotion.code_dim,)


def test_noise_is_drawn_once_a_clip(model: Speak) -> None:
    noise = model.draw_noise([5, 6])
    assert isinstance(noise, ClipNoise)
    assert noise.editing.shape == (2, model.editing.levels, TINY.model.editing.width)
    assert [tuple(part.shape[2:]) for part in noise.maps] == model.generator.synthesis.noise_shapes
    assert torch.equal(noise.maps[3][1:], model.draw_noise([6]).maps[3])
