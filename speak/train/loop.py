"""The training loop. It knows no stage: it takes batches, asks the stage for losses, weighs them, steps, logs, saves.

On a CPU a training that was killed and resumed gives the very bits of one that was not: the checkpoint holds weights,
optimizers, averages, random states and the step, and batches are functions of the step.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from speak import checkpoint, losses
from speak.config import Config, from_dict, to_dict
from speak.errors import SpeakError
from speak.train.averages import Averages
from speak.train.journal import save_picture, save_plot
from speak.train.muon import Muon
from speak.train.processes import anywhere, check_same_step, mean_over_processes, rank_and_world, share_gradients
from speak.train.runs import StageFolder
from speak.train.stage import Phase, Stage


@dataclasses.dataclass
class Data:
    """Where batches come from.

    train: the first step -> endless batches of this process. held_out: fixed batches of people never trained on.
    """

    train: Callable[[int], Iterator[Any]]
    held_out: Callable[[], Iterable[Any]]


OPTIMIZERS = {"adam": torch.optim.Adam, "muon": Muon}


class Interrupted(Exception):
    """A signal asked the training to stop; everything is saved."""


def train(
    stage: Stage,
    name: str,
    config: Config,
    data: Data,
    folder: StageFolder,
    steps: int,  # in all
    batch: int,  # samples a step, over all processes
    device: torch.device,
    dtype: torch.dtype,
    data_name: str = "",  # what the user calls the data
) -> dict[str, float]:
    """Trains up to step `steps`, from the newest checkpoint in `folder` on; returns the last validation's figures.

    Raises SpeakError for losses or gradients that are not finite (the last checkpoint stays as it was), for a full
    disk, for a checkpoint that does not fit; Interrupted after SIGINT or SIGTERM, when all is saved.
    """
    rank, world = rank_and_world()
    training = Training(stage, name, config, folder, steps, device, dtype)
    training.asked = {"data": data_name, "batch": batch}
    for note in training.resume():
        if rank == 0:
            print(f"note: {note}", file=sys.stderr)
    check_same_step(training.step, folder.path, device)
    averages = training.averages
    held_out: list[Any] | None = None
    finished: dict[str, Any] | None = None
    figures: dict[str, float] = {}
    bar = tqdm(total=steps, initial=training.step, unit="step", desc=name, disable=rank != 0, smoothing=0.05)
    with bar, stopping_signals() as asked:
        batches = data.train(training.step)
        totals: dict[str, float] = {}
        counted, waited, began = 0, 0.0, time.monotonic()
        while training.step < steps:
            before = time.monotonic()
            samples = next(batches)
            waited += time.monotonic() - before
            found = training.advance(samples)
            for key, value in found.items():
                totals[key] = totals.get(key, 0.0) + value
            counted += 1
            bar.update()
            last = training.step == steps
            if training.step % config.train.log_every == 0 or last:
                means = mean_over_processes({key: value / counted for key, value in totals.items()}, device)
                seconds = time.monotonic() - began
                row = {"step": training.step, **means, "samples_per_second": batch * counted / seconds,
                       "waited": waited / seconds, "learning_rate": training.learning_rate_share()}  # fmt: skip
                bar.set_postfix({k: f"{v:.3g}" for k, v in row.items() if k not in ("step", "waited", "learning_rate")})
                if rank == 0:
                    folder.write_log(row)
                totals, counted, waited, began = {}, 0, 0.0, time.monotonic()
            stop = anywhere(asked(), device) or last
            if stop and not last and rank == 0:
                training.save()  # before anything that takes long: who asked may not wait
            if training.step % config.train.check_every == 0 or last:
                held_out = held_out if held_out is not None else list(data.held_out())
                figures = training.look(held_out, rank)
                bar.write(f"{name} step {training.step}: " + ", ".join(f"{k} {v:.4g}" for k, v in figures.items()))
                began = time.monotonic()
            if last and stage.finish is not None:
                with averages.in_use():
                    stage.finish(data.train(steps))
                    finished = averages.taken()
            if rank == 0 and (last or not stop and training.step % config.train.save_every == 0):
                training.save(finished)
            if stop and not last:
                raise Interrupted(f"stopped at step {training.step} of {steps}, all saved: the same command goes on")
    return figures


class Training:
    """The state of one training: stage, optimizers, averages, loss scale, step."""

    def __init__(
        self, stage: Stage, name: str, config: Config, folder: StageFolder, steps: int, device: torch.device,
        dtype: torch.dtype,
    ) -> None:  # fmt: skip
        self.stage, self.name, self.config, self.folder = stage, name, config, folder
        self.steps, self.device, self.dtype, self.step = steps, device, dtype, 0
        self.asked: dict[str, Any] = {}  # what a checkpoint notes beside the configuration
        settings = config.train
        betas = settings.beta1, settings.beta2
        self.optimizers = [
            OPTIMIZERS[phase.optimizer](phase.groups(), phase.learning_rate, betas, settings.epsilon)
            for phase in stage.phases
        ]
        self.scalers = [torch.amp.GradScaler(device.type, enabled=dtype == torch.float16) for _ in stage.phases]
        self.averages = Averages({key: stage.networks[key] for key in stage.averaged}, settings.ema_decay)

    def learning_rate_share(self) -> float:
        """What the learning rates are multiplied with at this step: rising at first, falling at the end."""
        settings = self.config.train
        share = min(1.0, (self.step + 1) / settings.warm_up) if settings.warm_up else 1.0
        if settings.decay:
            left = (self.steps - self.step) / (settings.decay * self.steps)
            share *= min(1.0, max(left, 0.01))
        return share

    def advance(self, samples: Any) -> dict[str, float]:
        """One step on one batch: every phase's losses, gradients and update. Returns the losses, unweighted."""
        parts = divided(samples, self.config.train.accumulate)
        memories: list[dict[str, Any]] = [{"progress": self.step / max(self.steps, 1)} for _ in parts]
        found: dict[str, float] = {}
        for phase, optimizer, scaler in zip(self.stage.phases, self.optimizers, self.scalers, strict=True):
            self._only(phase)
            optimizer.zero_grad(set_to_none=True)
            for part, memory in zip(parts, memories, strict=True):
                with autocast(self.device, self.dtype):
                    terms = phase.losses(part, memory)
                    total = losses.total_loss(terms, phase.weights) / len(parts)
                for key, value in terms.items():
                    number = float(value.detach())
                    if not math.isfinite(number):
                        raise self._not_finite(f"loss '{key}'", samples)
                    found[key] = found.get(key, 0.0) + number / len(parts)
                scaler.scale(total).backward()
            share_gradients(phase.parameters)
            scaler.unscale_(optimizer)
            norm = torch.nn.utils.clip_grad_norm_(phase.parameters, self.config.train.clip or math.inf)
            if not torch.isfinite(norm) and not scaler.is_enabled():
                raise self._not_finite(f"the gradient of {phase.name}", samples)
            for group, wanted in zip(optimizer.param_groups, phase.groups(), strict=True):
                group["lr"] = phase.learning_rate * self.learning_rate_share() * wanted["share"]
            scaler.step(optimizer)
            scaler.update()
        self.averages.update(self.step)
        self.step += 1
        return found

    def look(self, held_out: list[Any], rank: int) -> dict[str, float]:
        """Validates the averaged weights, and draws the fixed samples and the losses."""
        with self.averages.in_use(), torch.no_grad(), random_state_kept(self.device):
            with autocast(self.device, self.dtype):
                figures = self.stage.validate(held_out)
                picture = self.stage.picture(held_out[0]) if self.stage.picture else None
        if rank == 0:
            self.folder.write_log({"step": self.step, **{f"held_out_{key}": value for key, value in figures.items()}})
            if picture is not None:
                save_picture(self.folder.pictures / f"{self.step:09d}.png", picture)
            save_plot(self.folder.path / "losses.png", self.folder.rows())
        return figures

    def save(self, finished: dict[str, Any] | None = None) -> None:
        """Checkpoint and weights, each whole or not at all. finished: the averaged networks' weights, if not these."""
        models = {key: network.state_dict() for key, network in self.stage.networks.items()}
        about = {"stage": self.name, "config": to_dict(self.config), "step": self.step}
        random = {"cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            random["cuda"] = torch.cuda.get_rng_state(self.device)
        content = about | {
            "models": models, "averages": self.averages.state, "random": random,
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "scalers": [scaler.state_dict() for scaler in self.scalers], "asked": self.asked,
        }  # fmt: skip
        used = models | (finished or self.averages.state)
        self.folder.save(content, about | {"models": used}, self.config.train.keep)

    def resume(self) -> list[str]:
        """Goes on from the newest checkpoint, where there is one; what the user may not expect, a line each.

        Raises SpeakError where it does not fit this training.
        """
        found = self.folder.latest()
        if found is None:
            self.folder.cut_log(0)  # of a training that was killed before its first checkpoint
            return []
        path, content = found
        before = to_dict(from_dict(content["config"]))["model"]  # with what was not yet known when it was written
        now = to_dict(self.config)["model"]
        if self.stage.shaped_by:
            before, now = ({key: part[key] for key in self.stage.shaped_by} for part in (before, now))
        if before != now:
            changed = _first_difference(before, now, "model")
            raise SpeakError(f"{path}: was trained with {changed}: use the same --preset and --set, or another --out")
        for key, network in self.stage.networks.items():
            if key not in content["models"]:
                raise SpeakError(f"{path}: has no '{key}': use the same --set as before, or another --out")
            checkpoint.load_into(network, content["models"][key], path)
        try:
            for optimizer, state in zip(self.optimizers, content["optimizers"], strict=True):
                if state["param_groups"][0].keys() != optimizer.state_dict()["param_groups"][0].keys():
                    raise ValueError("another optimizer")
                optimizer.load_state_dict(state)
        except ValueError:
            raise SpeakError(
                f"{path}: trained other networks or parameters: use the same --set as before, or another --out"
            ) from None
        for scaler, state in zip(self.scalers, content["scalers"], strict=True):
            if state:  # that of a training which had no float16 is empty
                scaler.load_state_dict(state)
        self.averages.load(content["averages"])
        torch.set_rng_state(content["random"]["cpu"])
        if self.device.type == "cuda" and "cuda" in content["random"]:
            torch.cuda.set_rng_state(content["random"]["cuda"], self.device)
        self.step = content["step"]
        self.folder.cut_log(self.step)
        before = content.get("asked", {})
        notes = [f"{path} was trained with --{key} {before[key]}, it goes on with {value}"
                 for key, value in self.asked.items() if before.get(key, value) != value]  # fmt: skip
        if self.step >= self.steps:
            notes.append(f"{path} has had {self.step} steps: --steps {self.steps} asks for no more")
        return notes

    def _only(self, phase: Phase) -> None:
        """Gradients for this phase's parameters, and for no other's."""
        for other in self.stage.phases:
            for parameter in other.parameters:
                parameter.requires_grad_(other is phase)

    def _not_finite(self, what: str, samples: Any) -> SpeakError:
        numbers = getattr(samples, "number", None)
        where = "" if numbers is None else f", samples {int(numbers.min())} to {int(numbers.max())}"
        last = self.folder.checkpoints()
        return SpeakError(
            f"{what} is not finite at step {self.step}{where}; "
            f"{f'{last[-1]} is untouched' if last else 'nothing was saved yet'}: lower the learning rate"
            f"{'' if self.dtype == torch.float32 else ' or use --set train.dtype=float32'}"
        )


def autocast(device: torch.device, dtype: torch.dtype) -> contextlib.AbstractContextManager:
    """Autocast to `dtype`, or nothing for float32."""
    if dtype == torch.float32:
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=dtype)


