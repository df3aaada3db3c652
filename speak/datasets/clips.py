"""Windows and pairs of a prepared corpus for the training stages, each a function of (seed, sample number) alone.

`speak.datasets.batches` makes batches of them. Frames are uint8; its `to_model` makes [-1, 1].
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from speak.config import EMOTIONS, SAMPLE_RATE, ClipsConfig, sample_of_frame
from speak.errors import SpeakError
from speak.media.prepared import ClipRecord, PreparedCorpus

EMOTION_SOURCES = ("elsewhere", "clip", "window")
NO_EMOTION = -1  # the label of a clip without one


class _Clips(Dataset):
    """The clips of one split, by person and emotion, and a random generator for each sample."""

    def __init__(self, corpus: PreparedCorpus, config: ClipsConfig, seed: int, split: str | None, name: str) -> None:
        self.corpus, self.config, self.seed = corpus, config, seed
        self.messages: list[str] = []  # what the corpus is too small for, for the trainer to print
        self.people = {person: number for number, person in enumerate(sorted({c.identity for c in corpus.clips}))}
        self.clips = [clip for clip in corpus.clips if split is None or clip.split == split]
        if not self.clips:
            have = ", ".join(sorted({clip.split for clip in corpus.clips}))
            raise SpeakError(f"{corpus.folder}: no clip in split '{split}' for {name} (there is {have})")

    def __len__(self) -> int:
        return 1 << 62  # samples never end; the trainer says how many it wants

    def random(self, index: int) -> np.random.Generator:
        return np.random.Generator(np.random.Philox(key=[self.seed % 2**63, index]))

    def keep(self, wanted: Any, what: str) -> None:
        """Leaves only the clips for which `wanted(clip)` holds, with a message; SpeakError where that is none."""
        kept = [clip for clip in self.clips if wanted(clip)]
        if not kept:
            raise SpeakError(f"{self.corpus.folder}: none of {len(self.clips)} clips has {what}")
        if len(kept) < len(self.clips):
            self.messages.append(f"{len(self.clips) - len(kept)} of {len(self.clips)} clips are left out: not {what}")
        self.clips = kept

    def facts(self, clip: ClipRecord) -> tuple[int, int, int]:
        """Numbers of the identity (over the whole corpus), the emotion and the level (-1 and 0 where unknown)."""
        emotion = NO_EMOTION if clip.emotion is None else EMOTIONS.index(clip.emotion)
        return self.people[clip.identity], emotion, clip.level or 0


class IrfdPairs(_Clips):
    """Source and target frames for stage `irfd`, S(i,m,p) and T(j,n,q) of SPEAK Sec. 3.1.

    A sample: `source`, `target` uint8 [H, W, 3]; `source_identity`, `source_emotion`, `source_level` and the same of
    the target, numbers (emotion -1: unlabelled); `same_clip` 1 where T is the true picture of the pose exchange;
    `kind` the index in `kinds`. With exact labels also `source_pose` [6], `source_landmarks` [68, 2] and so on, NaN for
    clips without them.
    """

    KINDS = ("same_clip", "same_identity", "same_emotion", "same_pose", "different")

    def __init__(
        self, corpus: PreparedCorpus, config: ClipsConfig, seed: int = 0, split: str | None = "train"
    ) -> None:
        super().__init__(corpus, config, seed, split, "IRFD pairs")
        self._of_person: dict[str, list[int]] = defaultdict(list)
        self._of_emotion: dict[str | None, list[int]] = defaultdict(list)
        for number, clip in enumerate(self.clips):
            self._of_person[clip.identity].append(number)
            self._of_emotion[clip.emotion].append(number)
        self._labelled = any(clip.labels for clip in self.clips)
        shares = {kind: getattr(config, kind) for kind in self.KINDS}
        people = len(self._of_person)
        labels = {emotion for emotion in self._of_emotion if emotion is not None}
        needs = {
            "same_clip": (any(clip.frames > 1 for clip in self.clips), "every clip is a single frame"),
            "same_identity": (max(map(len, self._of_person.values())) > 1, "every person has one clip"),
            "same_emotion": (people > 1 and bool(labels), "it takes two people and emotion labels"),
            "same_pose": (people > 1 and self._labelled, "it takes two people and exact poses"),
            "different": (people > 1, "there is one person only"),
        }
        for kind, (possible, reason) in needs.items():
            if shares[kind] > 0 and not possible:
                shares[kind] = 0.0
                self.messages.append(f"no IRFD pairs of kind {kind}: {reason}")
        total = sum(shares.values())
        if total <= 0:
            raise SpeakError(f"{corpus.folder}: too small for any IRFD pair: {'; '.join(self.messages)}")
        self._edges = np.cumsum([shares[kind] / total for kind in self.KINDS])

    def __getitem__(self, index: int) -> dict[str, Any]:
        random = self.random(index)
        kind = self.KINDS[min(int(np.searchsorted(self._edges, random.random(), side="right")), len(self.KINDS) - 1)]
        first = self._source(kind, random)
        second = self._partner(kind, first, random)
        frame = int(random.integers(first.frames))
        if first is second and first.frames > 1:
            other = (frame + 1 + int(random.integers(first.frames - 1))) % first.frames
        else:
            other = int(random.integers(second.frames))
        if kind == "same_pose" and first.labels and second.labels:
            other = self._nearest_pose(first, frame, second)
        sample: dict[str, Any] = {"kind": self.KINDS.index(kind), "same_clip": int(first is second)}
        for side, clip, number in (("source", first, frame), ("target", second, other)):
            sample[side] = self.corpus.frames(clip, [number])[0]
            sample[f"{side}_identity"], sample[f"{side}_emotion"], sample[f"{side}_level"] = self.facts(clip)
            if self._labelled:
                sample |= {f"{side}_{key}": value for key, value in _frame_labels(self.corpus, clip, number).items()}
        return sample

    def _source(self, kind: str, random: np.random.Generator) -> ClipRecord:
        """A clip that can be the source of such a pair. People are drawn first: who has many clips weighs no more."""
        people = sorted(self._of_person)
        for _ in range(100):
            person = people[random.integers(len(people))]
            clip = self.clips[self._of_person[person][random.integers(len(self._of_person[person]))]]
            if {
                "same_clip": clip.frames > 1,
                "same_identity": len(self._of_person[person]) > 1,
                "same_emotion": clip.emotion is not None,
                "same_pose": clip.labels,
                "different": True,
            }[kind]:
                return clip
        return clip

    def _partner(self, kind: str, first: ClipRecord, random: np.random.Generator) -> ClipRecord:
        """A clip to go with `first`: the conditions of the kind, dropped one after another where nobody meets them."""
        own = self._of_person[first.identity]
        if kind == "same_clip":
            return first
        if kind == "same_identity":
            others = [self.clips[number] for number in own if self.clips[number] is not first]
            better = [clip for clip in others if clip.emotion != first.emotion]
            choice = better or others or [first]
            return choice[random.integers(len(choice))]
        pool = self._of_emotion[first.emotion] if kind == "same_emotion" else range(len(self.clips))
        last = first
        for _ in range(50):
            clip = self.clips[pool[random.integers(len(pool))]]
            if clip.identity == first.identity:
                continue
            last = clip
            fits = {
                "same_emotion": clip.emotion == first.emotion,
                "same_pose": clip.labels,
                "different": clip.emotion != first.emotion or clip.emotion is None,
            }[kind]
            if fits:
                return clip
        return last

    def _nearest_pose(self, first: ClipRecord, frame: int, second: ClipRecord) -> int:
        poses, others = self.corpus.labels(first).get("pose"), self.corpus.labels(second).get("pose")
        if poses is None or others is None:
            return 0
        return int(np.abs(others[:, :3] - poses[frame, :3]).sum(1).argmin())


class SyncWindows(_Clips):
    """Windows for stage `syncnet`: `frames` uint8 [5, H, W, 3]; `audio` float32, the sound of `audio_context` seconds
    before the matched time, the window's own sample_of_frame(5) samples, and as much after; `matched` 1 or 0 (shifted
    by `shift` frames, or of another clip: shift 0)."""

    def __init__(
        self, corpus: PreparedCorpus, config: ClipsConfig, seed: int = 0, split: str | None = "train"
    ) -> None:
        super().__init__(corpus, config, seed, split, "SyncNet windows")
        count = config.sync_frames
        self.keep(lambda clip: clip.sound and clip.frames >= count, f"sound and {count} frames or more")
        self._foreign = len(self.clips) > 1
        if not any(clip.frames >= count + config.sync_shift for clip in self.clips):
            if not self._foreign:
                raise SpeakError(f"{corpus.folder}: too small for SyncNet: one clip, too short to be shifted")
            self.messages.append("no shifted SyncNet negatives: all clips are too short")
        if not self._foreign:
            self.messages.append("no foreign SyncNet negatives: there is one clip with sound")

    def __getitem__(self, index: int) -> dict[str, Any]:
        random, config = self.random(index), self.config
        number = int(random.integers(len(self.clips)))
        clip = self.clips[number]
        starts = clip.frames - config.sync_frames + 1
        start = int(random.integers(starts))
        matched = random.random() < config.sync_positive
        heard, at = clip, start
        if not matched:
            # starts of the same clip that are far enough: on either side of this one
            before, after = max(0, start - config.sync_shift + 1), max(0, starts - start - config.sync_shift)
            shifted = before + after > 0 and (not self._foreign or random.random() < config.sync_shifted)
            if shifted:
                place = int(random.integers(before + after))
                at = place if place < before else start + config.sync_shift + place - before
            elif self._foreign:
                others = int(random.integers(len(self.clips) - 1))
                heard = self.clips[others + (others >= number)]
                at = int(random.integers(heard.frames - config.sync_frames + 1))
            else:
                matched = True  # this window leaves no room to shift, and there is no other clip
        frames = self.corpus.frames(clip, range(start, start + config.sync_frames))
        return {
            "frames": frames,
            "audio": _window_audio(self.corpus, heard, at, config.sync_frames, config.audio_context),
            "matched": int(matched),
            "shift": at - start if heard is clip else 0,
        }


class SpeakWindows(_Clips):
    """Windows for stage `speak` (SPEAK Sec. 3.2), self-driven.

    A sample: `identity` uint8 [H, W, 3], a frame of the clip from outside the window where there is one; `frames`
    [N, H, W, 3], the target and the source of the pose; `emotion_frames` [M, H, W, 3] by `emotion_source`; `audio`
    float32 with `audio_context` seconds before and after the window (its own part starts at round(context * 16000));
    `person`, `emotion`, `level` numbers; `first_frame`. With exact labels also `pose` [N, 6], `landmarks`
    [N, 68, 2], `mouth_opening` [N].
    """

    def __init__(
        self, corpus: PreparedCorpus, config: ClipsConfig, seed: int = 0, split: str | None = "train"
    ) -> None:
        super().__init__(corpus, config, seed, split, "SPEAK windows")
        if config.emotion_source not in EMOTION_SOURCES:
            raise SpeakError(f"emotion_source '{config.emotion_source}': one of {', '.join(EMOTION_SOURCES)}")
        count = config.speak_frames
        self.keep(lambda clip: clip.sound and clip.frames >= count, f"sound and {count} frames or more")
        short = sum(clip.frames < count + config.emotion_frames for clip in self.clips)
        if config.emotion_source == "elsewhere" and short:
            self.messages.append(f"{short} clips are too short for emotion frames elsewhere: some are of the window")

    def __getitem__(self, index: int) -> dict[str, Any]:
        random, count = self.random(index), self.config.speak_frames
        clip = self.clips[random.integers(len(self.clips))]
        start = int(random.integers(clip.frames - count + 1))
        window = range(start, start + count)
        outside = [frame for frame in range(clip.frames) if frame not in window]
        identity = outside[random.integers(len(outside))] if outside else start
        emotion = self._emotion_frames(clip, window, random)
        pictures = self.corpus.frames(clip, [identity, *window, *emotion])
        person, label, level = self.facts(clip)
        sample = {
            "identity": pictures[0], "frames": pictures[1 : 1 + count], "emotion_frames": pictures[1 + count :],
            "audio": _window_audio(self.corpus, clip, start, count, self.config.audio_context),
            "person": person, "emotion": label, "level": level, "first_frame": start,
        }  # fmt: skip
        labels = self.corpus.labels(clip)
        if any(item.labels for item in self.clips):
            for key, shape in FRAME_LABELS.items():
                missing = np.full((count, *shape), np.nan, np.float32)
                sample[key] = labels[key][window.start : window.stop].astype(np.float32) if key in labels else missing
        return sample

    def _emotion_frames(self, clip: ClipRecord, window: range, random: np.random.Generator) -> list[int]:
        """The frames from which the emotion code is taken, so that it cannot carry the window's mouth."""
        count = self.config.emotion_frames
        if self.config.emotion_source == "clip":
            return [int(frame) for frame in np.linspace(0, clip.frames - 1, count).round()]
        if self.config.emotion_source == "window":
            return [window[int(place)] for place in np.linspace(0, len(window) - 1, count).round()]
        before, after = window.start - count + 1, clip.frames - window.stop - count + 1
        places = [*range(max(0, before)), *range(window.stop, window.stop + max(0, after))]
        if places:
            first = places[random.integers(len(places))]
        else:  # too short: the far end of the clip
            first = 0 if window.start > clip.frames - window.stop else max(0, clip.frames - count)
        return [min(first + step, clip.frames - 1) for step in range(count)]


# exact labels of a frame: name -> shape
FRAME_LABELS: dict[str, tuple[int, ...]] = {"pose": (6,), "landmarks": (68, 2), "mouth_opening": ()}


def _frame_labels(corpus: PreparedCorpus, clip: ClipRecord, frame: int) -> dict[str, np.ndarray]:
    labels = corpus.labels(clip)
    missing = {key: np.full(shape, np.nan, np.float32) for key, shape in FRAME_LABELS.items()}
    return {key: labels[key][frame].astype(np.float32) if key in labels else missing[key] for key in FRAME_LABELS}


def _window_audio(corpus: PreparedCorpus, clip: ClipRecord, start: int, frames: int, context: float) -> np.ndarray:
    """The sound of `frames` frames from `start` on with `context` seconds to each side, always of one length."""
    around, first = round(context * SAMPLE_RATE), sample_of_frame(start)
    return corpus.audio(clip, first - around, first + sample_of_frame(frames) + around)
