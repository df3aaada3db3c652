"""The conditional multi-scale discriminator."""

import torch

from speak.config import DiscriminatorConfig, preset
from speak.losses import r1_penalty
from speak.models.discriminator import Discriminator
from tests.tolerances import assert_close

TINY = preset("tiny").model.discriminator


def test_every_scale_returns_logits_and_the_features_of_every_layer() -> None:
    torch.manual_seed(0)
    config = DiscriminatorConfig(scales=3, layers=3, width=8, channel_max=16)
    found = Discriminator(config)(torch.randn(2, 3, 64, 64), torch.randn(2, 3, 64, 64))
    assert [tuple(logits.shape) for logits, _ in found] == [(2, 1, 8, 8), (2, 1, 4, 4), (2, 1, 2, 2)]
    assert [tuple(f.shape[1:]) for f in found[1][1]] == [(8, 16, 16), (16, 8, 8), (16, 4, 4)]


def test_the_verdict_depends_on_the_frame_and_on_the_person_it_should_show() -> None:
    torch.manual_seed(0)
    net = Discriminator(TINY).double()
    x, y = torch.randn(2, 1, 3, 64, 64, dtype=torch.float64)
    verdict = net(x, y)[0][0]
    assert (net(x, x)[0][0] - verdict).abs().max() > 1e-3
    assert (net(y, y)[0][0] - verdict).abs().max() > 1e-3


def test_a_lower_scale_sees_the_frames_at_half_the_size() -> None:
    torch.manual_seed(0)
    net = Discriminator(TINY).double()
    x, y = torch.randn(2, 2, 3, 64, 64, dtype=torch.float64)
    halves = [frames.reshape(2, 3, 32, 2, 32, 2).mean((3, 5)) for frames in (x, y)]
    assert_close(net(x, y)[1][0], net.scales[1](torch.cat(halves, 1))[0])


def test_the_gradient_penalty_is_the_squared_gradient_and_can_be_learned_from() -> None:
    torch.manual_seed(0)
    net = Discriminator(TINY).double()
    x = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    y = torch.randn(2, 3, 32, 32, dtype=torch.float64, requires_grad=True)

    def score(frames: torch.Tensor) -> torch.Tensor:
        return sum(logits.mean((1, 2, 3)).sum() for logits, _ in net(x, frames))

    penalty = r1_penalty(net(x, y), y)
    direction = torch.autograd.grad(score(y), y)[0]
    step = 1e-5
    slope = (score(y + step * direction) - score(y - step * direction)) / (2 * step)  # |gradient|^2, two samples
    assert_close(penalty, slope / 2 / 2, dtype=torch.float32)
    penalty.backward()
    assert all(p.grad.isfinite().all() for p in net.parameters() if p.grad is not None)
    assert net.scales[0].blocks[1][0].weight.grad.abs().max() > 0
