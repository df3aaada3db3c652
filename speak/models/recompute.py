"""Activation checkpointing: blocks keep their inputs only, and compute the rest again in the backward pass."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from speak.models.resnet import BasicBlock, Bottleneck
from speak.models.stylegan2 import ModulatedConvolution
from speak.models.wav2vec2 import ConvLayer, TransformerLayer

BLOCKS = (BasicBlock, Bottleneck, ModulatedConvolution, ConvLayer, TransformerLayer)


def recompute_blocks(network: nn.Module) -> None:
    """Makes the blocks of `network` (residual, generator and transformer ones) forget what lies inside them.

    Values, gradients and running statistics stay the same, for about a third more work.
    """
    for module in network.modules():
        if isinstance(module, BLOCKS):
            module.forward = _forgetful(module, module.forward)


def _forgetful(block: nn.Module, forward: Callable[..., Any]) -> Callable[..., Any]:
    def run(*arguments: Any, **named: Any) -> Any:
        # Weights that are lent for one call (`torch.func.functional_call`) are gone when the backward pass comes.
        lent = not all(isinstance(parameter, nn.Parameter) for parameter in block.parameters())
        if lent or not torch.is_grad_enabled():
            return forward(*arguments, **named)
        contexts = (contextlib.nullcontext(), _StatisticsKept(block))
        return checkpoint(forward, *arguments, use_reentrant=False, context_fn=lambda: contexts, **named)

    return run


class _StatisticsKept(contextlib.AbstractContextManager):
    """Batch norms of `block` do not move their running statistics: they have seen this batch already.

    May be entered again: a second derivative computes the block once more.
    """

    def __init__(self, block: nn.Module) -> None:
        self.norms = [norm for norm in block.modules() if isinstance(norm, nn.modules.batchnorm._BatchNorm)]
        self.before: list[list[tuple]] = []

    def __enter__(self) -> None:
        self.before.append([(norm.momentum, norm.num_batches_tracked) for norm in self.norms])
        for norm in self.norms:
            norm.momentum, norm.num_batches_tracked = 0.0, None

    def __exit__(self, *error: object) -> None:
        for norm, (momentum, count) in zip(self.norms, self.before.pop(), strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, count
