"""The emulator catches what goes wrong in kernels: faults planted in copies of the real sources, one at a time.

A fault is caught by a message of the emulator's, or else by its result: numbers that are not the reference's, or that
depend on the order of threads.
"""

import shutil
from collections.abc import Callable, Iterator
from typing import NamedTuple

import emulator
import pytest
import torch
from machines import Emulated, emulated, guarded
from trials import CLAMPED, HALF, LRELU, check, drawn, generator_of, operands

RESULT = "off by|another order of threads"


class Fault(NamedTuple):
    file: str
    original: str  # found once in the file
    faulty: str
    caught: str  # by which message, in other words how
    call: Callable[[Emulated], None]


def upfirdn2d(machine: Emulated) -> None:
    g = generator_of("faults")
    for width in (10, 9):
        x, f = drawn(g, (2, 3, 9, width), torch.float32), drawn(g, (4,), torch.float32)
        check(machine, "upfirdn2d", [x, f, 1, 1, 1, 1, 2, 1, 2, 1, False, 1.0])


def blur(machine: Emulated) -> None:
    g = generator_of("faults")
    x, f = drawn(g, (2, 4, 9, 9), torch.float32), drawn(g, (4,), torch.float32)
    check(machine, "epilogue", [x, f, 1, 1, *operands(g, "dmb", 2, 4, (8, 8), torch.float32), *LRELU, True])


def backward(machine: Emulated) -> None:
    g = generator_of("faults")
    x, y, dy = (drawn(g, (2, 8, 6, 10), torch.float32) for _ in range(3))
    demodulation = drawn(g, (2, 8), torch.float32)
    check(machine, "epilogue_backward", [dy, None, x, y, demodulation, None, *CLAMPED, 2, True])


def backward_last(machine: Emulated) -> None:
    g = generator_of("faults")
    x, y, dy = (drawn(g, (2, 8, 6, 10), torch.float32, "last") for _ in range(3))
    check(machine, "epilogue_backward", [dy, None, x, y, None, None, *CLAMPED, 2, True])


def pointwise(machine: Emulated) -> None:
    g = generator_of("faults")
    check(machine, "bias_act", [drawn(g, (1, 3, 5, 7), torch.float32), drawn(g, (3,), torch.float32), 1, *LRELU])


def convolution(machine: Emulated) -> None:
    g = generator_of("faults")
    x, weight = drawn(g, (1, 40, 16, 24), HALF), (drawn(g, (9, 24, 40)) / 20).to(HALF)
    small_ones = operands(g, "dmb", 1, 24, (16, 24), torch.float32)
    check(machine, "modulated_conv3x3", [x, weight, drawn(g, (1, 40), torch.float32), *small_ones, *LRELU, True])


