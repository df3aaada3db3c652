"""`python -m speak bench WHAT`: speed on this machine, as ratios within one run."""

from __future__ import annotations

import argparse
import importlib
import json
import math
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

from speak.config import PRESETS

# what -> (module, its function of (arguments) -> rows of plain values, what it measures)
BENCHES = {
    "ops": ("speak.bench_ops", "the operators and the whole generator"),
    "animate": ("speak.bench_animate", "a video from end to end, its parts, and memory by length"),
    "data": ("speak.bench_data", "preparing videos beside decoding them, reading a prepared corpus, rendering people"),
    "train": ("speak.bench_train", "samples a second of every training stage"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", choices=list(BENCHES), help="; ".join(f"{k}: {v[1]}" for k, v in BENCHES.items()))
    parser.add_argument("--json", action="store_true", help="one JSON object instead of tables")
    parser.add_argument("--device", default=None, help="cpu or cuda; default: cuda where there is one")
    parser.add_argument("--only", default="", help="of `ops`: only the rows whose name contains this")
    parser.add_argument("--preset", default="default", choices=list(PRESETS), help="of `train`")
    parser.add_argument("--quick", action="store_true", help="fewer repetitions: a look, not a figure to quote")


def run(arguments: argparse.Namespace) -> None:
    """Runs one benchmark and prints it. Its module returns {title: [row, ...]}, each row a flat dictionary."""
    tables = importlib.import_module(BENCHES[arguments.what][0]).measure(arguments)
    if arguments.json:
        print(json.dumps({"machine": machine(arguments.device), "tables": tables}))
        return
    print("  ".join(f"{key}: {value}" for key, value in machine(arguments.device).items()))
    for title, rows in tables.items():
        print(f"\n{title}")
        print_table(rows)


def machine(device: str | None = None) -> dict[str, Any]:
    """What a figure must be quoted with: processor, threads, torch, GPU."""
    import torch

    facts = {"processor": processor(), "threads": torch.get_num_threads(), "torch": torch.__version__}
    if torch.cuda.is_available() and device != "cpu":
        facts["gpu"] = torch.cuda.get_device_name()
    return facts


def processor() -> str:
    """The processor's name as the system gives it."""
    try:
        with open("/proc/cpuinfo") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def median_ms(
    call: Callable[[], Any],
    repeats: int,
    synchronize: Callable[[], None] | None = None,
    seconds: float = math.inf,  # after which three repeats are enough
) -> float:
    """Median wall time of `call` in milliseconds, after two calls that are not counted."""
    return medians_ms([call], repeats, synchronize, seconds)[0]


def medians_ms(
    calls: Sequence[Callable[[], Any]],
    repeats: int,
    synchronize: Callable[[], None] | None = None,
    seconds: float = math.inf,  # after which three repeats of each are enough
) -> list[float]:
    """Median wall time of each call in milliseconds, the calls in turn, so that a change of the machine's speed
    meets all of them; two turns before are not counted."""
    times: list[list[float]] = [[] for _ in calls]
    begin = time.perf_counter()
    for turn in range(repeats + 2):
        for call, measured in zip(calls, times, strict=True):
            start = time.perf_counter()
            call()
            if synchronize:
                synchronize()
            end = time.perf_counter()
            if turn >= 2:
                measured.append(end - start)
        if turn >= 4 and end - begin > seconds:
            break
    return [1e3 * statistics.median(measured) for measured in times]


def print_table(rows: Sequence[dict[str, Any]]) -> None:
    """Prints rows of equal keys in columns."""
    if not rows:
        return
    cells = [list(rows[0])] + [[_text(value) for value in row.values()] for row in rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    for row in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _text(value: Any) -> str:
    return "-" if value is None else f"{value:.2f}" if isinstance(value, float) else str(value)
