"""Running averages (EMA) of the weights: what is used after training."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn


class Averages:
    """Running averages (EMA) of the weights of some networks; other buffers are taken as they are."""

    def __init__(self, networks: Mapping[str, nn.Module], decay: float) -> None:
        self.networks, self.decay = networks, decay
        self.state = {
            key: {name: value.detach().clone() for name, value in network.state_dict().items()}
            for key, network in networks.items()
        }

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Moves the averages towards the weights; faster in the first steps, when the weights are still far away."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for key, network in self.networks.items():
            parameters = dict(network.named_parameters())
            for name, value in network.state_dict().items():
                if name in parameters:
                    self.state[key][name].lerp_(value, 1 - decay)
                else:
                    self.state[key][name].copy_(value)

    def taken(self) -> dict[str, dict[str, Tensor]]:
        """Inside `in_use`: the weights as they are there, for instance with what was fitted to the averages.

        The averages themselves stay: a training that goes on goes on from them.
        """
        return {
            key: {name: value.detach().clone() for name, value in network.state_dict().items()}
            for key, network in self.networks.items()
        }

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """The networks have the averaged weights inside, and are in evaluation mode."""
        modes = {key: network.training for key, network in self.networks.items()}
        own = {key: {name: value.clone() for name, value in network.state_dict().items()}
               for key, network in self.networks.items()}  # fmt: skip
        for key, network in self.networks.items():
            network.load_state_dict(self.state[key])
            network.eval()
        try:
            yield
        finally:
            for key, network in self.networks.items():
                network.load_state_dict(own[key])
                network.train(modes[key])

    def load(self, state: Mapping[str, Mapping[str, Tensor]]) -> None:
        for key, values in self.state.items():
            for name, value in values.items():
                value.copy_(state[key][name])
