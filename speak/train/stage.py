"""What a stage gives the loop: networks, what to minimise, and what to look at."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from speak.config import Config


@dataclasses.dataclass
class Phase:
    """One optimizer's share of a step. A stage with a discriminator has two phases.

    parameters: what it moves. losses: (batch, memory) -> named losses; `memory` is a dictionary that lives for one
    part of one batch and carries, for instance, the generated pictures from the first phase to the discriminator's.
    fast: StyleGAN2's layers have weights of size 1 and a fixed gain, so that usual steps hardly move them.
    """

    name: str
    parameters: list[nn.Parameter]
    learning_rate: float
    weights: Mapping[str, float]
    losses: Callable[[Any, dict[str, Any]], dict[str, Tensor]]
    fast: list[nn.Parameter] = dataclasses.field(default_factory=list)  # of the parameters, those that learn faster
    fast_rate: float = 1.0  # by this factor
    optimizer: str = "adam"  # or muon

    def groups(self) -> list[dict[str, Any]]:
        """The parameters for an optimizer, each group with its `share` of the learning rate."""
        known = {id(parameter) for parameter in self.fast}
        usual = [parameter for parameter in self.parameters if id(parameter) not in known]
        return [{"params": usual, "share": 1.0}] + [{"params": self.fast, "share": self.fast_rate}] * bool(self.fast)


@dataclasses.dataclass
class Stage:
    """What the loop trains.

    networks: what a checkpoint holds, by name; those in `averaged` have an average of their weights kept as well.
    picture: a batch -> rows of pictures [rows, columns, 3, H, W] in [-1, 1], or None.
    validate: batches of held-out people -> named figures.
    finish: called when the last step is done, with more batches; fits what is fitted to the trained networks.
    """

    networks: dict[str, nn.Module]
    averaged: tuple[str, ...]
    phases: list[Phase]
    validate: Callable[[Iterable[Any]], dict[str, float]]
    picture: Callable[[Any], Tensor] | None = None
    finish: Callable[[Iterable[Any]], None] | None = None
    shaped_by: tuple[str, ...] = ()  # fields of config.model that must be the same to go on; (): all of them
    half_on_cpu: bool = True  # False: in bfloat16 it is slower on a CPU, so that `auto` is float32 there


class Inputs(Protocol):
    """Where a stage finds what earlier stages have made."""

    def weights(self, stage: str, needed: bool = True) -> dict[str, Any] | None:
        """The checkpoint of that stage in the run folder, or the one that the user names."""


# A stage's `build`: the configuration, where earlier stages are, the device.
Build = Callable[[Config, Inputs, torch.device], Stage]


def parameters_of(*networks: nn.Module) -> list[nn.Parameter]:
    """The parameters that learn."""
    return [parameter for network in networks for parameter in network.parameters() if parameter.requires_grad]


def noise_maps(
    numbers: Tensor,  # [B] numbers of the samples
    shapes: list[tuple[int, int]],  # of a generator's noise maps
    repeats: int = 1,  # pictures made from each sample, the samples side by side: [repeats * B]
) -> list[Tensor]:
    """Noise that depends on a sample's number alone, so that it is the same however a batch is divided."""
    sizes = [height * width for height, width in shapes]
    rows = [
        torch.randn(sum(sizes), generator=torch.Generator().manual_seed(int(number))) for number in numbers.tolist()
    ]
    drawn = torch.stack(rows).to(numbers.device).split(sizes, 1)
    return [part.reshape(-1, 1, *shape).repeat(repeats, 1, 1, 1) for part, shape in zip(drawn, shapes, strict=True)]
