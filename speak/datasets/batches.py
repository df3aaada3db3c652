"""Batches for training: resumable at any step, the same for any number of workers, divided over processes.

The batch of a step is the same set of samples whether one process makes it or eight: samples are numbered, and a data
set makes sample n from its seed and n alone.
"""

from __future__ import annotations

import atexit
import itertools
import signal
import weakref
from collections.abc import Generator, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from speak.errors import SpeakError


def to_model(
    frames: Tensor,  # uint8 [..., H, W, 3]
) -> Tensor:
    """Frames as the models take them: float [..., 3, H, W] in [-1, 1]."""
    return frames.movedim(-1, -3).float().div_(127.5).sub_(1.0)


class _Steps(Sampler):
    """The sample numbers of each step's batch for one process of `world`."""

    def __init__(self, batch: int, first_step: int, rank: int, world: int) -> None:
        self._batch, self._first, self._rank, self._world = batch, first_step, rank, world

    def __iter__(self) -> Iterator[list[int]]:
        local = self._batch // self._world
        for step in itertools.count(self._first):
            first = step * self._batch + self._rank * local
            yield list(range(first, first + local))


def batches(
    data: Dataset,
    batch: int,  # samples a step, over all processes together
    first_step: int = 0,  # to resume: the steps done so far
    rank: int = 0,  # this process
    world: int = 1,  # of so many
    workers: int = 0,  # processes that read; 0: this one
) -> Iterator[dict[str, Tensor]]:
    """Endless batches of this process's share, from step `first_step` on. Raises SpeakError where the batch does not
    divide, and for a damaged clip (with its name)."""
    if batch % world:
        raise SpeakError(f"a batch of {batch} does not divide over {world} processes")
    loader = DataLoader(
        data, batch_sampler=_Steps(batch, first_step, rank, world), num_workers=workers,
        prefetch_factor=4 if workers else None, worker_init_fn=prepare_worker if workers else None,
        generator=torch.Generator(),  # not the training's random numbers: a resumed one would see others
    )  # fmt: skip
    return _named(read(loader))


def _named(read: Iterator[dict[str, Tensor]]) -> Iterator[dict[str, Tensor]]:
    try:
        yield from read
    except SpeakError as error:  # a worker's error comes with its traceback around it
        raise SpeakError(str(error).strip().splitlines()[-1].removeprefix("speak.errors.SpeakError: ")) from None


def read(loader: DataLoader) -> Iterator[Any]:
    """What `loader` gives. Its workers end with it: after the last batch, an error, or when Python ends.

    They leave signals alone, so that Python would wait without end for those of a loader that somebody still holds, as
    the traceback of an error does.
    """
    batches = _read(loader)
    held = weakref.ref(batches)

    def close() -> None:
        left = held()
        if left is not None:
            left.close()

    atexit.register(close)
    return batches


def _read(loader: DataLoader) -> Generator[Any, None, None]:
    iterator = iter(loader)
    try:
        yield from iterator
    finally:
        if loader.num_workers:
            iterator._shutdown_workers()  # what the iterator does when nobody holds it any more


def prepare_worker(_: int) -> None:
    """For a process that makes batches: one thread, and signals are left to the training, which saves and ends it."""
    torch.set_num_threads(1)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
