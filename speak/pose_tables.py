"""Head poses as numbers in a CSV or JSON file, brought to 30 frames/s by time.

CSV: a heading with some of yaw, pitch, roll (degrees), x, y, scale (image widths), and time (seconds) where rows are
not 30 a second; or no heading and 3 or 6 numbers a row. JSON: a list of such rows as lists or objects, or an object of
lists, with "fps" where it is not 30.
"""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from speak.config import FRAME_RATE, POSE_CENTRE, POSE_NAMES
from speak.errors import SpeakError
from speak.media.files import check_readable

TABLE_SUFFIXES = (".csv", ".json")
LONGEST_SECONDS = 12 * 3600


def read_poses(path: str | Path) -> Tensor:
    """The poses of a table, [N, 6] at 30 frames/s. What a table leaves out is 0, scale 1.

    Raises SpeakError: unreadable, no such numbers, a row that does not fit, times that do not rise.
    """
    path = check_readable(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (UnicodeDecodeError, OSError):
        raise SpeakError(f"{path}: is not text") from None
    rows, rate = _json_rows(path, text) if path.suffix.lower() == ".json" else (_csv_rows(path, text), None)
    if not rows:
        raise SpeakError(f"{path}: has no row of angles")
    poses = np.array([[_number(path, index, row, name) for name in POSE_NAMES] for index, row in enumerate(rows)])
    if "time" in rows[0]:
        times = np.array([_number(path, index, row, "time") for index, row in enumerate(rows)])
        if (np.diff(times) <= 0).any():
            raise SpeakError(f"{path}: its times do not rise at row {int(np.argmax(np.diff(times) <= 0)) + 2}")
        times = times - times[0]
    else:
        times = np.arange(len(rows)) / (rate or FRAME_RATE)
    if times[-1] > LONGEST_SECONDS:
        raise SpeakError(f"{path}: {times[-1]:g} seconds of poses are too many: times are in seconds")
    at = np.arange(int(math.floor(times[-1] * FRAME_RATE + 1e-6)) + 1) / FRAME_RATE
    return torch.tensor(np.stack([np.interp(at, times, column) for column in poses.T], 1), dtype=torch.float32)


def _csv_rows(path: Path, text: str) -> list[dict[str, Any]]:
    lines = [row for row in csv.reader(text.splitlines()) if any(cell.strip() for cell in row)]
    if not lines:
        return []
    heading = [cell.strip().lower() for cell in lines[0]]
    if _is_number(heading[0]):
        return [_named(path, index, row) for index, row in enumerate(lines)]
    _check_names(path, heading)
    for index, row in enumerate(lines[1:]):
        if len(row) != len(heading):
            raise SpeakError(f"{path}: row {index + 1} has {len(row)} columns, the heading {len(heading)}")
    return [dict(zip(heading, row, strict=True)) for row in lines[1:]]


def _json_rows(path: Path, text: str) -> tuple[list[dict[str, Any]], float | None]:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        raise SpeakError(f"{path}: is not JSON") from None
    rate = None
    if isinstance(content, dict):
        rate = content.pop("fps", None)
        if rate is not None and not (isinstance(rate, int | float) and 0 < rate <= 1000):
            raise SpeakError(f"{path}: \"fps\" should be a number of frames a second, is {rate!r}")
        columns = {str(name).lower(): values for name, values in content.items()}
        _check_names(path, list(columns))
        if not all(isinstance(values, list) for values in columns.values()):
            raise SpeakError(f"{path}: each of {', '.join(columns)} should be a list of numbers")
        if len({len(values) for values in columns.values()}) > 1:
            raise SpeakError(f"{path}: its lists are of different lengths")
        content = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    if not isinstance(content, list) or not all(isinstance(row, dict | list) for row in content):
        raise SpeakError(f"{path}: should be a list of rows of angles, or an object of lists")
    rows = []
    for index, row in enumerate(content):
        if isinstance(row, dict):
            row = {str(name).lower(): value for name, value in row.items()}
            _check_names(path, list(row))
            rows.append(row)
        else:
            rows.append(_named(path, index, row))
    return rows, rate


def _named(path: Path, index: int, row: list[Any]) -> dict[str, Any]:
    if len(row) not in (3, 6):
        raise SpeakError(f"{path}: row {index + 1} has {len(row)} numbers: yaw,pitch,roll or {','.join(POSE_NAMES)}")
    return dict(zip(POSE_NAMES, row, strict=False))


def _check_names(path: Path, names: list[str]) -> None:
    known = {*POSE_NAMES, "time"}
    unknown = [name for name in names if name not in known]
    if unknown or not {"yaw", "pitch", "roll"} & set(names):
        what = f"unknown column '{unknown[0]}'" if unknown else "no column of angles"
        raise SpeakError(f"{path}: {what}: columns are {', '.join(POSE_NAMES)} and time")


def _number(path: Path, index: int, row: dict[str, Any], name: str) -> float:
    default = None if name == "time" else POSE_CENTRE[POSE_NAMES.index(name)]
    try:
        value = float(row.get(name, default))
        if not math.isfinite(value):
            raise ValueError
        return value
    except (TypeError, ValueError):
        raise SpeakError(f"{path}: row {index + 1}: {name} is {row.get(name)!r}, not a number") from None


def _is_number(text: str) -> bool:
    try:
        float(text)
        return True
    except ValueError:
        return False
