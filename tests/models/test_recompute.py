"""Activation checkpointing: less memory, the same numbers; and what doctor says of the memory of training."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from speak import losses
from speak.datasets.rendered import RenderedData
from speak.models.profile import training_memory
from speak.models.recompute import recompute_blocks
from speak.models.resnet import ResNet
from speak.train.command import STAGES, _Inputs
from tests.small_training import small


def kept_bytes(run: Callable[[], torch.Tensor], networks: list[nn.Module]) -> tuple[torch.Tensor, int]:
    """What `run` returns, and the bytes that its backward pass keeps besides weights."""
    own = {value.untyped_storage().data_ptr() for network in networks for value in network.state_dict().values()}
    kept: dict[int, torch.Tensor] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in own:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = run()
    return result, sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


def stage_and_batch(name: str, tmp_path: Path, count: int, **changes: object) -> tuple:
    config = small(**changes)
    torch.manual_seed(0)
    stage = STAGES[name][0](config, _Inputs(tmp_path, {}, None), torch.device("cpu"))
    batch = RenderedData(name, 3, "train", config.model.image_size, config.rendered).batch(range(count))
    return config, stage, batch


@pytest.mark.parametrize("frozen", [True, False])
def test_stage_irfd_has_the_same_gradients_from_less_memory(tmp_path: Path, frozen: bool) -> None:
    found = []
    for recompute in (False, True):
        _, stage, batch = stage_and_batch("irfd", tmp_path, 2, irfd__freeze_reencoder=frozen)
        if recompute:
            recompute_blocks(stage.networks["irfd"])
        phase = stage.phases[0]
        total, kept = kept_bytes(lambda p=phase, b=batch: losses.total_loss(p.losses(b, {}), p.weights),
                                 list(stage.networks.values()))  # fmt: skip
        total.backward()
        found.append((total, [parameter.grad for parameter in phase.parameters], kept))
    (plain, gradients, kept), (same, again, less) = found
    assert torch.equal(plain, same) and less < 0.75 * kept
    for one, other in zip(gradients, again, strict=True):
        assert (one is None and other is None) or torch.equal(one, other)


def test_batch_norms_move_as_if_they_had_seen_the_batch_once() -> None:
    frames = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    states = []
    for recompute in (False, True):
        torch.manual_seed(0)
        trunk = ResNet(18, width=8, norm="batch").train()
        if recompute:
            recompute_blocks(trunk)
        trunk(frames).square().mean().backward()
        states.append(trunk.state_dict())
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name]), name


def test_the_memory_that_doctor_says_is_what_a_pair_takes(tmp_path: Path) -> None:
    config, stage, batch = stage_and_batch("irfd", tmp_path, 8, model__image_size=64, irfd__freeze_reencoder=False,
                                           **{f"model__{name}__image_size": 64 for name in
                                              ("identity", "pose", "emotion")})  # fmt: skip
    phase = stage.phases[0]
    _, kept = kept_bytes(lambda: losses.total_loss(phase.losses(batch, {}), phase.weights),
                         list(stage.networks.values()))  # fmt: skip
    assert training_memory(config)[0].sample_bytes == pytest.approx(kept / 8, rel=0.25)
