"""What measures: the judge, the reader of landmarks, the judge of sync; each is found or named, and said in the report.

A network is looked for in this order: the file that was named; the run folder of the weights; what ships with speak.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from speak import checkpoint, foreign_weights
from speak.clip_generation import measuring
from speak.config import LANDMARKS, Config, from_dict
from speak.errors import SpeakError
from speak.evaluate_sync import OurSync, PublishedSync, SyncJudge
from speak.media.face_detection import Landmarks
from speak.models.irfd import IRFD
from speak.models.judge import Judge, Reading
from speak.models.speak import Speak
from speak.models.syncnet import PublishedSyncNet, SyncNet
from speak.shipped import files_of, load_shipped

WEIGHTS = "weights.pt"  # of a stage's folder in a run folder
BUILDERS: dict[str, Callable[[Config], nn.Module]] = {
    "speak": Speak,
    "irfd": IRFD,
    "judge": lambda config: Judge(config.model.judge),
    "syncnet": lambda config: SyncNet(config.model.syncnet),
}
LANDMARK_SOURCES = ("auto", "faces", "judge")


@dataclasses.dataclass(frozen=True)
class Loaded:
    """A network with what it was trained as."""

    network: Any
    config: Config | None  # None: foreign weights
    step: int
    source: str  # the file, or "shipped"


def load(stage: str, path: str | Path, device: torch.device) -> Loaded:
    """The network of `stage` from a checkpoint. Raises SpeakError: damaged, another stage, does not fit its config."""
    return _built(stage, checkpoint.load(path), str(path), device)


def find(stage: str, given: str | Path | None, beside: str | Path | None, device: torch.device) -> Loaded | None:
    """The network of `stage`: `given`, else in the run folder of the weights `beside`, else shipped, else None."""
    if given is not None:
        return load(stage, given, device)
    if beside is not None:
        sibling = Path(beside).absolute().parent.parent / stage / WEIGHTS
        if sibling.is_file():
            return load(stage, sibling, device)
    return _built(stage, load_shipped(stage), "shipped", device) if files_of(stage) else None


def weights_of(path: str | Path, stage: str) -> Path:
    """A weights file, or the one of `stage` in a run folder."""
    path = Path(path)
    return path / stage / WEIGHTS if path.is_dir() else path


def short(source: str | Path) -> str:
    """The end of a path, as a report names it: RUN/STAGE/weights.pt, no path of this machine."""
    return "/".join(Path(source).parts[-3:])


def _built(stage: str, content: dict[str, Any], source: str, device: torch.device) -> Loaded:
    if stage not in content["models"]:
        raise SpeakError(f"{source}: holds stage {content['stage']}, not {stage}")
    try:
        config = from_dict(content["config"])
    except SpeakError as error:
        raise SpeakError(f"{source}: {error}") from None
    network = BUILDERS[stage](config)
    checkpoint.load_into(network, content["models"][stage], source)
    return Loaded(network.to(device).eval().requires_grad_(False), config, content["step"], source)


def find_sync(given: str | Path | None, beside: str | Path | None, device: torch.device) -> SyncJudge | None:
    """The judge of sync; a named file may be ours or syncnet_python's `syncnet_v2.model`."""
    if given is not None and _is_published(given):
        network = PublishedSyncNet()
        foreign_weights.load_syncnet(network, given)
        return PublishedSync(network.to(device).eval(), f"syncnet_v2 ({short(given)}), 25 frames/s")
    found = find("syncnet", given, beside, device)
    if found is None:
        return None
    return OurSync(found.network, f"speak's own SyncNet ({short(found.source)}, step {found.step}), 30 frames/s")


def _is_published(path: str | Path) -> bool:
    """Whether the file is none of ours but has the published net's keys."""
    try:
        return "format" not in checkpoint.load(path)
    except SpeakError:
        return any(key.startswith("netcnnaud.") for key in foreign_weights.read(path))


class LandmarkReader:
    """Reads 68 landmarks from frames; NaN where no face is found."""

    def __init__(self, name: str, find: Callable[[Tensor], Tensor]) -> None:
        self.name, self._find = name, find

    def __call__(
        self,
        frames: Tensor,  # uint8 [N, 3, H, W]
    ) -> Tensor:
        """float32 [N, 68, 2] in pixels of the frames."""
        return self._find(frames)


def judge_reader(judge: Judge) -> LandmarkReader:
    """Landmarks by the judge, which finds a face in anything."""
    return LandmarkReader("judge", lambda frames: read(judge, frames).landmarks)


def dlib_reader() -> LandmarkReader:
    """Landmarks by the `faces` extra. Raises SpeakError where it, or its file, is missing."""
    predictor = Landmarks()

    def find_all(frames: Tensor) -> Tensor:
        nothing = np.full((LANDMARKS, 2), np.nan, np.float32)
        pictures = frames.permute(0, 2, 3, 1).contiguous().cpu().numpy()
        found = [predictor.find(picture) for picture in pictures]
        return torch.from_numpy(np.stack([nothing if points is None else points for points in found]))

    return LandmarkReader("faces extra (dlib)", find_all)


def read(
    judge: Judge,
    frames: Tensor,  # uint8 [N, 3, H, W]
) -> Reading:
    """What the judge reads from frames, on the CPU."""
    device = next(judge.parameters()).device
    with measuring(judge):
        shown = frames.to(device).float() / 127.5 - 1
        readings = [judge(part) for part in shown.split(64)]
    names = [field.name for field in dataclasses.fields(Reading)]
    return Reading(*(torch.cat([getattr(reading, name) for reading in readings]).cpu() for name in names))


@dataclasses.dataclass(frozen=True)
class Instruments:
    """Everything that measures, and how a report names it."""

    judge: Loaded | None
    sync: SyncJudge | None
    rendered_reader: LandmarkReader | None  # for rendered people
    reader: LandmarkReader | None  # for real ones

    def names(self) -> dict[str, str]:
        """What stands in the report."""
        judge = "none" if self.judge is None else f"{short(self.judge.source)}, step {self.judge.step}"
        return {
            "judge": judge,
            "sync_judge": "none" if self.sync is None else self.sync.name,
            "landmarks_of_rendered_people": "none" if self.rendered_reader is None else self.rendered_reader.name,
            "landmarks_of_real_people": "none" if self.reader is None else self.reader.name,
        }


def instruments(
    judge: str | Path | None,
    syncnet: str | Path | None,
    landmarks: str,  # one of LANDMARK_SOURCES
    beside: str | Path | None,  # weights in whose run folder to look
    device: torch.device,
) -> Instruments:
    """Finds what measures. `auto` landmarks: the `faces` extra for real people where it is installed, else the judge.

    Raises SpeakError for a file that was named and is not right, and for `faces` where the extra is missing.
    """
    found = find("judge", judge, beside, device)
    by_judge = judge_reader(found.network) if found else None
    reader = by_judge
    if landmarks == "faces":
        reader = dlib_reader()
    elif landmarks == "judge" and by_judge is None:
        raise SpeakError("--landmarks judge: there is no judge: name its weights with --judge FILE")
    elif landmarks == "auto":
        try:
            reader = dlib_reader()
        except SpeakError:
            reader = by_judge
    return Instruments(found, find_sync(syncnet, beside, device), reader if landmarks == "faces" else by_judge, reader)


