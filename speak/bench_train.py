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
from speak.datasets.rendered import RenderedData
from speak.precision import choose_device, choose_dtype
from speak.train.command import STAGES, stage_inputs
from speak.train.loop import Training
from speak.train.runs import StageFolder

# The order in which a stage finds those before it; perceptual's data are judge's.
ORDER = ("judge", "perceptual", "audio", "irfd", "syncnet", "speak")


def measure(arguments: argparse.Namespace) -> dict[str, list[dict[str, Any]]]:
    """One table, a row a stage: samples a second of the whole step when samples are made by the same process, what the
    networks alone would reach, and the share of the time outside the networks. With `train.workers` above 0 other
    cores make the samples meanwhile, so that the share is the most it can be.

    The stock of rendered pictures is taken as full: rendering counts once for `rendered.uses` samples.
    """
    allocator.keep_memory()
    config = with_changes(preset(arguments.preset), {"rendered.uses": 1, "rendered.kept": 1})
    device = choose_device(arguments.device)
    with tempfile.TemporaryDirectory(prefix="speak-bench-") as name:
        rows = [_stage_speed(stage, config, Path(name), device, arguments.quick) for stage in ORDER]
    uses = preset(arguments.preset).rendered.uses
    return {f"training, preset {arguments.preset}, a rendered picture used {uses} times": rows}


def _stage_speed(name: str, config: Config, out: Path, device: torch.device, quick: bool) -> dict[str, Any]:
    settings, uses = getattr(config, name), preset(config.preset).rendered.uses
    torch.manual_seed(0)
    stage = STAGES[name][0](config, stage_inputs(out), device)
    wanted = "float32" if device.type == "cpu" and not stage.half_on_cpu else config.train.dtype
    dtype = choose_dtype(wanted, device)
    folder = StageFolder(out, name)
    folder.make()
    training = Training(stage, name, config, folder, 10**6, device, dtype)
    kind = "judge" if name == "perceptual" else name
    data = RenderedData(kind, size=config.model.image_size, config=config.rendered, device=device)

    def timed(call: Any) -> float:
        begin = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return 1e3 * (time.perf_counter() - begin)

    samples = data.batch(range(settings.batch))
    fresh = timed(lambda: data.batch(range(10_000, 10_000 + settings.batch)))
    again = median_ms(lambda: data.batch(range(10_000, 10_000 + settings.batch)), 1 if quick else 5)
    making = max(fresh - again, 0.0) / uses + again
    step = median_ms(lambda: timed(lambda: training.advance(samples)), 1 if quick else 9)
    about = {"stage": name, "config": to_dict(config), "step": 0}
    checkpoint.save(folder.path / "weights.pt", about | {"models": training.averages.over(
        {key: network.state_dict() for key, network in stage.networks.items()})})  # fmt: skip
    return {
        "stage": name, "batch": settings.batch, "dtype": str(dtype)[6:],
        "samples/s": float(f"{1e3 * settings.batch / (step + making):.3g}"),
        "networks alone": float(f"{1e3 * settings.batch / step:.3g}"),
        "outside the networks": f"{100 * making / (step + making):.1f} %",
    }  # fmt: skip
