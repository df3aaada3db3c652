"""Batches of rendered people from a seed (`--data synthetic[:SEED]`): endless, exact, whatever the number of workers.

Sample number k of a stage depends on the seed, the split and k, on nothing else: who draws it, in which batch, with
how many processes does not matter. Drawing (numbers and speech, numpy, in worker processes) is apart from rendering
(pictures, on CPU or GPU), so that all pictures of a batch are rendered together.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from speak.config import RenderedConfig
from speak.datasets.rendered_draws import Draws, Pictures, Sample
from speak.datasets.stage_batches import (
    FrameLabels,
    JudgeBatch,
    PairBatch,
    SpeechBatch,
    SyncBatch,
    WindowBatch,
    moved,
)
from speak.errors import SpeakError
from speak.synthetic.augment import augment
from speak.synthetic.head import render
from speak.synthetic.phones import mouth_opening
from speak.synthetic.scene import Scene

SPLITS = ("train", "val", "test")  # no person of one is in another
STAGES = ("irfd", "judge", "audio", "syncnet", "speak")


def synthetic_seed(data: str) -> int | None:
    """The seed of `--data synthetic[:SEED]`, 0 where none is named; None where `data` is a folder.

    Raises SpeakError for a seed that is no number from 0 on.
    """
    name, separator, seed = data.partition(":")
    if name != "synthetic":
        return None
    if separator and not seed.isdecimal():
        raise SpeakError(f"--data {data}: write synthetic or synthetic:SEED, the seed a number from 0 on")
    return int(seed or 0)


@dataclasses.dataclass
class Drawn:
    """A batch before its pictures are rendered."""

    pictures: Pictures | None  # [B * per_sample] rows
    per_sample: int
    tensors: dict[str, Tensor]  # [B, ...]


@dataclasses.dataclass
class _Shown:
    """Rendered pictures and their truth by sample: leading dimensions [B, per_sample]."""

    frames: Tensor
    visible: Tensor
    labels: FrameLabels


class RenderedData:
    """Batches of one stage.

    Args:
        stage: one of STAGES.
        seed: other people, sentences and draws.
        split: train, val or test.
        size: pixels of a frame's side.
        config: what is drawn.
    Raises:
        SpeakError: a stage or split that does not exist.
    """

    def __init__(
        self, stage: str, seed: int = 0, split: str = "train", size: int = 256, config: RenderedConfig | None = None
    ) -> None:
        self.config = config or RenderedConfig()
        if stage not in STAGES or split not in SPLITS:
            raise SpeakError(f"no rendered data for stage '{stage}', split '{split}': stages are {', '.join(STAGES)}")
        self.stage, self.size = stage, size
        self._draws = Draws(stage, (seed, SPLITS.index(split)), self.config)

    def batch(self, indices: Sequence[int], device: torch.device | str = "cpu") -> Any:
        """The samples of these numbers as the stage's batch (see `batches.py`)."""
        return self.render(self.draw(indices), device)

    def draw(self, indices: Sequence[int]) -> Drawn:
        """Everything about the samples but their pictures; light enough for a worker process."""
        samples: list[Sample] = [self._draws.sample(int(index)) for index in indices]
        tensors = {name: torch.stack([sample.tensors[name] for sample in samples]) for name in samples[0].tensors}
        tensors["number"] = torch.tensor([int(index) for index in indices])
        if samples[0].pictures is None:
            return Drawn(None, 0, tensors)
        pictures = Pictures.joined([sample.pictures for sample in samples if sample.pictures is not None])
        return Drawn(pictures, len(pictures) // len(samples), tensors)

    def render(self, drawn: Drawn, device: torch.device | str = "cpu") -> Any:
        """Renders what was drawn."""
        assemble: Callable[[_Shown | None, dict[str, Tensor]], Any] = getattr(self, f"_{self.stage}")
        shown = None if drawn.pictures is None else self._show(drawn.pictures, drawn.per_sample, device)
        return assemble(shown, {name: tensor.to(device) for name, tensor in drawn.tensors.items()})

    def batches(
        self,
        batch_size: int,  # of all processes together
        first_step: int = 0,
        rank: int = 0,
        world: int = 1,
        device: torch.device | str = "cpu",
        workers: int = 0,  # processes; on a CPU they render as well
    ) -> Iterator[Any]:
        """This process's share of every step's global batch, from `first_step` on, without end.

        Step s has samples s * batch_size to (s + 1) * batch_size - 1; process `rank` gets an equal, contiguous share.
        """
        if batch_size % world:
            raise SpeakError(f"a batch of {batch_size} cannot be divided among {world} processes")
        share = batch_size // world

        def indices() -> Iterator[list[int]]:
            step = first_step
            while True:
                start = step * batch_size + rank * share
                yield list(range(start, start + share))
                step += 1

        if not workers:
            for row in indices():
                yield self.batch(row, device)
        on_cpu = torch.device(device).type == "cpu"
        work = _Work(self, render=on_cpu)
        loader = torch.utils.data.DataLoader(work, batch_size=None, sampler=_Endless(indices), num_workers=workers)
        for item in loader:
            yield item if on_cpu else self.render(item, device)

    def _show(self, pictures: Pictures, per_sample: int, device: torch.device | str) -> _Shown:
        frames, visible, landmarks, openings = [], [], [], []
        for first in range(0, len(pictures), self.config.chunk):
            some = moved(pictures[first : first + self.config.chunk], device)
            rendered = render(
                some.identity, some.pose, some.emotion_weights, some.mouth, some.eyes,
                Scene(some.light, some.background), self.size,
            )  # fmt: skip
            frames.append(rendered.frames)
            visible.append(rendered.visible)
            landmarks.append(rendered.landmarks)
            openings.append(rendered.mouth_opening)

        def by_sample(tensor: Tensor) -> Tensor:
            return tensor.reshape(-1, per_sample, *tensor.shape[1:])

        truth = moved(pictures, device)
        labels = FrameLabels(
            by_sample(truth.person), by_sample(truth.emotion), by_sample(truth.level), by_sample(truth.pose),
            by_sample(torch.cat(landmarks)), by_sample(torch.cat(openings)),
        )  # fmt: skip
        return _Shown(by_sample(torch.cat(frames)), by_sample(torch.cat(visible)), labels)

    def _irfd(self, shown: _Shown, tensors: dict[str, Tensor]) -> PairBatch:
        source, target, source_exchanged, target_exchanged = shown.frames.unbind(1)
        return PairBatch(
            source, target, tensors["factor"], _labels(shown.labels, 0), _labels(shown.labels, 1), source_exchanged,
            target_exchanged, torch.ones_like(tensors["factor"], dtype=torch.bool), tensors["number"],
        )  # fmt: skip

    def _judge(self, shown: _Shown, tensors: dict[str, Tensor]) -> JudgeBatch:
        strength = self.config.augmented_frames
        frames = shown.frames[:, 0]
        if strength:
            frames = augment(frames, tensors["conditions"], shown.visible[:, 0], strength)
        return JudgeBatch(frames, _labels(shown.labels, 0), tensors["number"])

    def _audio(self, shown: None, tensors: dict[str, Tensor]) -> SpeechBatch:
        mouth = tensors["mouth"]
        return SpeechBatch(tensors["speech"], tensors["phones"], mouth, mouth_opening(mouth), tensors["number"])

    def _syncnet(self, shown: _Shown, tensors: dict[str, Tensor]) -> SyncBatch:
        return SyncBatch(
            shown.frames, tensors["speech"], tensors["matched"], tensors["shift"], tensors["number"]
        )  # fmt: skip

    def _speak(self, shown: _Shown, tensors: dict[str, Tensor]) -> WindowBatch:
        count, others = self.config.frames, self.config.emotion_frames
        identity_frame, frames, pose_frames, emotion_frames = shown.frames.split([1, count, count, others], 1)
        return WindowBatch(
            identity_frame[:, 0], frames, pose_frames, emotion_frames, tensors["speech"], self.config.context,
            _labels(shown.labels, slice(1, 1 + count)), tensors["phones"], tensors["number"],
        )  # fmt: skip


def _labels(labels: FrameLabels, places: int | slice) -> FrameLabels:
    return FrameLabels(*(getattr(labels, field.name)[:, places] for field in dataclasses.fields(labels)))


class _Work(torch.utils.data.Dataset):
    """What a worker process does with a list of sample numbers."""

    def __init__(self, data: RenderedData, render: bool) -> None:
        self.data, self.render = data, render

    def __getitem__(self, indices: list[int]) -> Any:
        drawn = self.data.draw(indices)
        return self.data.render(drawn) if self.render else drawn


class _Endless(torch.utils.data.Sampler):
    def __init__(self, indices: Callable[[], Iterator[list[int]]]) -> None:
        self.indices = indices

    def __iter__(self) -> Iterator[list[int]]:
        return self.indices()

