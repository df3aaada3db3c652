"""What each stage is fed: a prepared corpus, or rendered people from a seed."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator
from itertools import islice
from typing import Any

import torch
import torch.nn.functional as F

from speak.config import FRAME_RATE, Config
from speak.datasets.batches import batches as corpus_batches
from speak.datasets.clips import IrfdPairs, SpeakWindows, SyncWindows
from speak.datasets.rendered import RenderedData, fresh, synthetic_seed
from speak.datasets.stage_batches import moved, of_corpus
from speak.errors import SpeakError
from speak.media.prepared import PreparedCorpus
from speak.models.codes import FACTORS
from speak.train.loop import Data
from speak.train.processes import rank_and_world

_CORPUS = {"irfd": IrfdPairs, "syncnet": SyncWindows, "speak": SpeakWindows}
_SECONDS = 3.7  # of the clips that SyncNet is validated on: three are left where speech is shifted by ten frames


def stage_data(stage: str, source: str, config: Config, batch: int, device: torch.device) -> Data:
    """Batches for a stage. `source`: synthetic[:SEED], or the folder of a prepared corpus.

    Raises SpeakError for a stage that the source cannot feed, and for a folder that is no corpus.
    """
    seed = synthetic_seed(source)
    if seed is not None:
        return _rendered(stage, seed, config, batch, device)
    return _corpus(stage, source, config, batch, device)


def _rendered(stage: str, seed: int, config: Config, batch: int, device: torch.device) -> Data:
    rank, world = rank_and_world()
    kind = "judge" if stage == "perceptual" else stage
    # The perceptual net must not know the judge's people: a net that had would be half the judge.
    seed = seed + 1_000_003 * (stage == "perceptual")
    size = config.model.image_size

    def train(first_step: int) -> Iterator[Any]:
        data = RenderedData(kind, seed, "train", size, config.rendered, device)
        return data.batches(batch, first_step, rank, world, config.train.workers)

    def held_out() -> list[Any]:
        calm, count = fresh(config.rendered), config.train.validation
        if stage == "syncnet":
            frames = int(FRAME_RATE * min(_SECONDS, 0.7 * config.rendered.sentence_seconds))
            calm = fresh(config.rendered, frames=frames, matched=1.0)
            count = max(count // 4, 1)
        data = RenderedData(kind, seed, "val", size, calm, device)
        pieces = [range(first, min(first + 16, count)) for first in range(0, count, 16)]
        return [data.batch(piece) for piece in pieces]

    return Data(train, held_out)


def _corpus(stage: str, folder: str, config: Config, batch: int, device: torch.device) -> Data:
    if stage not in _CORPUS:
        raise SpeakError(f"stage {stage} needs exact truth, which only rendered people have: use --data synthetic")
    rank, world = rank_and_world()
    corpus = PreparedCorpus(folder)
    clip = corpus.clips[0]
    found, wanted = corpus.frames(clip, [0]).shape[1], config.model.image_size
    if found % wanted:
        raise SpeakError(
            f"{folder}: its frames are {found} wide, the model's {wanted}: prepare with --size {wanted}"
        )

    factor = found // wanted

    def read(split: str, first_step: int, size: int, shard: tuple[int, int], workers: int) -> Iterator[Any]:
        windows = _CORPUS[stage](corpus, config.clips, config.train.seed, split)
        for line in windows.messages if rank == 0 else ():
            print(f"note: {folder}, split {split}: {line}", file=sys.stderr)
        share = size // shard[1]
        for offset, rows in enumerate(corpus_batches(windows, size, first_step, *shard, workers)):
            # Drawn for the whole batch, so that a sample's is the same however many processes share it.
            drawn = torch.randint(len(FACTORS), (size,), generator=torch.Generator().manual_seed(first_step + offset))
            found = _shrunk(of_corpus(stage, rows, drawn[shard[0] * share :][:share]), factor)
            first = (first_step + offset) * size + shard[0] * share
            found.number = torch.arange(first, first + share)
            yield moved(found, device)

    def train(first_step: int) -> Iterator[Any]:
        return read("train", first_step, batch, (rank, world), config.train.workers)

    def held_out() -> list[Any]:
        split = "val" if any(clip.split == "val" for clip in corpus.clips) else "train"
        if split == "train" and rank == 0:
            print(f"note: {folder} has no split val: held-out figures are of people it is trained on", file=sys.stderr)
        count = min(16, config.train.validation)
        return list(islice(read(split, 0, count, (0, 1), 0), max(1, config.train.validation // count)))

    return Data(train, held_out)


def _shrunk(batch: Any, factor: int) -> Any:
    """A batch with its frames and landmarks at 1 / factor of their size."""
    if factor == 1:
        return batch

    def shrink(name: str, value: Any) -> Any:
        if dataclasses.is_dataclass(value):
            return _shrunk(value, factor)
        if not isinstance(value, torch.Tensor):
            return value
        if "landmarks" in name:
            return (value + 0.5) / factor - 0.5
        if value.dim() >= 4 and value.shape[-3] == 3:
            flat = F.avg_pool2d(value.reshape(-1, *value.shape[-3:]), factor)
            return flat.reshape(*value.shape[:-2], *flat.shape[-2:])
        return value

    names = [field.name for field in dataclasses.fields(batch)]
    return dataclasses.replace(batch, **{name: shrink(name, getattr(batch, name)) for name in names})
