"""Any system's videos against the truth, row by row of a table; what is wrong with a row stands in the row.

The table is a CSV with a header: columns `generated` and `truth` (video files), optional `audio` (default: the truth's
own sound), `emotion` (a label) and `name`. Relative paths count from the table's folder.
"""

from __future__ import annotations

import csv
import dataclasses
import itertools
import math
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from speak import metrics
from speak.config import EMOTIONS, FRAME_RATE, EvaluateConfig
from speak.errors import SpeakError
from speak.evaluate_clips import COLUMNS, Row, Shown, figures, mean_psnr, resized
from speak.evaluate_instruments import Instruments
from speak.media.audio import read_audio
from speak.media.face import find_face
from speak.media.face_detection import best_detector
from speak.media.files import check_readable
from speak.media.video import VideoInfo, VideoReader, probe

CROP = 256  # pixels of the face crops that the instruments look at
_CHUNK = 16
_LOOKED_AT = range(0, 33, 8)  # frames of each video that are searched for a face


def read_table(path: str | Path) -> list[dict[str, str]]:
    """The rows of the CSV. Raises SpeakError where it is not one with the columns `generated` and `truth`."""
    path = check_readable(path)
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = [{key: (value or "").strip() for key, value in row.items() if key} for row in csv.DictReader(file)]
            columns = set(rows[0]) if rows else set()
    except (csv.Error, UnicodeDecodeError) as error:
        raise SpeakError(f"{path}: is no CSV table ({error})") from None
    if not rows:
        raise SpeakError(f"{path}: has no row below its header")
    missing = {"generated", "truth"} - columns
    if missing:
        raise SpeakError(f"{path}: lacks the column {sorted(missing)[0]}: a header 'generated,truth' is wanted")
    return rows


def score_pair(
    row: dict[str, str], folder: Path, tools: Instruments, settings: EvaluateConfig
) -> tuple[Row, Shown | None]:
    """One row's figures; an `error` in the row where the pair cannot be scored."""
    name = row.get("name") or Path(row["generated"] or "missing").stem
    nothing = dict.fromkeys(COLUMNS, math.nan)
    result = Row(name, "", 0, dict(nothing), dict(nothing), {}, [])
    try:
        return _score(row, folder, tools, settings, result)
    except SpeakError as error:
        result.error = str(error)
        return result, None


def _score(
    row: dict[str, str], folder: Path, tools: Instruments, settings: EvaluateConfig, result: Row
) -> tuple[Row, Shown]:
    for column in ("generated", "truth"):
        if not row[column]:
            raise SpeakError(f"the table names no {column} video")
    emotion = _emotion(row.get("emotion", ""))
    generated, truth = folder / row["generated"], folder / row["truth"]
    told = {path: probe(path) for path in (generated, truth)}
    _check_sizes(told[generated], told[truth], result.notes)
    rate = _rate(told[generated], told[truth], result.notes)
    box, faces = _faces(generated, truth, result.notes)
    scaled = _box_in(box, told[truth], told[generated])
    # the pictures as they are, a few at a time: videos may be large
    count, ssim, psnr, crops = 0, [], [], ([], [])
    lengths = _lengths(generated, truth, rate, settings, result.notes)
    for made, true in _chunks(generated, truth, rate, lengths, told[truth], settings):
        ssim.append(metrics.ssim(made, true, settings.ssim))
        psnr.append(metrics.psnr(made, true, settings.psnr))
        for kept, frames in zip(crops, (made, true), strict=True):
            x, y, w, h = box
            kept.append(resized(frames[..., y : y + h, x : x + w], CROP))
        count += len(made)
    made, true = (torch.cat(part) for part in crops)
    speech = _speech(row, folder, truth, told[truth], result.notes)
    reader = tools.reader
    landmarks = [reader(frames) if reader and seen else None for frames, seen in zip((made, true), faces, strict=True)]
    for points, what in zip(landmarks, ("generated", "true"), strict=True):
        if points is not None and points.isnan().all():
            result.notes.append(f"no face found in the {what} video: no LMD")
    sync_rate = None if tools.sync is None else tools.sync.rate
    for frames, points, path, square, seen, into in (
        (made, landmarks[0], generated, scaled, all(faces), result.generated),
        (true, landmarks[1], truth, box, faces[1], result.truth),
    ):
        at_judge = None
        if sync_rate and speech is not None and sync_rate != rate:
            at_judge = _crops(path, sync_rate, math.ceil(count * sync_rate / rate), square)
        at_hand = tools if seen else dataclasses.replace(tools, judge=None)  # the judge reads a face into anything
        into |= figures(frames, true, points, at_hand, settings, speech, emotion, landmarks[1], CROP, result.notes,
                        frames if at_judge is None else at_judge, pictures=False)  # fmt: skip
    result.generated |= {"ssim": float(torch.cat(ssim).mean()), "psnr": mean_psnr(torch.cat(psnr))}
    result.truth |= {"ssim": 1.0, "psnr": math.inf}
    result.frames, result.notes = count, list(dict.fromkeys(result.notes))
    return result, Shown(result.name, true[0], true, made, speech, float(rate))


def _rate(generated: VideoInfo, truth: VideoInfo, notes: list[str]) -> Fraction:
    """Frames/s at which the pictures are compared: their own where both have the same, else 30."""
    rates = [Fraction(round((info.rate or FRAME_RATE) * 100), 100) for info in (generated, truth)]
    if rates[0] == rates[1]:
        return rates[0]
    notes.append(f"{float(rates[0]):g} and {float(rates[1]):g} frames/s: both compared at {FRAME_RATE}")
    return Fraction(FRAME_RATE)


