"""The judge's readings and their units."""

import torch

from speak.config import EMOTIONS, preset
from speak.models.judge import Judge
from tests.tolerances import assert_close

TINY = preset("tiny").model.judge


def test_readings_have_their_shapes_and_every_parameter_learns() -> None:
    torch.manual_seed(0)
    judge = Judge(TINY)
    reading = judge(torch.rand(2, 3, 64, 64) * 2 - 1)
    assert reading.landmarks.shape == (2, 68, 2) and reading.pose.shape == (2, 6)
    assert reading.mouth_opening.shape == (2,) and reading.emotion_logits.shape == (2, len(EMOTIONS))
    assert_close(reading.identity.norm(dim=1), torch.ones(2))
    parts = (reading.landmarks, reading.pose, reading.mouth_opening, reading.emotion_logits, reading.identity[:, 0])
    sum(part.sum() for part in parts).backward()
    for name, parameter in judge.named_parameters():
        assert parameter.grad.isfinite().all() and parameter.grad.abs().max() > 0, name


def test_a_judge_that_knows_nothing_reads_a_frontal_face_in_the_middle() -> None:
    judge = Judge(TINY)
    for layer in (*judge.heads.values(), judge.second_look[-1]):
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
    reading = judge(torch.rand(1, 3, 64, 64))
    assert torch.equal(reading.pose, torch.tensor([[0.0, 0.0, 0.0, 0.0, 0.0, 1.0]]))
    assert torch.equal(reading.landmarks, torch.full((1, 68, 2), 31.5))  # between pixels 31 and 32 of 64


def test_landmarks_are_in_pixels_of_the_frame_given() -> None:
    torch.manual_seed(0)
    judge = Judge(TINY).eval()
    small = torch.rand(1, 3, TINY.image_size, TINY.image_size)
    large = small.repeat_interleave(4, 2).repeat_interleave(4, 3)
    first, second = judge(small), judge(large)
    assert_close((second.landmarks + 0.5) / 4, first.landmarks + 0.5)
    assert_close(second.pose, first.pose)


def test_the_second_look_goes_to_the_landmarks_first_read() -> None:
    """With heads that put every landmark at one pixel, only what is painted about that pixel changes the correction."""
    torch.manual_seed(0)
    judge = Judge(TINY).eval().double()
    size = TINY.image_size
    x, y = 100.0, 40.0
    place = (torch.tensor([x, y], dtype=torch.float64) + 0.5) / (size / 2) - 1
    fine = torch.rand(1, judge.trunk.stage_channels[0], size // 4, size // 4, dtype=torch.float64, requires_grad=True)
    found = judge._look_again(fine, place.repeat(1, 68))
    assert {name: value.shape[1] for name, value in found.items()} == {
        "landmarks": 136, "pose": 6, "mouth_opening": 1, "emotion": len(EMOTIONS)}  # fmt: skip
    seen = torch.autograd.grad(found["landmarks"].square().sum(), fine)[0].abs().sum((0, 1)).nonzero()
    # (100 + 0.5) / 4 - 0.5 = 24.625 and 9.625: between places 24 and 25, and 9 and 10; the 3x3 convolution adds one.
    assert seen.min(0).values.tolist() == [8, 23] and seen.max(0).values.tolist() == [11, 26]
