"""Several processes and machines, started by torchrun: every process has a copy and a share of each batch.

Gradients are averaged after the backward pass of each phase, in a few large pieces. Losses are means over the share, so
the average over processes is the loss of the global batch; those that compare a batch's samples with one another take
the embeddings of all processes (`gathered`), and are then the global batch's in each.
"""

from __future__ import annotations

import importlib
import os
from typing import Any

import torch
import torch.distributed as distributed
from torch import Tensor, nn

from speak.errors import SpeakError

_PIECE = 1 << 23  # numbers sent at a time


def rank_and_world() -> tuple[int, int]:
    """This process's number and how many there are."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def begin(device: torch.device) -> torch.device:
    """Joins the other processes where torchrun started several; returns this process's device.

    nccl between GPUs, gloo between CPUs. Raises SpeakError where torch was built without them.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        return device
    if not distributed.is_available():
        raise SpeakError("torchrun started several processes, but this torch was built without torch.distributed")
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    # Its functions have the group there is at their import as a default, and the first optimizer imports it: a group
    # begun before would never be let go, and its threads can abort the process when they outlive the interpreter.
    importlib.import_module("torch.distributed.nn")
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return device


def end() -> None:
    """Leaves the group, and with it the threads of its connections."""
    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


def share_batch_norms(networks: list[nn.Module], device: torch.device) -> None:
    """Batch norms take their statistics over all processes (SyncBatchNorm), where torch can: on CUDA.

    In place, with the same parameters. Elsewhere each process normalises by its own share of the batch.
    """
    if device.type == "cuda" and rank_and_world()[1] > 1:
        for network in networks:
            nn.SyncBatchNorm.convert_sync_batchnorm(network)


@torch.no_grad()
def share_weights(networks: list[nn.Module]) -> None:
    """Everybody begins with the weights of process 0."""
    if rank_and_world()[1] > 1:
        for network in networks:
            for value in network.state_dict().values():
                distributed.broadcast(value, 0)


def anywhere(flag: bool, device: torch.device) -> bool:
    """Whether `flag` is set in any process: what one is asked for, such as to stop, all do at the same step."""
    if rank_and_world()[1] < 2:
        return flag
    found = torch.tensor(float(flag), device=device)
    distributed.all_reduce(found, distributed.ReduceOp.MAX)
    return bool(found)


def check_same_step(step: int, folder: object, device: torch.device) -> None:
    """Raises SpeakError, in every process, where not all go on from the same step."""
    if rank_and_world()[1] < 2:
        return
    ends = torch.tensor([step, -step], device=device)
    distributed.all_reduce(ends, distributed.ReduceOp.MAX)
    most, least = int(ends[0]), -int(ends[1])
    if most != least:
        raise SpeakError(
            f"{folder}: processes would go on from steps {least} to {most}: --out must be one folder for all machines"
        )


def gathered(
    rows: Tensor,  # [B, ...], of this process's share of the batch
) -> Tensor:
    """The rows of all processes in the order of the global batch, [world * B, ...]; differentiable.

    For losses that every process then computes whole: their gradient, averaged over processes as all gradients are, is
    that of the global batch.
    """
    return rows if rank_and_world()[1] < 2 else _Gathered.apply(rows)


class _Gathered(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, rows: Tensor) -> Tensor:
        parts = [torch.empty_like(rows) for _ in range(rank_and_world()[1])]
        distributed.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        rank, world = rank_and_world()
        return gradient.chunk(world)[rank] * world  # each process knows its own rows' part; averaging divides it


@torch.no_grad()
def share_gradients(parameters: list[nn.Parameter]) -> None:
    """Gradients become their mean over the processes. A parameter without one anywhere stays without."""
    _, world = rank_and_world()
    if world < 2:
        return
    having = torch.tensor([float(parameter.grad is not None) for parameter in parameters])
    having = having.to(parameters[0].device)
    distributed.all_reduce(having)
    chosen = [parameter for parameter, some in zip(parameters, having.tolist(), strict=True) if some]
    piece: list[nn.Parameter] = []
    for parameter in [*chosen, None]:
        if piece and (parameter is None or sum(p.numel() for p in piece) + parameter.numel() > _PIECE):
            flat = torch.cat([
                (torch.zeros_like(p) if p.grad is None else p.grad).reshape(-1) for p in piece
            ])  # fmt: skip
            distributed.all_reduce(flat)
            flat /= world
            for p, mean in zip(piece, flat.split([p.numel() for p in piece]), strict=True):
                p.grad = mean.reshape(p.shape).clone()
            piece = []
        if parameter is not None:
            piece.append(parameter)


def mean_over_processes(values: dict[str, float], device: torch.device) -> dict[str, float]:
    """Each value's mean over the processes."""
    _, world = rank_and_world()
    if world < 2:
        return values
    numbers = torch.tensor(list(values.values()), dtype=torch.float64, device=device)
    distributed.all_reduce(numbers)
    return dict(zip(values, (numbers / world).tolist(), strict=True))
