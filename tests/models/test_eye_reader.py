"""The reader of eyes: it looks where the eyes are, at nothing else, and adds to f_P what it was taught."""

import torch
from torch import Tensor

from speak.config import EncoderConfig
from speak.models.eye_reader import EyeReader
from speak.models.irfd import Encoder
from tests.tolerances import assert_close

PLACE = torch.tensor([0.1, -0.2, 0.3, 0.1])  # in halves of the side: the middle, and from there the right corner


def looking_at(place: Tensor) -> EyeReader:
    torch.manual_seed(0)
    reader = EyeReader(4, 6)
    with torch.no_grad():
        reader.place[-1].weight.zero_()
        reader.place[-1].bias.copy_(place)
        reader.codes.normal_()
    return reader


def test_new_eyes_change_no_code() -> None:
    frames = torch.randn(3, 3, 32, 32)
    config = EncoderConfig(width=4, code_dim=6, image_size=32, eyes=4)
    encoder = Encoder(config, unit_length=False).eval()
    assert torch.equal(encoder(frames), encoder.norm(encoder.raw(frames)))
    with torch.no_grad():
        encoder.eyes.codes.normal_()
    added = encoder(frames) - encoder.norm(encoder.raw(frames))
    numbers = encoder.eyes.read(frames, encoder.norm(encoder.raw(frames)))
    assert_close(added, numbers @ encoder.eyes.codes)
    frames.requires_grad_(True)
    encoder.forward_frozen(frames).square().sum().backward()
    assert frames.grad.abs().sum() > 0 and all(p.grad is None for p in encoder.parameters())


def test_only_what_is_about_the_eyes_is_read() -> None:
    reader, size = looking_at(PLACE), 64
    frames = torch.randn(1, 3, size, size, requires_grad=True)
    reader.read(frames, torch.zeros(1, 6)).square().sum().backward()
    touched = frames.grad[0].abs().sum(0) > 0
    y, x = (torch.stack(torch.meshgrid(*[torch.arange(size)] * 2, indexing="ij")) + 0.5) / (size / 2) - 1
    along = ((x - 0.1) * 0.3 + (y + 0.2) * 0.1) / 0.1  # 0.1 is 0.3 ** 2 + 0.1 ** 2
    across = (-(x - 0.1) * 0.1 + (y + 0.2) * 0.3) / 0.1
    inside = (along.abs() < 1.25) & (across.abs() < 0.625)
    edge = 2.5 / (size / 2) / 0.1**0.5  # two and a half pixels, in the units of `along`
    assert touched[inside].float().mean() > 0.95
    assert not touched[(along.abs() > 1.25 + edge) | (across.abs() > 0.625 + edge)].any()


def test_a_turned_head_s_eyes_are_seen_upright() -> None:
    """The same pattern, turned about the middle of the eyes, is read the same."""
    size = 96
    y, x = (torch.stack(torch.meshgrid(*[torch.arange(size)] * 2, indexing="ij")) + 0.5) / (size / 2) - 1

    def drawn(angle: float) -> Tensor:
        cos, sin = torch.tensor(angle).cos(), torch.tensor(angle).sin()
        along, across = cos * x + sin * y, -sin * x + cos * y
        return torch.stack([(5 * along).sin(), (7 * across).cos(), (4 * along + 3 * across).sin()])[None]

    def read(angle: float) -> Tensor:
        angle_ = torch.tensor(angle)
        reader = looking_at(torch.stack([angle_ * 0, angle_ * 0, 0.4 * angle_.cos(), 0.4 * angle_.sin()]))
        return reader.read(drawn(angle), torch.zeros(1, 6))

    straight = looking_at(torch.tensor([0, 0, 0.4, 0.0])).read(drawn(0.5), torch.zeros(1, 6))
    assert (read(0.5) - read(0.0)).norm() < 0.1 * (straight - read(0.0)).norm()
