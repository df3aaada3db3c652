"""`animate --batch FILE.csv`: a video a row, made one after the other with the model loaded once.

Columns are photo, speech and out, and any of pose, emotion, box, face, pose_strength, pose_mode, emotion_strength,
driver_end, paste_back, seed; an empty cell takes the command line's option. Paths count from the table's own folder.
"""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path
from typing import Any

from speak.drivers import is_label
from speak.errors import SpeakError
from speak.media.face import parse_box
from speak.media.files import check_readable

NEEDED = ("photo", "speech", "out")
NOTHING = ("", "-", "none")  # stand for an input that is not given


@dataclasses.dataclass(frozen=True)
class Job:
    """One video to be made: the arguments of `TalkingHead.animate`, and where it goes."""

    photo: str
    speech: str
    pose: str | None
    emotion: str | None
    out: str
    box: tuple[float, float, float, float] | None = None
    face: int | None = None
    pose_strength: float = 1.0
    pose_mode: str = "relative"
    emotion_strength: float = 1.0
    driver_end: str = "pingpong"
    paste_back: bool = False
    seed: int = 0

    def arguments(self) -> dict[str, Any]:
        """Of `animate`, without photo and speech."""
        values = dataclasses.asdict(self)
        return {name: value for name, value in values.items() if name not in NEEDED}


def read_batch(path: str | Path, options: dict[str, Any]) -> list[Job]:
    """The jobs of a table; `options` are those of the command line, for empty cells and missing columns.

    Raises SpeakError: unreadable, an unknown column, a needed cell empty, a value that does not fit, one out twice.
    """
    path = check_readable(path)
    try:
        rows = list(csv.reader(path.read_text(encoding="utf-8-sig").splitlines()))
    except (UnicodeDecodeError, csv.Error, OSError):
        raise SpeakError(f"{path}: is not a table of commas and text") from None
    rows = [row for row in rows if any(cell.strip() for cell in row)]
    names = [field.name for field in dataclasses.fields(Job)]
    heading = [cell.strip().lower() for cell in rows[0]] if rows else []
    unknown = [name for name in heading if name not in names]
    missing = [name for name in NEEDED if name not in heading]
    if unknown or missing:
        what = f"unknown column '{unknown[0]}'" if unknown else f"no column '{missing[0]}'"
        raise SpeakError(f"{path}: {what}: the first row names columns out of {', '.join(names)}")
    jobs = []
    for number, row in enumerate(rows[1:], 1):
        if len(row) != len(heading):
            raise SpeakError(f"{path}: row {number} has {len(row)} columns, the heading {len(heading)}")
        cells = {name: cell.strip() for name, cell in zip(heading, row, strict=True)}
        jobs.append(_job(f"{path}: row {number}", cells, path.parent, options))
    if not jobs:
        raise SpeakError(f"{path}: has no row after its heading")
    outs = [str(Path(job.out).resolve()) for job in jobs]
    for out in outs:
        if outs.count(out) > 1:
            raise SpeakError(f"{path}: two rows write {out}")
    return jobs


def _job(where: str, cells: dict[str, str], folder: Path, options: dict[str, Any]) -> Job:
    values = dict(options)
    for name, cell in cells.items():
        if name in NEEDED and not cell:
            raise SpeakError(f"{where}: no {name}")
        if not cell:
            continue
        try:
            values[name] = _value(name, cell, folder)
        except (ValueError, KeyError):
            raise SpeakError(f"{where}: {name} '{cell}' does not fit") from None
    return Job(**values)


def _value(name: str, cell: str, folder: Path) -> Any:
    if name in ("pose", "emotion") and cell.lower() in NOTHING:
        return None
    if name in (*NEEDED, "pose", "emotion"):
        return cell if name == "emotion" and is_label(cell) else str(folder / cell)
    if name == "box":
        return parse_box(cell.replace(" ", ",").replace(";", ","))
    if name in ("face", "seed"):
        return int(cell)
    if name == "paste_back":
        return {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}[cell.lower()]
    return cell if name in ("driver_end", "pose_mode") else float(cell)
