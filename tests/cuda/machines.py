"""The machines that the CUDA kernels are tested on: the emulator everywhere, a GPU where there is one."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import emulator
import pytest
import torch

from speak.ops import extension


class Emulated:
    """The kernels' own sources on the CPU, under every thread order."""

    device = "cpu"

    def __init__(self, sources: Path = emulator.SOURCES, namespace: str = "speak_emulated") -> None:
        self.library = emulator.load(sources, namespace)
        self.operators = getattr(torch.ops, namespace)

    def runs(self, call: Callable) -> Iterator:
        for order in (0, 1, 2):  # forward, reversed, shuffled
            self.library.emulation_set_thread_order(order)
            yield call()
        self.library.emulation_set_thread_order(0)


class Gpu:
    """The compiled library on the first GPU."""

    device = "cuda"

    def __init__(self) -> None:
        self.operators = torch.ops.speak

    def runs(self, call: Callable) -> Iterator:
        for _ in range(2):
            yield call()


def why_no_gpu() -> str | None:
    """Why the kernels run on the emulator only, or None."""
    if not torch.cuda.is_available():
        return "no GPU: the CUDA kernels ran on the emulator only"
    if extension.LIBRARY.missing:
        return f"a GPU, but {extension.LIBRARY.missing}"
    return None if extension.LIBRARY.cuda else "a GPU, but the compiled library was built without CUDA"


def emulated(sources: Path = emulator.SOURCES, namespace: str = "speak_emulated") -> Emulated:
    if why := emulator.unavailable():
        pytest.skip(why)
    return Emulated(sources, namespace)


@contextlib.contextmanager
def guarded(machine: Emulated | Gpu) -> Iterator[None]:
    """While it lasts, new CPU tensors end where memory ends, so that no emulated kernel reads or writes past them."""
    if isinstance(machine, Gpu):
        yield
        return
    machine.library.emulation_guard_memory(True)
    try:
        yield
    finally:
        machine.library.emulation_guard_memory(False)
