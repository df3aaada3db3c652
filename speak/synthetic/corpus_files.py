"""Writes the clips of a rendered corpus: prepared, as MEAD lies on disks, or a preview; in several processes.

Clips come out in their order whatever the number of processes, so that the same seed gives the same bytes.
"""

from __future__ import annotations

import functools
import json
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from speak.config import EMOTIONS, FRAME_RATE
from speak.errors import SpeakError
from speak.media.files import make_folder, whole_file
from speak.media.prepared import ClipRecord, PreparedWriter, split_identities, write_clip_files
from speak.synthetic.corpus import Corpus, PlannedClip
from speak.synthetic.performance import NEUTRAL, Performance

SETTINGS = "synth.json"  # what a corpus was made from
_CHUNK = 16  # frames rendered at once


def frames_and_labels(
    performance: Performance, size: int, device: str
) -> tuple[Iterator[np.ndarray], dict[str, np.ndarray]]:
    """Frames, uint8 [S, S, 3] one by one, and the labels of the prepared corpus, whole when the frames have run out."""
    phones = performance.phones
    kept = phones.starts < performance.frames / FRAME_RATE
    labels: dict[str, np.ndarray] = {
        "pose": performance.pose.numpy(),
        "phones": np.array(phones.names)[kept],
        "phone_times": np.stack([phones.starts, phones.ends], 1)[kept],
    }

    def frames() -> Iterator[np.ndarray]:
        landmarks, openings = [], []
        for first in range(0, performance.frames, _CHUNK):
            rendered = performance.render(slice(first, first + _CHUNK), size, device)
            landmarks.append(rendered.landmarks.float().cpu().numpy())
            openings.append(rendered.mouth_opening.float().cpu().numpy())
            yield from to_uint8(rendered.frames)
        labels["landmarks"], labels["mouth_opening"] = np.concatenate(landmarks), np.concatenate(openings)

    return frames(), labels


