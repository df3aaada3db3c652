"""What the training stages are fed: one dataclass of tensors a stage, the same from a prepared corpus and rendered.

Frames are RGB in [-1, 1]; a field that the data cannot give is None (a corpus has no true pictures of exchanges).
"""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar

import torch
from torch import Tensor

from speak.config import FRAME_RATE, SAMPLE_RATE, sample_of_frame
from speak.datasets.batches import to_model
from speak.models.codes import FACTORS

UNLABELLED = -1  # the emotion of a clip without one

Kind = TypeVar("Kind")


@dataclasses.dataclass
class FrameLabels:
    """What is known about frames; leading dimensions [...] are those of the frames they belong to."""

    identity: Tensor  # [...] int64, a number for each person
    emotion: Tensor  # [...] int64, index into EMOTIONS, or UNLABELLED
    level: Tensor  # [...] int64, 1 to 3 (neutral: 1), or 0 where unknown
    pose: Tensor | None = None  # [..., 6], POSE_NAMES
    landmarks: Tensor | None = None  # [..., 68, 2], pixels
    mouth_opening: Tensor | None = None  # [...], 0 shut, about 1 widest
    eyes: Tensor | None = None  # [..., 4], EYE_NAMES


@dataclasses.dataclass
class PairBatch:
    """Stage `irfd`: S(i,m,p) and T(j,n,q), and the factor to exchange, one for each pair."""

    source: Tensor  # [B, 3, H, W], S
    target: Tensor  # [B, 3, H, W], T
    factor: Tensor  # [B] int64, index into FACTORS
    source_labels: FrameLabels  # [B]
    target_labels: FrameLabels  # [B]
    source_exchanged: Tensor  # [B, 3, H, W], the true picture A: S with the factor from T
    target_exchanged: Tensor  # [B, 3, H, W], the true picture B: T with the factor from S
    has_exchanged: Tensor  # [B] bool, False: this pair has no true pictures, something else stands there
    # Other pictures for the encoders to read, for S, then for T [2 B, 3, H, W]: alike in that factor, different in all
    # else. None: there are none (a corpus), the encoders read S and T themselves.
    identity_frames: Tensor | None = None
    pose_frames: Tensor | None = None
    emotion_frames: Tensor | None = None
    source_exchanged_landmarks: Tensor | None = None  # [B, 68, 2] of the true picture A
    target_exchanged_landmarks: Tensor | None = None  # [B, 68, 2] of the true picture B
    number: Tensor | None = None  # [B] int64, numbers of the samples: seeds for noise that does not depend on the batch


@dataclasses.dataclass
class WindowBatch:
    """Stage `speak`: N frames of a clip and what drives them."""

    identity_frame: Tensor  # [B, 3, H, W], another frame of the same clip
    frames: Tensor  # [B, N, 3, H, W], the truth
    pose_frames: Tensor  # [B, N, 3, H, W], frames with the same pose and eyes (rendered: somebody else's)
    emotion_frames: Tensor  # [B, M, 3, H, W], same person and emotion, from elsewhere in the clip
    speech: Tensor  # [B, S] at 16 kHz, from `context` frames before the window to `context` frames after it
    context: int  # frames of speech to each side: S = sample_of_frame(N + 2 * context)
    labels: FrameLabels  # [B, N]
    phones: Tensor | None = None  # [B, N] int64, index into PHONE_NAMES, what sounds in the middle of each frame
    number: Tensor | None = None  # [B] int64, numbers of the samples: seeds for noise that does not depend on the batch
    # Of rendered people alone, pictures that have only what is read from them in common with the truth:
    identity_frame_other: Tensor | None = None  # [B, 3, H, W], same person in the same place, in another emotion
    emotion_frames_other: Tensor | None = None  # [B, M, 3, H, W], another person in the same emotion