UPFIRDN, BLUR, TILE = "upfirdn2d.cuh", "blur_epilogue.cuh", "filter_tile.cuh"
CONVOLUTION, BACKWARD = "modulated_conv3x3.cuh", "epilogue_backward.cuh"
LOADED = "__syncthreads();  // the tile is there"
REUSED = "__syncthreads();  // the last plane's tile has been read"
SCALED_LOADED = "__syncthreads();  // patch and taps are there"
ROUND = "__syncthreads();  // what the last round put into shared memory has been read"
RESULTS = "__syncthreads();  // every warp is done with the taps, where results now go"
BORDER = "tile[row][column] = inside && x >= 0 && x < width ? widen(line[x]) : A(0);"
NO_BORDER = "if (inside && x >= 0 && x < width) tile[row][column] = widen(line[x]);"
STORED_COLUMN = "first_x + b >= 0 && first_x + b < result_width"
SUM, NARROW_SUM = "sum_over_lanes(channel.sums[k][0])", "count > 0 ? sum_over_lanes(channel.sums[k][0]) : A(0)"
WIDE_STORE, STORE = "aligned && first_x + 4 <= result_width", "first_x + 4 <= result_width"
ROW_THERE, ROW_READ = "__syncwarp();  // the row is there", "__syncwarp();  // the row has been read"
PLACE = "warp * 16 * M"
HALF_BARRIER, DIVERGED = "if (threadIdx.x < 64) __syncthreads();", "__syncthreads .* others at another"
FAULTS = {
    "no barrier after the load": Fault(UPFIRDN, LOADED, "", RESULT, upfirdn2d),
    "no barrier before the next load": Fault(UPFIRDN, REUSED, "", RESULT, upfirdn2d),
    "half the threads at a barrier": Fault(UPFIRDN, LOADED, HALF_BARRIER, DIVERGED, upfirdn2d),
    "a wide store off its boundary": Fault(UPFIRDN, WIDE_STORE, STORE, "misaligned", upfirdn2d),
    "a store past the image": Fault(UPFIRDN, STORED_COLUMN, "true", "beyond a tensor's end", upfirdn2d),
    "no barrier after the load of a blur": Fault(BLUR, LOADED, "", RESULT, blur),
    "no barrier before the next load of a blur": Fault(BLUR, REUSED, "", RESULT, blur),
    "a row too many": Fault(TILE, "row < G::rows_in", "row <= G::rows_in", "array overrun", upfirdn2d),
    "a border that is not zeroed": Fault(TILE, BORDER, NO_BORDER, RESULT, blur),
    "a load past the image": Fault(TILE, "y >= 0 && y < height", "y >= 0", "beyond a tensor's end", blur),
    "lanes that miss a shuffle": Fault(BACKWARD, SUM, NARROW_SUM, "a warp operation .* of 32", backward),
    "a sum that is not written": Fault(BACKWARD, "lane == 0 && ddemodulation", "false", RESULT, backward),
    "a pixel that is not shared": Fault(
        BACKWARD, "sum_over_lanes(over_channels, lanes)", "over_channels", RESULT, backward_last
    ),
    "a vector across two channels": Fault("epilogue.cuh", "place + V <= along", "true", RESULT, pointwise),
    "no barrier before the next channels": Fault(CONVOLUTION, ROUND, "", RESULT, convolution),
    "no barrier after the channels' load": Fault(CONVOLUTION, SCALED_LOADED, "", RESULT, convolution),
    "results over taps still in use": Fault(CONVOLUTION, RESULTS, "", RESULT, convolution),
    "results read before they are there": Fault(CONVOLUTION, ROW_THERE, "", RESULT, convolution),
    "results overwritten before they are read": Fault(CONVOLUTION, ROW_READ, "", RESULT, convolution),
    "results past the shared memory": Fault(
        CONVOLUTION, PLACE, f"{PLACE} + 8 * M + 8", "written beyond its end", convolution
    ),
    "a matrix off its boundary": Fault(CONVOLUTION, "&patch[pixel][0]", "&patch[pixel][8]", "256 bits", convolution),
}


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Emulated:
    """Copies of the sources with every fault in them, each asleep until `emulation_plant` chooses it."""
    sources = tmp_path_factory.mktemp("faulty") / "csrc"
    shutil.copytree(emulator.SOURCES, sources)
    for number, fault in enumerate(FAULTS.values(), 1):
        path = sources / "cuda" / fault.file
        text = path.read_text()
        assert text.count(fault.original) == 1, f"{fault.file} has no single '{fault.original}'"
        chosen = f"::emulation::planted() == {number}"
        if ";" in fault.original:  # a statement, else an expression
            planted = f"if ({chosen}) {{ {fault.faulty} }} else {{ {fault.original}\n }}"
        else:
            planted = f"({chosen} ? ({fault.faulty}) : ({fault.original}))"
        path.write_text(text.replace(fault.original, planted))
    return emulated(sources, "speak_faulty")


@pytest.fixture
def machine(faulty: Emulated) -> Iterator[Emulated]:
    with guarded(faulty):
        yield faulty
    faulty.library.emulation_plant(0)


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_caught(machine: Emulated, name: str) -> None:
    fault = FAULTS[name]
    machine.library.emulation_plant(list(FAULTS).index(name) + 1)
    with pytest.raises(AssertionError if fault.caught == RESULT else RuntimeError, match=fault.caught):
        fault.call(machine)


@pytest.mark.parametrize("call", [upfirdn2d, blur, backward, backward_last, pointwise, convolution])
def test_without_a_fault_the_same_calls_pass(machine: Emulated, call: Callable[[Emulated], None]) -> None:
    call(machine)
