"""The self-driven protocol: clips of held-out people, made again by the model from their own first frame, poses,
emotion and speech, and scored against themselves (SPEAK Table 1).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from speak import metrics
from speak.clip_generation import encode_clip, generate_clip, measuring
from speak.config import EMOTIONS, FRAME_RATE, EvaluateConfig, sample_of_frame
from speak.datasets.rendered import RenderedData, fresh, synthetic_seed
from speak.errors import SpeakError
from speak.evaluate_instruments import Instruments, LandmarkReader, read
from speak.evaluate_sync import at_rate
from speak.media.prepared import ClipRecord, PreparedCorpus
from speak.models.speak import Speak

# name -> what it is; the first five are SPEAK Table 1's
COLUMNS = {
    "ssim": "SSIM",
    "psnr": "PSNR",
    "f_lmd": "F-LMD",
    "m_lmd": "M-LMD",
    "sync_conf": "Sync_conf",
    "sync_distance": "LSE-D",
    "offset": "offset",
    "csim": "CSIM",
    "emotion": "emotion",
}


@dataclasses.dataclass(frozen=True)
class TestClip:
    """One clip of a held-out person, at the size that the model makes."""

    name: str
    identity: str
    emotion: int | None  # index into EMOTIONS
    frames: Tensor  # uint8 [N, 3, S, S]
    speech: Tensor | None  # float32 [sample_of_frame(N)] at 16 kHz
    landmarks: Tensor | None  # exact ones, [N, 68, 2] in pixels of `frames`
    rendered: bool


@dataclasses.dataclass
class Row:
    """One clip's figures, by name of COLUMNS; NaN where something could not be measured, and a note says why."""

    name: str
    identity: str
    frames: int
    generated: dict[str, float]
    truth: dict[str, float]
    reader: dict[str, float]  # f_lmd, m_lmd of landmarks read from true frames: the reader's own error
    notes: list[str]
    error: str = ""  # why nothing was measured; "" where all is well


@dataclasses.dataclass
class Shown:
    """What a page shows of a clip."""

    name: str
    identity: Tensor  # uint8 [3, S, S]
    truth: Tensor  # uint8 [N, 3, S, S]
    generated: Tensor
    speech: Tensor | None
    rate: float = FRAME_RATE  # frames/s


def test_clips(
    data: str,  # folder of a prepared corpus, or synthetic[:SEED]
    split: str,
    size: int,  # pixels of a frame's side
    settings: EvaluateConfig,
) -> Iterator[TestClip]:
    """The clips of a split, spread over its people. Raises SpeakError where there is none."""
    seed = synthetic_seed(data)
    if seed is not None:
        if split == "all":
            raise SpeakError(f"--data {data} --split all: rendered people have no end: name one of train, val, test")
        drawn = fresh(frames=settings.rendered_frames, context=0, lifelike=settings.lifelike)
        source = RenderedData("speak", seed, split, size, drawn)
        for number in range(settings.clips or EvaluateConfig().clips):
            batch = source.batch([number])
            yield TestClip(
                f"{split}{number:04d}", f"person {int(batch.labels.identity[0, 0])}", int(batch.labels.emotion[0, 0]),
                metrics.to_uint8(batch.frames[0]), batch.speech[0], batch.labels.landmarks[0], True,
            )  # fmt: skip
        return
    corpus = PreparedCorpus(data)
    chosen = _spread([clip for clip in corpus.clips if split in (clip.split, "all")], settings.clips)
    if not chosen:
        have = ", ".join(sorted({clip.split for clip in corpus.clips}))
        raise SpeakError(f"{data}: no clip in split '{split}' (there is {have}): choose with --split")
    for clip in chosen:
        yield _of_corpus(corpus, clip, size, settings.frames)


def count_clips(data: str, split: str, settings: EvaluateConfig) -> int:
    """How many clips `test_clips` will give."""
    if synthetic_seed(data) is not None:
        return settings.clips or EvaluateConfig().clips
    count = sum(split in (clip.split, "all") for clip in PreparedCorpus(data).clips)
    return min(count, settings.clips) if settings.clips else count


def self_driven(
    model: Speak,
    clip: TestClip,
    settings: EvaluateConfig,
    seed: int = 0,  # of the clip's noise
) -> Tensor:
    """The clip made again: identity from its first frame, poses from its frames, emotion from some of them, its own
    speech. uint8 [N, 3, S, S]. Raises SpeakError for a clip without sound."""
    if clip.speech is None:
        raise SpeakError(f"{clip.name}: has no sound to drive the mouth")
    device = next(model.parameters()).device
    frames = clip.frames.to(device).float() / 127.5 - 1
    places = np.linspace(0, len(frames) - 1, settings.emotion_frames).round().astype(int).tolist()
    with measuring(model):
        drivers = encode_clip(model, frames[0], frames, frames[places], clip.speech.to(device))
        return metrics.to_uint8(generate_clip(model, drivers, seed)).cpu()


def score_clip(
    clip: TestClip,
    generated: Tensor,  # uint8 [N, 3, S, S]
    tools: Instruments,
    settings: EvaluateConfig,
) -> Row:
    """A clip's figures for `generated` and for the truth itself."""
    notes: list[str] = []
    size = clip.frames.shape[-1]
    reader = tools.rendered_reader if clip.rendered else tools.reader
    read_truth = reader(clip.frames) if reader else None
    true_landmarks = clip.landmarks if clip.landmarks is not None else read_truth
    read_generated = reader(generated) if reader else None
    arguments = (tools, settings, clip.speech, clip.emotion, true_landmarks, size, notes)
    made = figures(generated, clip.frames, read_generated, *arguments)
    true = figures(clip.frames, clip.frames, true_landmarks, *arguments)
    own = {}
    if clip.landmarks is not None and read_truth is not None:
        own = _landmark_figures(read_truth, clip.landmarks, size, settings, [])
    return Row(clip.name, clip.identity, len(clip.frames), made, true, own, list(dict.fromkeys(notes)))