@dataclasses.dataclass
class SyncBatch:
    """Stage `syncnet`: short windows and speech that belongs to them, or does not."""

    frames: Tensor  # [B, N, 3, H, W], N at least 5
    speech: Tensor  # [B, sample_of_frame(N)] at 16 kHz, beginning with the first frame
    matched: Tensor  # [B] float32, y of Eq. 11: 1 the speech of these frames, 0 shifted or somebody else's
    shift: Tensor  # [B] int64, the speech is that of so many frames later in the clip; 0 where matched or foreign
    number: Tensor | None = None  # [B] int64, numbers of the samples: seeds for noise that does not depend on the batch


@dataclasses.dataclass
class JudgeBatch:
    """Stage `judge`: single frames with everything that is true of them."""

    frames: Tensor  # [B, 3, H, W]; rendered ones under strongly varied conditions
    labels: FrameLabels  # [B]
    number: Tensor | None = None  # [B] int64, numbers of the samples: seeds for noise that does not depend on the batch


@dataclasses.dataclass
class SpeechBatch:
    """Stage `audio`: speech with what the mouth does."""

    speech: Tensor  # [B, sample_of_frame(N)] at 16 kHz
    phones: Tensor  # [B, N] int64, index into PHONE_NAMES
    mouth: Tensor  # [B, N, 6], MOUTH_NAMES
    mouth_opening: Tensor  # [B, N], 0 to 1, as the phones ask for it
    number: Tensor | None = None  # [B] int64, numbers of the samples: seeds for noise that does not depend on the batch


def of_corpus(
    stage: str,  # irfd, syncnet or speak
    rows: dict[str, Tensor],  # a batch of `clips.IrfdPairs`, `SyncWindows` or `SpeakWindows`
    factor: Tensor | None = None,  # [B] to exchange, where the pairs are not of one clip; default: any
) -> PairBatch | SyncBatch | WindowBatch:
    """A batch from a prepared corpus as the stage takes it. Poses are driven by the frames themselves.

    Of pairs, two frames of one clip are each other's true pictures of the pose exchange.
    """
    if stage == "irfd":
        source, target = to_model(rows["source"]), to_model(rows["target"])
        same_clip = rows["same_clip"].bool()
        factor = torch.randint(len(FACTORS), (len(source),)) if factor is None else factor
        factor = torch.where(same_clip, FACTORS.index("pose"), factor)
        labels = [
            FrameLabels(
                rows[f"{side}_identity"], rows[f"{side}_emotion"], rows[f"{side}_level"], rows.get(f"{side}_pose"),
                rows.get(f"{side}_landmarks"), rows.get(f"{side}_mouth_opening"),
            )
            for side in ("source", "target")
        ]  # fmt: skip
        return PairBatch(source, target, factor, *labels, target, source, same_clip)
    count = rows["frames"].shape[1]
    if stage == "syncnet":
        before = (rows["audio"].shape[1] - sample_of_frame(count)) // 2
        speech = rows["audio"][:, before : before + sample_of_frame(count)]
        return SyncBatch(to_model(rows["frames"]), speech, rows["matched"].float(), rows["shift"])
    frames = to_model(rows["frames"])
    spread = [rows[name][:, None].expand(-1, count) for name in ("person", "emotion", "level")]
    labels = FrameLabels(*spread, rows.get("pose"), rows.get("landmarks"), rows.get("mouth_opening"))
    context = round((rows["audio"].shape[1] - sample_of_frame(count)) / 2 * FRAME_RATE / SAMPLE_RATE)
    return WindowBatch(
        to_model(rows["identity"]), frames, frames, to_model(rows["emotion_frames"]), rows["audio"], context, labels
    )


def moved(batch: Kind, device: torch.device | str) -> Kind:
    """`batch` (any of the above) with every tensor on `device`."""

    def move(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value.to(device, non_blocking=True)
        if dataclasses.is_dataclass(value):
            return dataclasses.replace(
                value, **{field.name: move(getattr(value, field.name)) for field in dataclasses.fields(value)}
            )
        return value

    return move(batch)
