"""One source of a corpus made into prepared clips: where the face is, which frames, which sound."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np

from speak.config import FRAME_RATE, PrepareConfig, sample_of_frame
from speak.datasets.corpora import Source, read_boxes
from speak.errors import SpeakError
from speak.media.audio import read_wav_samples, stream_audio, write_wav
from speak.media.face import already_cropped, crop, crop_box, find_face, given_box, whole_square
from speak.media.face_detection import LOOK_AT, Box, Face, best_detector
from speak.media.face_track import Chunk, Track, choose, chunks, every_frame, join
from speak.media.files import DiskFullError
from speak.media.image import read_image
from speak.media.prepared import ClipRecord, write_clip_files
from speak.media.video import VideoInfo, VideoReader, probe

# Of a detector whose boxes jump only the median is used: frames between two looks at least, and looks at most.
STEADY_EVERY, STEADY_LOOKS = 15, 40
ANNOTATION_RATE = 25  # frames/s of VoxCeleb's annotations


@dataclasses.dataclass(frozen=True)
class Made:
    """What became of one source."""

    records: list[ClipRecord]  # whole clips, not yet in the index
    notes: list[str]
    error: str | None = None
    disk_full: bool = False


@dataclasses.dataclass(frozen=True)
class _Plan:
    """Which frames with which crop. `divide`: one chunk without end, cut at the longest length while reading."""

    chunks: list[Chunk]
    found_by: str
    notes: list[str]
    divide: bool = False


def make_clips(
    source: Source,
    relative: str,  # the source's path in the index
    out: Path,  # the prepared corpus
    config: PrepareConfig,
    box: tuple[float, float, float, float] | None = None,  # the user's box of the head
    face: int | None = None,
    threads: int = 0,  # of ffmpeg's decoder
) -> Made:
    """Writes the clips of one source. Never raises SpeakError: the reason is in the result, and no file is left."""
    written: list[str] = []
    sound_file = out / "clips" / f".{source.name}.sound.part"
    try:
        if source.picture:
            return _make_picture(source, relative, out, config, box, face)
        info = probe(source.path)
        plan = _plan(source, info, config, box, face, threads)
        if not plan.chunks:
            return Made([], [], f"{source.path}: {'; '.join(plan.notes) or 'no face in one place long enough'}")
        sound = source.path if info.sound else source.sound
        if sound is not None:
            write_wav(sound_file, stream_audio(sound))
        records = []
        for number, (chunk, frames) in enumerate(_pieces(source.path, plan, config, threads)):
            name = f"{source.name}#{number:03d}" if number else source.name
            written.append(name)
            record = ClipRecord(
                name, source.identity, 0, source.emotion, source.level, source.view, source.split or "train",
                source=relative, start=chunk.first / FRAME_RATE, box=chunk.box, box_from=plan.found_by, chunk=number,
            )  # fmt: skip
            record = write_clip_files(out, record, frames, jpeg_quality=config.jpeg_quality)
            if sound is not None:
                begin = sample_of_frame(chunk.first)
                samples = read_wav_samples(sound_file, begin, begin + sample_of_frame(record.frames))
                write_wav(out / "clips" / f"{name}.wav", samples)
            records.append(dataclasses.replace(record, sound=sound is not None))
        records = [dataclasses.replace(record, chunks=len(records)) for record in records]
        return Made(records, plan.notes + ([] if sound else ["has no sound"]))
    except SpeakError as error:
        _remove(out, written)
        return Made([], [], str(error), isinstance(error, DiskFullError))
    except BaseException:
        _remove(out, written)
        raise
    finally:
        sound_file.unlink(missing_ok=True)


def _remove(out: Path, names: list[str]) -> None:
    for name in names:
        for suffix in (".zip", ".wav"):
            (out / "clips" / f"{name}{suffix}").unlink(missing_ok=True)


def _make_picture(
    source: Source, relative: str, out: Path, config: PrepareConfig,
    box: tuple[float, float, float, float] | None, face: int | None,
) -> Made:  # fmt: skip
    """A photograph becomes a clip of one frame without sound."""
    picture = read_image(source.path)
    found = find_face(picture, box, face, name=str(source.path), strict=False)
    record = ClipRecord(
        source.name, source.identity, 0, source.emotion, source.level, source.view, source.split or "train",
        source=relative, box=found.box, box_from=found.how,
    )  # fmt: skip
    frames = [crop(picture, found.box, config.size)]
    return Made([write_clip_files(out, record, frames, jpeg_quality=config.jpeg_quality)], [])


def _plan(
    source: Source, info: VideoInfo, config: PrepareConfig,
    box: tuple[float, float, float, float] | None, face: int | None, threads: int,
) -> _Plan:  # fmt: skip
    """Boxes from the corpus's annotation, the user, a detector, else the input is taken as cropped."""
    width, height = info.width, info.height

    def fixed(square: tuple[int, int, int, int], how: str, notes: list[str] | None = None) -> _Plan:
        return _Plan([Chunk(0, None, square)], how, notes or [], divide=True)

    if source.cropped:
        return fixed(whole_square(width, height), "cropped by the corpus")
    # VoxCeleb2's own clips are cut out already: its annotation is of the original videos, which are not square
    if source.boxes is not None and width != height:
        first, boxes = _annotated(source.boxes, info)
        kept, dropped = chunks(first, boxes, width, height, config)
        return _Plan(kept, "annotation", dropped)
    if source.crop is not None and (width, height) != source.crop[2:]:
        x, y, w, h = source.crop
        if x + w <= width and y + h <= height and w > 1 and h > 1:
            return fixed((x, y, w, h), "annotation")
    if box is not None:
        return fixed(crop_box(given_box(box, width, height, str(source.path)), width, height), "given box")
    detector = best_detector()
    every = config.detect_every if detector.tracks else STEADY_EVERY
    if info.duration is not None:  # the shortest clips are looked at as well
        frames = info.duration * FRAME_RATE
        every = max(1, min(every, int(frames / 2))) if detector.tracks or frames < STEADY_EVERY * STEADY_LOOKS else (
            int(frames / STEADY_LOOKS))
    found = list(_detections(source.path, info, every, threads))
    tracks = join(found)
    track = choose(tracks, face)
    if track is None and face is not None and tracks:
        raise SpeakError(f"{source.path}: has no face {face}, {detector.name} finds {len(tracks)}")
    if track is None:
        notes = [f"no face found by the {detector.name}: taken whole"]
        return fixed(whole_square(width, height), "whole picture", notes)
    if not detector.tracks:
        return _steady(track, found, fixed, info, detector.name)
    frames = len(found) * every
    first, boxes = every_frame(track, frames, FRAME_RATE)
    kept, notes = chunks(first, boxes, width, height, config)
    missing = len(boxes) / every - len(track.times)
    if missing >= 1:
        notes.append(f"no face in {missing:.0f} of {len(boxes) // every} frames looked at: filled in")
    if kept and (kept[-1].stop or 0) >= frames - every:
        kept[-1] = dataclasses.replace(kept[-1], stop=None)  # how many frames there are shows when they are read
    return _Plan(kept, detector.name, notes)