def figures(
    frames: Tensor,  # uint8 [N, 3, S, S], face crops
    truth: Tensor,  # uint8 [N, 3, S, S]
    landmarks: Tensor | None,  # of `frames`
    tools: Instruments,
    settings: EvaluateConfig,
    speech: Tensor | None,
    emotion: int | None,
    true_landmarks: Tensor | None,
    size: int,
    notes: list[str],  # what could not be measured is added
    sync_frames: Tensor | None = None,  # the same crops at the sync judge's own rate; None: taken from `frames`
    pictures: bool = True,  # False: without PSNR and SSIM
) -> dict[str, float]:
    """All figures of one video by name of COLUMNS."""
    found = dict.fromkeys(COLUMNS, math.nan)
    if pictures:
        found["psnr"] = mean_psnr(metrics.psnr(frames, truth, settings.psnr))
        found["ssim"] = float(metrics.ssim(frames, truth, settings.ssim).mean())
    if landmarks is not None and true_landmarks is not None:
        found |= _landmark_figures(landmarks, true_landmarks, size, settings, notes)
    if tools.sync is not None and speech is not None:
        at = at_rate(frames, tools.sync.rate) if sync_frames is None else sync_frames
        points = None if landmarks is None else at_rate(landmarks, tools.sync.rate)
        if points is not None and len(points) != len(at):
            points = points[torch.linspace(0, len(points) - 1, len(at)).round().long()]
        try:
            sync = tools.sync(at, speech, points)
            found |= {"sync_conf": sync.confidence, "sync_distance": sync.distance, "offset": float(sync.offset)}
        except SpeakError as error:
            notes.append(str(error))
    elif speech is None:
        notes.append("no sound: no sync confidence")
    if tools.judge is not None:
        reading = read(tools.judge.network, torch.cat([truth[:1], frames]))
        found["csim"] = float(metrics.identity_similarity(reading.identity[1:], reading.identity[:1]).mean())
        if emotion is not None:
            felt = int(reading.emotion_logits[1:].softmax(1).mean(0).argmax())
            found["emotion"] = float(felt == emotion)
    return found


def mean_psnr(
    values: Tensor,  # [N]
) -> float:
    """Mean over the frames that differ from the truth at all; infinite where none does."""
    kept = values[values.isfinite()]
    return float(kept.mean()) if len(kept) else math.inf


def _landmark_figures(
    landmarks: Tensor, truth: Tensor, size: int, settings: EvaluateConfig, notes: list[str]
) -> dict[str, float]:
    face, mouth = (metrics.landmark_distance(landmarks, truth, size, part, settings.lmd) for part in (False, True))
    missing = int(face.isnan().sum())
    if missing:
        notes.append(f"no face in {missing} of {len(face)} frames: left out of LMD")
    kept = ~face.isnan()
    nothing = math.nan
    return {"f_lmd": float(face[kept].mean()) if kept.any() else nothing,
            "m_lmd": float(mouth[kept].mean()) if kept.any() else nothing}  # fmt: skip


def _spread(clips: list[ClipRecord], most: int) -> list[ClipRecord]:
    """At most `most` clips, from as many people as there are, each person's spread over what they have."""
    people: dict[str, list[ClipRecord]] = {}
    for clip in clips:
        people.setdefault(clip.identity, []).append(clip)
    if not most or len(clips) <= most:
        return clips
    share = -(-most // len(people))
    spread = {who: [own[int(k)] for k in dict.fromkeys(np.linspace(0, len(own) - 1, share).round().astype(int))]
              for who, own in people.items()}  # fmt: skip
    turns = [own[turn] for turn in range(share) for own in spread.values() if turn < len(own)]
    return turns[:most]


def _of_corpus(corpus: PreparedCorpus, clip: ClipRecord, size: int, most: int) -> TestClip:
    count = min(clip.frames, most) if most else clip.frames
    pictures = torch.from_numpy(corpus.frames(clip, range(count))).permute(0, 3, 1, 2)
    side = pictures.shape[-1]
    labels = corpus.labels(clip).get("landmarks")
    landmarks = None if labels is None else torch.from_numpy(labels[:count]).float()
    if landmarks is not None:
        landmarks = (landmarks + 0.5) * (size / side) - 0.5
    speech = torch.from_numpy(corpus.audio(clip, 0, sample_of_frame(count))) if clip.sound else None
    emotion = None if clip.emotion is None else EMOTIONS.index(clip.emotion)
    return TestClip(
        clip.name, clip.identity, emotion, resized(pictures, size), speech, landmarks, landmarks is not None
    )


def resized(
    frames: Tensor,  # uint8 [N, 3, H, W]
    size: int,
) -> Tensor:
    """uint8 [N, 3, size, size], bicubic with antialiasing; as they are where they have the size."""
    if frames.shape[-2:] == (size, size):
        return frames
    small = torch.nn.functional.interpolate(
        frames.float(), (size, size), mode="bicubic", antialias=True, align_corners=False
    )
    return small.round().clamp(0, 255).to(torch.uint8)


def reader_name(tools: Instruments, rendered: bool) -> str:
    """Where landmarks come from, for the report."""
    reader: LandmarkReader | None = tools.rendered_reader if rendered else tools.reader
    name = "none" if reader is None else reader.name
    return f"truth exact, generated frames read by {name}" if rendered else f"read by {name} on both sides"


def data_name(data: str) -> str:
    """The data as the report names it: no path of this machine."""
    return data if synthetic_seed(data) is not None else Path(data).name