def divided(samples: Any, parts: int) -> list[Any]:
    """A batch (a dataclass of tensors [B, ...]) as `parts` batches of equal size."""
    if parts == 1:
        return [samples]
    count = len(samples.number)
    if count % parts:
        raise SpeakError(f"train.accumulate={parts}: a batch of {count} a process does not divide into so many parts")

    def cut(value: Any, rows: slice) -> Any:
        if isinstance(value, Tensor):
            # What E_p reads for S, then for T [2 B, ...]: both halves are cut alike.
            return torch.cat([half[rows] for half in value.split(count)]) if len(value) != count else value[rows]
        if dataclasses.is_dataclass(value):
            return type(value)(*(cut(getattr(value, field.name), rows) for field in dataclasses.fields(value)))
        return value

    size = count // parts
    return [cut(samples, slice(first, first + size)) for first in range(0, count, size)]


@contextlib.contextmanager
def random_state_kept(device: torch.device) -> Iterator[None]:
    """What happens inside does not change the random numbers that follow."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(0)
        yield


@contextlib.contextmanager
def stopping_signals() -> Iterator[Callable[[], bool]]:
    """SIGINT and SIGTERM ask the training to save and stop after the step in hand; a second one stops at once."""
    asked: list[int] = []

    def handle(number: int, frame: Any) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)

    before: dict[int, Any] = {}
    with contextlib.suppress(ValueError):  # signals belong to the main thread
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, handle)
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _first_difference(one: Any, other: Any, key: str) -> str:
    """`key=value` of the first value of `one` that `other` has differently."""
    if isinstance(one, dict) and isinstance(other, dict):
        for name in one:
            if one[name] != other.get(name):
                return _first_difference(one[name], other.get(name), f"{key}.{name}")
    return f"{key}={one}"