def _steady(track: Track, found: list, fixed: Callable[..., _Plan], info: VideoInfo, name: str) -> _Plan:
    """One crop for all of the clip, the median of a track whose single boxes are not to be relied on."""
    share = len(track.boxes) / len(found)
    if share < 0.5:
        notes = [f"a face in only {100 * share:.0f} % of the frames that the {name} looked at: taken whole"]
        return fixed(whole_square(info.width, info.height), "whole picture", notes)
    middle = np.median([(box.x, box.y, box.w, box.h) for box in track.boxes], axis=0)
    square = crop_box(Box(*middle), info.width, info.height)
    if already_cropped(square, info.width, info.height, exact=False):
        return fixed(whole_square(info.width, info.height), "whole picture")
    return fixed(square, name)


def _detections(
    path: Path, info: VideoInfo, every: int, threads: int
) -> Iterator[tuple[float, list[Face]]]:
    """Times and faces, in pixels of the video as shown, of every `every`th frame."""
    factor = max(1.0, max(info.width, info.height) / LOOK_AT)
    size = (max(1, round(info.width / factor)), max(1, round(info.height / factor))) if factor > 1 else None
    detector = best_detector()
    rate = Fraction(FRAME_RATE, every)
    with VideoReader(path, rate, size=size, threads=threads, rough=True) as reader:
        for index, frame in enumerate(reader):
            faces = [Face(found.box.scaled(factor), found.confidence) for found in detector.find(frame)]
            yield index / float(rate), faces


def _annotated(path: Path, info: VideoInfo) -> tuple[int, np.ndarray]:
    """VoxCeleb's boxes for each frame at our rate: the first frame and [N, 4] in pixels.

    Frames are counted in the original video; in a file that holds one utterance only, from its start.
    """
    numbers, boxes = read_boxes(path)
    if info.duration is not None and numbers[-1] > (info.duration + 1) * ANNOTATION_RATE:
        numbers = numbers - numbers[0]
    if boxes.max() <= 2:  # VoxCeleb2: shares of the picture
        boxes = boxes * [info.width, info.height, info.width, info.height]
    times = numbers / ANNOTATION_RATE
    first = int(np.ceil(times[0] * FRAME_RATE - 1e-6))
    stop = int(np.floor((times[-1] + 1 / ANNOTATION_RATE) * FRAME_RATE + 1e-6))
    at = np.arange(first, max(stop, first + 1)) / FRAME_RATE
    return first, np.stack([np.interp(at, times, boxes[:, column]) for column in range(4)], axis=1)


def _pieces(
    path: Path, plan: _Plan, config: PrepareConfig, threads: int
) -> Iterator[tuple[Chunk, Iterator[np.ndarray]]]:
    """Each chunk with its frames, which must be taken before the next chunk is asked for."""
    size = (config.size, config.size)
    for chunk in plan.chunks:
        count = None if chunk.stop is None else chunk.stop - chunk.first
        with VideoReader(path, start=chunk.first, frames=count, box=chunk.box, size=size, threads=threads) as reader:
            frames = iter(reader)
            if not plan.divide:
                yield chunk, frames
                continue
            first = 0
            while True:
                # a piece too short is known by its first frames; a clip that stays whole may be shorter
                shortest = config.shortest_chunk if first else config.shortest_clip
                head = list(itertools.islice(frames, min(shortest, config.longest_chunk)))
                if not head or len(head) < shortest:
                    if not first:
                        raise SpeakError(f"{path}: only {len(head)} frames, {shortest} are wanted")
                    break
                rest = itertools.islice(frames, config.longest_chunk - len(head))
                yield dataclasses.replace(chunk, first=first), itertools.chain(head, rest)
                first += config.longest_chunk