def to_uint8(frames: torch.Tensor) -> np.ndarray:  # [N, 3, H, W] in [-1, 1] -> uint8 [N, H, W, 3]
    """Frames as they lie on disk."""
    return ((frames.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().cpu().numpy()


def _claim(corpus: Corpus, folder: Path, layout: str) -> None:
    """Notes in the folder what the corpus is made from; SpeakError where it is another corpus's already."""
    config = corpus.config
    made_from = {"layout": layout, "seed": config.seed, "size": config.size, "seconds": config.seconds,
                 "voices": config.voices, "jpeg_quality": config.jpeg_quality,
                 "lifelike": config.lifelike}  # fmt: skip
    note = make_folder(folder) / SETTINGS
    if note.exists():
        try:
            before = {"lifelike": 0.0} | json.loads(note.read_text())  # which older corpora do not say
        except (OSError, ValueError, TypeError):
            raise SpeakError(f"{note}: cannot be read: use another folder") from None
        if before != made_from:
            changed = [name for name in made_from if before.get(name) != made_from[name]]
            raise SpeakError(f"{folder}: was made with another {', '.join(changed)}: use another folder")
        return
    if any(folder.iterdir()):
        raise SpeakError(f"{folder}: holds something else already: use another folder")
    with whole_file(note) as temporary:
        temporary.write_text(json.dumps(made_from) + "\n")


def write_prepared(corpus: Corpus, folder: Path, device: str = "cpu", workers: int = 1) -> int:
    """Writes or completes a prepared corpus; returns how many clips are new."""
    _claim(corpus, folder, "prepared")
    writer = PreparedWriter(folder, corpus.config.jpeg_quality)
    writer.remove_leftovers()
    clips = list(corpus.clips())
    known = {record.identity: record.split for record in writer.records.values()}
    splits = split_identities([clip.identity for clip in clips], known)
    missing = [clip for clip in clips if not writer.has(clip.name)]
    make = functools.partial(_make_prepared, corpus, folder, splits, device)
    try:
        with closing(_each(missing, make, workers, f"synth {folder}")) as records:
            for record in records:
                writer.add([record])
    finally:
        writer.remove_leftovers()
    return len(missing)


def _make_prepared(
    corpus: Corpus, folder: Path, splits: dict[str, str], device: str, clip: PlannedClip
) -> ClipRecord:
    performance = corpus.perform(clip)
    frames, labels = frames_and_labels(performance, corpus.config.size, device)
    record = ClipRecord(
        name=clip.name, identity=clip.identity, frames=performance.frames, emotion=EMOTIONS[clip.emotion],
        level=clip.level, split=splits[clip.identity], box_from="rendered",
    )  # fmt: skip
    return write_clip_files(folder, record, frames, performance.sound(), labels, corpus.config.jpeg_quality)


def write_mead(corpus: Corpus, folder: Path, device: str = "cpu", workers: int = 1) -> int:
    """Writes or completes a tree of MEAD's layout; returns how many clips are new.

    M003/video/front/EMOTION/level_L/001.mp4 without sound, M003/audio/EMOTION/level_L/001.m4a at 48 kHz stereo. A clip
    is there when both are; the sound is written last.
    """
    _claim(corpus, folder, "mead")
    for leftover in folder.rglob(".*.part*"):  # of a run that was killed
        leftover.unlink(missing_ok=True)
    missing = [clip for clip in corpus.clips() if not all(path.exists() for path in _mead_paths(folder, clip))]
    make = functools.partial(_make_mead, corpus, folder, device)
    with closing(_each(missing, make, workers, f"synth {folder}")) as made:
        return sum(1 for _ in made)


def _mead_paths(folder: Path, clip: PlannedClip) -> tuple[Path, Path]:
    """Of the video and of the sound."""
    place = Path(EMOTIONS[clip.emotion]) / f"level_{clip.level}" / f"{clip.take:03d}"
    person = folder / clip.identity
    return (person / "video" / "front" / place).with_suffix(".mp4"), (person / "audio" / place).with_suffix(".m4a")


def _make_mead(corpus: Corpus, folder: Path, device: str, clip: PlannedClip) -> None:
    from speak.media.video import write_video

    video, sound = _mead_paths(folder, clip)
    make_folder(video.parent)
    make_folder(sound.parent)
    performance = corpus.perform(clip)
    write_video(video, frames_and_labels(performance, corpus.config.size, device)[0])
    _write_m4a(sound, performance.sound())


def _each(clips: list[PlannedClip], make: Callable[[PlannedClip], Any], workers: int, what: str) -> Iterator[Any]:
    """What `make` returns for every clip, in order, with a progress bar."""
    bar = tqdm(total=len(clips), desc=what, unit="clip")
    if workers <= 1 or len(clips) <= 1:
        with bar:
            for clip in clips:
                yield make(clip)
                bar.update()
        return
    pool = ProcessPoolExecutor(min(workers, len(clips)), mp_context=get_context("spawn"), initializer=_start_worker)
    running: deque[Future] = deque()
    try:
        with bar:
            for clip in clips:
                running.append(pool.submit(make, clip))
                if len(running) >= 2 * workers:
                    yield running.popleft().result()
                    bar.update()
            while running:
                yield running.popleft().result()
                bar.update()
    except BrokenProcessPool:
        raise SpeakError("a process that rendered was ended (out of memory?): try fewer --workers") from None
    except BaseException:
        for process in list((pool._processes or {}).values()):
            process.terminate()  # their temporary files go with them
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    torch.set_num_threads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)  # the parent was killed: nobody wants this clip any more


def usual_workers(device: str) -> int:
    """One process a core; one alone where a GPU renders."""
    return 1 if device != "cpu" else len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1


def _write_m4a(path: Path, sound: np.ndarray) -> None:
    """AAC at 48 kHz stereo, as MEAD has it; whole or not at all."""
    from speak.media.audio import write_wav
    from speak.media.ffmpeg import Ffmpeg, file_argument

    with whole_file(path) as temporary:
        wav = Path(f"{temporary}.wav")
        try:
            write_wav(wav, sound)
            process = Ffmpeg(
                ["-y", "-i", file_argument(wav), "-ar", "48000", "-ac", "2", "-c:a", "aac", "-b:a", "192k",
                 "-f", "ipod", file_argument(temporary)],
                stdin=False, name=path,
            )  # fmt: skip
            if process.finish() != 0:
                raise SpeakError(f"{path}: not written ({process.complaint()})")
        finally:
            wav.unlink(missing_ok=True)


def write_preview(corpus: Corpus, folder: Path, device: str) -> list[Path]:
    """A sheet of people (rows) in the eight emotions (columns) while they speak, and the first clip with its sound."""
    from speak.media.image import write_image

    make_folder(folder)
    people = min(corpus.config.identities, 6)
    rows = []
    for number in tqdm(range(people), desc="preview", unit="person"):
        row = []
        for emotion in range(len(EMOTIONS)):
            performance = corpus.perform(PlannedClip(number, "", emotion, 1 if emotion == NEUTRAL else 3, 1))
            middle = torch.tensor([int(0.55 * performance.frames)])
            row.append(to_uint8(performance.render(middle, corpus.config.size, device).frames)[0])
        rows.append(np.concatenate(row, 1))
    sheet, video = folder / "preview.png", folder / "preview.mp4"
    write_image(sheet, np.concatenate(rows, 0))
    write_clip(corpus, next(corpus.clips()), video, device)
    return [sheet, video]


def write_clip(corpus: Corpus, clip: PlannedClip, path: Path, device: str = "cpu") -> None:
    """One clip as a video with its sound."""
    from speak.media.audio import write_wav
    from speak.media.video import VideoWriter

    performance, wav = corpus.perform(clip), path.with_name(f".{path.stem}.wav")
    try:
        write_wav(wav, performance.sound())
        with VideoWriter(path, audio=wav) as writer:
            for frame in frames_and_labels(performance, corpus.config.size, device)[0]:
                writer.write(frame)
    finally:
        wav.unlink(missing_ok=True)
