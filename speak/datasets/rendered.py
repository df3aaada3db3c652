"""Batches of rendered people from a seed (`--data synthetic[:SEED]`): endless, exact, whatever the number of workers.

Sample number k of a stage depends on the seed, the split and k, on nothing else: who draws it, in which batch, with
how many processes does not matter. Pictures cost more than training steps on a small machine, so each is rendered once
and used in several samples (`rendered_draws`); a stock of the units in use is kept in memory, as bytes.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from speak.config import RenderedConfig, sample_of_frame
from speak.datasets.batches import prepare_worker, read
from speak.datasets.rendered_draws import CUBE, Draws
from speak.datasets.rendered_pictures import Pictures
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
from speak.models.codes import FACTORS
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


def fresh(config: RenderedConfig | None = None, **changes: Any) -> RenderedConfig:
    """What is measured on: every sample is rendered anew, and nothing disturbs picture or sound."""
    calm = {"uses": 1, "frame_uses": 1, "kept": 1, "augmented_frames": 0.0, "augmented_speech": 0.0}
    return dataclasses.replace(config or RenderedConfig(), **(calm | changes))


@dataclasses.dataclass
class _Rendered:
    """Units with their pictures, R of them, n pictures each. Frames and coverage are bytes."""

    frames: Tensor | None  # [R, n, 3, H, W] uint8
    visible: Tensor | None  # [R, n, H, W] uint8, what the person covers; stage `judge` only
    labels: FrameLabels | None  # [R, n]
    tensors: dict[str, Tensor]  # [R, ...]


class RenderedData:
    """Batches of one stage.

    Args:
        stage: one of STAGES.
        seed: other people, sentences and draws.
        split: train, val or test.
        size: pixels of a frame's side.
        config: what is drawn.
        device: where pictures are rendered and kept.
    Raises:
        SpeakError: a stage or split that does not exist.
    """

    def __init__(
        self,
        stage: str,
        seed: int = 0,
        split: str = "train",
        size: int = 256,
        config: RenderedConfig | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.config = config or RenderedConfig()
        if stage not in STAGES or split not in SPLITS:
            raise SpeakError(f"no rendered data for stage '{stage}', split '{split}': stages are {', '.join(STAGES)}")
        self.stage, self.size, self.device = stage, size, torch.device(device)
        pictures = {"irfd": 8, "judge": 2, "audio": 0, "syncnet": self.config.frames,
                    "speak": 1 + 2 * self.config.frames + self.config.emotion_frames}[stage]  # fmt: skip
        # Pictures are rendered by the block, always with the same neighbours: a picture's last bit depends on them.
        self._block = max(1, self.config.chunk // pictures) if pictures else 1
        room = int(self.config.kept_gigabytes * 1e9 / max(pictures * 3 * size * size, 1))
        self._draws = Draws(stage, (seed, SPLITS.index(split)), self.config, max(1, min(self.config.kept, room)))
        self._stock: dict[int, _Rendered] = {}

    def batch(self, indices: Sequence[int]) -> Any:
        """The samples of these numbers as the stage's batch (see `stage_batches.py`), on this object's device."""
        uses = [self._draws.use(int(index)) for index in indices]
        units = [self._unit(unit) for unit, _ in uses]
        how = {name: torch.stack([use[name] for _, use in uses]).to(self.device) for name in uses[0][1]}
        number = torch.tensor([int(index) for index in indices], device=self.device)
        return getattr(self, f"_{self.stage}")(_stacked(units), how, number)

    def batches(
        self,
        batch_size: int,  # of all processes together
        first_step: int = 0,
        rank: int = 0,
        world: int = 1,
        workers: int = 0,  # processes that render and assemble; each keeps a stock of its own; 0: this one
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

        if not workers or self.device.type != "cpu":
            return map(self.batch, indices())
        loader = torch.utils.data.DataLoader(
            _Work(self), batch_size=None, sampler=_Endless(indices), num_workers=workers, prefetch_factor=4,
            worker_init_fn=prepare_worker, generator=torch.Generator(),
        )  # fmt: skip
        return read(loader)

    def _unit(self, number: int) -> _Rendered:
        """One unit (without the leading dimension), rendered with its block unless it is in the stock."""
        block, place = divmod(number, self._block)
        if block not in self._stock:
            self._stock[block] = self._render(range(block * self._block, (block + 1) * self._block))
            most = math.ceil(self._draws.kept / self._block) + 2
            while len(self._stock) > most:
                del self._stock[min(self._stock.keys() - {block})]
        return _picked(self._stock[block], place)

    def _render(self, numbers: range) -> _Rendered:
        drawn = [self._draws.unit(number) for number in numbers]
        tensors = {name: torch.stack([one.tensors[name] for one in drawn]).to(self.device) for name in drawn[0].tensors}
        if drawn[0].pictures is None:
            return _Rendered(None, None, None, tensors)
        pictures = moved(Pictures.joined([one.pictures for one in drawn if one.pictures is not None]), self.device)
        shown = render(
            pictures.identity, pictures.pose, pictures.emotion_weights, pictures.mouth, pictures.eyes,
            Scene(pictures.light, pictures.background), self.size,
        )  # fmt: skip
        labels = FrameLabels(
            pictures.person, pictures.emotion, pictures.level, pictures.pose, shown.landmarks, shown.mouth_opening,
            pictures.eyes,
        )

        def by_unit(tensor: Tensor) -> Tensor:
            return tensor.reshape(len(drawn), -1, *tensor.shape[1:])

        frames = ((shown.frames + 1) * 127.5).round().clamp(0, 255).byte()
        visible = by_unit((shown.visible * 255).round().byte()) if self.stage == "judge" else None
        fields = dataclasses.fields(FrameLabels)
        return _Rendered(
            by_unit(frames), visible, FrameLabels(*(by_unit(getattr(labels, field.name)) for field in fields)), tensors
        )

    def _irfd(self, units: _Rendered, how: dict[str, Tensor], number: Tensor) -> PairBatch:
        """S, T and exchanges are corners of a cube: exchanging a factor is going to the other side of one axis."""
        bits = torch.tensor([CUBE[factor] for factor in FACTORS], device=self.device)
        source, factor = how["source"], how["factor"]
        target, exchanged = source ^ 7, bits[factor]

        def at(place: Tensor) -> Tensor:
            return to_unit_range(_at(units.frames, place))

        # The picture that has one factor in common with S and nothing else is T with that factor exchanged.
        others = [torch.cat([at(target ^ bit), at(source ^ bit)]) for bit in bits]
        return PairBatch(
            at(source), at(target), factor, _labels_at(units.labels, source), _labels_at(units.labels, target),
            at(source ^ exchanged), at(target ^ exchanged), torch.ones_like(factor, dtype=torch.bool), *others,
            *(_at(units.labels.landmarks, place ^ exchanged) for place in (source, target)), number,
        )  # fmt: skip

    def _judge(self, units: _Rendered, how: dict[str, Tensor], number: Tensor) -> JudgeBatch:
        frames, visible = (_at(stored, how["place"]) for stored in (units.frames, units.visible))
        frames, strength = to_unit_range(frames), self.config.augmented_frames
        if strength:
            frames = augment(frames, how["conditions"], visible.float() / 255, strength)
        return JudgeBatch(frames, _labels_at(units.labels, how["place"]), number)

    def _audio(self, units: _Rendered, how: dict[str, Tensor], number: Tensor) -> SpeechBatch:
        speech, phones, mouth = (units.tensors[name] for name in ("speech", "phones", "mouth"))
        return SpeechBatch(speech, phones, mouth, mouth_opening(mouth), number)

    def _syncnet(self, units: _Rendered, how: dict[str, Tensor], number: Tensor) -> SyncBatch:
        speech = torch.where(how["foreign"][:, None], units.tensors["foreign"], units.tensors["speech"])
        length = sample_of_frame(self.config.frames)
        starts = [sample_of_frame(self.config.longest_shift + shift) for shift in how["shift"].tolist()]
        speech = torch.stack([row[start : start + length] for row, start in zip(speech, starts, strict=True)])
        return SyncBatch(to_unit_range(units.frames), speech, how["matched"], how["shift"], number)

    def _speak(self, units: _Rendered, how: dict[str, Tensor], number: Tensor) -> WindowBatch:
        count, others = self.config.frames, self.config.emotion_frames
        shown = to_unit_range(units.frames)
        identity_frame, frames, pose_frames, emotion_frames, identity_other, emotion_others = shown.split(
            [1, count, count, others, 1, others], 1
        )
        return WindowBatch(
            identity_frame[:, 0], frames, pose_frames, emotion_frames, units.tensors["speech"], self.config.context,
            _labels(units.labels, slice(1, 1 + count)), units.tensors["phones"], number, identity_other[:, 0],
            emotion_others,
        )  # fmt: skip


def to_unit_range(frames: Tensor) -> Tensor:
    """Bytes [..., 3, H, W] as the models take them: float in [-1, 1]."""
    return frames.float().div_(127.5).sub_(1.0)


def _at(stored: Tensor, places: Tensor) -> Tensor:
    """[R, n, ...] and a place for each row -> [R, ...]."""
    return stored[torch.arange(len(places), device=stored.device), places]


def _labels_at(labels: FrameLabels, places: Tensor) -> FrameLabels:
    return FrameLabels(*(_at(getattr(labels, field.name), places) for field in dataclasses.fields(labels)))


def _picked(units: _Rendered, place: int) -> _Rendered:
    labels = units.labels
    return _Rendered(
        None if units.frames is None else units.frames[place], None if units.visible is None else units.visible[place],
        None if labels is None else _labels(labels, None, place),
        {name: tensor[place] for name, tensor in units.tensors.items()},
    )  # fmt: skip


def _stacked(units: list[_Rendered]) -> _Rendered:
    """Units, each without a leading dimension, as one."""
    def stack(parts: list[Any]) -> Any:
        return None if parts[0] is None else torch.stack(parts)

    names = [field.name for field in dataclasses.fields(FrameLabels)]
    first = units[0]
    labels = None if first.labels is None else FrameLabels(
        *(stack([getattr(unit.labels, name) for unit in units]) for name in names)
    )
    return _Rendered(
        stack([unit.frames for unit in units]), stack([unit.visible for unit in units]), labels,
        {name: stack([unit.tensors[name] for unit in units]) for name in first.tensors},
    )  # fmt: skip


def _labels(labels: FrameLabels, places: slice | None, row: int | None = None) -> FrameLabels:
    fields = [getattr(labels, field.name) for field in dataclasses.fields(labels)]
    return FrameLabels(*(field[row] if row is not None else field[:, places] for field in fields))


class _Work(torch.utils.data.Dataset):
    """What a worker process does with a list of sample numbers."""

    def __init__(self, data: RenderedData) -> None:
        self.data = data

    def __getitem__(self, indices: list[int]) -> Any:
        return self.data.batch(indices)


class _Endless(torch.utils.data.Sampler):
    def __init__(self, indices: Callable[[], Iterator[list[int]]]) -> None:
        self.indices = indices

    def __iter__(self) -> Iterator[list[int]]:
        return self.indices()

