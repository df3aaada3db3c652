"""Faces over time: detections joined to tracks, gaps filled in, a track cut into chunks with one fixed crop each."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import numpy as np

from speak.config import PrepareConfig
from speak.media.face import already_cropped, crop_box, whole_square
from speak.media.face_detection import Box, Face

SAME_FACE = 0.2  # IoU with the track's last box from which a detection continues it
FORGOTTEN = 2.0  # seconds after which a face elsewhere is another track
HOLD = 1.0  # seconds that a track is held beyond its first and last detection, to the clip's ends only


@dataclasses.dataclass
class Track:
    """One face's detections."""

    times: list[float]  # seconds
    boxes: list[Box]

    def size(self) -> float:
        """Sum of the boxes' areas: how much of the clip the face has."""
        return sum(box.w * box.h for box in self.boxes)


@dataclasses.dataclass(frozen=True)
class Chunk:
    """Frames first:stop of a video with one crop."""

    first: int
    stop: int | None  # None: to the end
    box: tuple[int, int, int, int]


def join(detections: Iterable[tuple[float, list[Face]]]) -> list[Track]:
    """Tracks of the faces found at successive times (seconds); a face missing for a while goes on where it was."""
    tracks: list[Track] = []
    for time, faces in detections:
        pairs = sorted(
            ((track.boxes[-1].iou(face.box), index, number)
             for index, track in enumerate(tracks) for number, face in enumerate(faces)
             if time - track.times[-1] <= FORGOTTEN or track.boxes[-1].iou(face.box) > 0.5),
            reverse=True,
        )  # fmt: skip
        used_tracks: set[int] = set()
        used_faces: set[int] = set()
        for overlap, index, number in pairs:
            if overlap > SAME_FACE and index not in used_tracks and number not in used_faces:
                tracks[index].times.append(time)
                tracks[index].boxes.append(faces[number].box)
                used_tracks.add(index)
                used_faces.add(number)
        tracks += [Track([time], [face.box]) for number, face in enumerate(faces) if number not in used_faces]
    return tracks


def choose(tracks: list[Track], face: int | None = None) -> Track | None:
    """The largest track, or number `face` of the notable ones, from 1, from left to right; None: no such track."""
    if not tracks:
        return None
    largest = max(tracks, key=Track.size)
    if face is None:
        return largest
    notable = [track for track in tracks if track.size() >= 0.1 * largest.size()]
    notable.sort(key=lambda track: float(np.mean([box.x + box.w / 2 for box in track.boxes])))
    return notable[face - 1] if 1 <= face <= len(notable) else None


def every_frame(track: Track, frames: int, rate: float) -> tuple[int, np.ndarray]:
    """The first frame that the track covers and its boxes [N, 4] from there on, interpolated between detections."""
    times = np.array(track.times)
    boxes = np.array([(box.x, box.y, box.w, box.h) for box in track.boxes])
    first = 0 if times[0] <= HOLD else round(times[0] * rate)
    last = frames - 1 if times[-1] >= (frames - 1) / rate - HOLD else round(times[-1] * rate)
    at = np.arange(first, min(last, frames - 1) + 1) / rate
    return first, np.stack([np.interp(at, times, boxes[:, column]) for column in range(4)], axis=1)


def chunks(
    first: int,  # frame of boxes[0]
    boxes: np.ndarray,  # [N, 4] x, y, w, h, a row a frame
    width: int,
    height: int,
    config: PrepareConfig,
) -> tuple[list[Chunk], list[str]]:
    """The crop rule: a new chunk where the IoU with the chunk's first box falls below `same_place` or at
    `longest_chunk` frames; the union of a chunk's boxes is cropped. Dropped with a reason: chunks too short, faces too
    small. Crops that keep most of a square picture keep all of it."""
    kept, dropped, start = [], [], 0
    rows = [Box(*(float(value) for value in row)) for row in boxes]
    for index in range(1, len(rows) + 1):
        whole = start == 0 and index == len(rows)
        cut = index == len(rows) or index - start >= config.longest_chunk
        if not cut and rows[start].iou(rows[index]) >= config.same_place:
            continue
        union = rows[start]
        for row in rows[start + 1 : index]:
            union = union.union(row)
        crop = crop_box(union, width, height, config.grow)
        count, face = index - start, max(union.w, union.h)
        if count < (config.shortest_clip if whole else config.shortest_chunk):
            dropped.append(f"frames {first + start} to {first + index - 1}: only {count} frames in one place")
        elif face < config.smallest_face and not already_cropped(crop, width, height):
            dropped.append(f"frames {first + start} to {first + index - 1}: the face has only {face:.0f} pixels")
        else:
            box = whole_square(width, height) if already_cropped(crop, width, height) else crop
            kept.append(Chunk(first + start, first + index, box))
        start = index
    return kept, dropped