def _check_sizes(generated: VideoInfo, truth: VideoInfo, notes: list[str]) -> None:
    """The generated video is scaled to the truth's size; another shape of picture is refused."""
    sizes = [(info.width, info.height) for info in (generated, truth)]
    if sizes[0] == sizes[1]:
        return
    texts = [f"{width}x{height}" for width, height in sizes]
    shapes = [width / height for width, height in sizes]
    if abs(shapes[0] / shapes[1] - 1) > 0.02:
        raise SpeakError(f"the generated video is {texts[0]}, the true one {texts[1]}: not the same picture")
    notes.append(f"the generated video is scaled from {texts[0]} to {texts[1]}")


def _lengths(
    generated: Path, truth: Path, rate: Fraction, settings: EvaluateConfig, notes: list[str]
) -> tuple[int, int]:
    """Frames of each video at `rate`, counted by decoding small pictures."""
    counts = []
    for path in (generated, truth):
        with VideoReader(path, rate, size=(16, 16)) as reader:
            counts.append(sum(1 for _ in reader))
    if counts[0] != counts[1]:
        how = "the common ones are compared" if settings.lengths == "common" else "the generated ones are resampled"
        notes.append(f"{counts[0]} generated frames, {counts[1]} true ones: {how}")
    return counts[0], counts[1]


def _chunks(
    generated: Path, truth: Path, rate: Fraction, lengths: tuple[int, int], info: VideoInfo, settings: EvaluateConfig
) -> Iterator[tuple[Tensor, Tensor]]:
    """Frames side by side at the truth's size, uint8 [n, 3, H, W] each."""
    size = (info.width, info.height)
    resample = settings.lengths == "resample"
    count = lengths[1] if resample else min(lengths)
    count = min(count, settings.frames) if settings.frames else count
    places = np.linspace(0, lengths[0] - 1, lengths[1]).round().astype(int)[:count] if resample else np.arange(count)
    with VideoReader(generated, rate, size=size) as made, VideoReader(truth, rate, size=size) as true:
        pairs = zip(_taken(iter(made), places.tolist()), true, strict=False)
        while chunk := list(itertools.islice(pairs, _CHUNK)):
            first, second = (torch.from_numpy(np.stack(part)).permute(0, 3, 1, 2) for part in zip(*chunk, strict=True))
            yield first, second


def _taken(frames: Iterator[np.ndarray], places: list[int]) -> Iterator[np.ndarray]:
    """The frames at `places`, which do not fall."""
    at, frame = -1, None
    for place in places:
        while at < place:
            frame, at = next(frames), at + 1
        yield frame


def _faces(generated: Path, truth: Path, notes: list[str]) -> tuple[tuple[int, int, int, int], tuple[bool, bool]]:
    """The crop in which the instruments look, from the truth, and whether the generated and the true video have a face.

    dlib's word that there is none is taken; the built-in detector misses a quarter of real faces, and is only noted.
    """
    detector, shown = best_detector(), {}
    for what, path in (("generated", generated), ("true", truth)):
        with VideoReader(path, frames=_LOOKED_AT.stop) as reader:
            looked = list(itertools.islice(reader, 0, None, _LOOKED_AT.step))
        shown[what] = next((frame for frame in looked if detector.find(frame)), None)
        if shown[what] is None:
            told = "no LMD, CSIM and emotion" if detector.tracks else "it misses some; look whether there is one"
            notes.append(f"no face found in the {what} video by the {detector.name}: {told}")
    picture = looked[0] if shown["true"] is None else shown["true"]
    box = find_face(picture, detector=detector, name=str(truth), strict=False).box
    generated_seen, true_seen = (shown[what] is not None or not detector.tracks for what in ("generated", "true"))
    return box, (generated_seen, true_seen)


def _box_in(box: tuple[int, int, int, int], truth: VideoInfo, generated: VideoInfo) -> tuple[int, int, int, int]:
    """The same crop in pixels of the generated video."""
    across, down = generated.width / truth.width, generated.height / truth.height
    x, y, w, h = round(box[0] * across), round(box[1] * down), round(box[2] * across), round(box[3] * down)
    return x, y, max(2, min(w, generated.width - x)), max(2, min(h, generated.height - y))


def _crops(path: Path, rate: int, count: int, box: tuple[int, int, int, int]) -> Tensor:
    """The crop's frames at another rate, uint8 [N, 3, CROP, CROP]."""
    with VideoReader(path, rate, frames=count, box=box, size=(CROP, CROP)) as reader:
        return torch.from_numpy(np.stack(list(reader))).permute(0, 3, 1, 2)


def _speech(
    row: dict[str, str], folder: Path, truth: Path, info: VideoInfo, notes: list[str]
) -> Tensor | None:
    if row.get("audio"):
        return torch.from_numpy(read_audio(folder / row["audio"]))
    return torch.from_numpy(read_audio(truth)) if info.sound else None


def _emotion(label: str) -> int | None:
    if not label:
        return None
    if label not in EMOTIONS:
        raise SpeakError(f"unknown emotion '{label}': choose from {', '.join(EMOTIONS)}")
    return EMOTIONS.index(label)
