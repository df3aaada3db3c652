"""`python -m speak bench train`: samples a second of every training stage on rendered people, at the preset's size."""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from speak import allocator, checkpoint
from speak.bench import median_ms
from speak.config import Config, preset, to_dict, with_changes
from speak.precision import choose_device, choose_dtype
from speak.train.command import STAGES, stage_inputs
from speak.train.data import stage_data
from speak.train.loop import Training
from speak.train.runs import StageFolder

# The order in which a stage finds those before it; perceptual's data are judge's.
ORDER = ("judge", "perceptual", "audio", "irfd", "syncnet", "speak")
KEPT = 16  # units in stock, which are rendered before anything is measured
SECONDS, STEPS = 15.0, 8  # of each stage, at least


def measure(arguments: argparse.Namespace) -> dict[str, list[dict[str, Any]]]:
    """One table, a row a stage: samples a second of the training as it runs, what the networks alone reach, and the
    share of the time in which the training waits for samples, which `train.workers` other processes make meanwhile.

    The stock of rendered pictures is small but full, so that rendering takes what it takes later on.
    """
    allocator.keep_memory()
    whole = {"rendered.kept": KEPT, "irfd.code_losses_from": 0.0, "irfd.perceptual_from": 0.0}  # all losses at work
    config = with_changes(preset(arguments.preset), whole)
    device = choose_device(arguments.device)
    with tempfile.TemporaryDirectory(prefix="speak-bench-") as name:
        rows = [_stage_speed(stage, config, Path(name), device, arguments.quick) for stage in ORDER]
    return {f"training, preset {arguments.preset}, {config.train.workers} processes that make samples": rows}


def _stage_speed(name: str, config: Config, out: Path, device: torch.device, quick: bool) -> dict[str, Any]:
    settings = getattr(config, name)
    torch.manual_seed(0)
    stage = STAGES[name][0](config, stage_inputs(out), device)
    wanted = "float32" if device.type == "cpu" and not stage.half_on_cpu else config.train.dtype
    dtype = choose_dtype(wanted, device)
    folder = StageFolder(out, name)
    folder.make()
    training = Training(stage, name, config, folder, 10**6, device, dtype)
    batches = stage_data(name, "synthetic", config, settings.batch, device).train(0)

    def step() -> tuple[float, float]:
        """Seconds of a step, and those of them until its samples were there."""
        begin = time.perf_counter()
        samples = next(batches)
        there = time.perf_counter()
        training.advance(samples)
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - begin, there - begin

    samples = next(batches)
    for _ in range(1 if quick else 3 + 4 * KEPT // settings.batch):
        step()
    steps = [step()]
    while len(steps) < (2 if quick else STEPS) or not quick and sum(whole for whole, _ in steps) < SECONDS:
        steps.append(step())
    whole, waited = (sum(column) for column in zip(*steps, strict=True))
    getattr(batches, "close", lambda: None)()  # the other processes rest
    alone = median_ms(lambda: training.advance(samples), 1 if quick else 5)
    about = {"stage": name, "config": to_dict(config), "step": 0}
    models = {key: network.state_dict() for key, network in stage.networks.items()} | training.averages.state
    checkpoint.save(folder.path / "weights.pt", about | {"models": models})
    return {
        "stage": name, "batch": settings.batch, "dtype": str(dtype)[6:],
        "samples/s": float(f"{settings.batch * len(steps) / whole:.3g}"),
        "networks alone": float(f"{1e3 * settings.batch / alone:.3g}"),
        "waiting for samples": f"{100 * waited / whole:.1f} %",
    }  # fmt: skip
