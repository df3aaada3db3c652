"""The four corpora as they lie on disks, and plain folders: which files there are and what is known of each.

Nothing is decoded here; `speak.prepare` does that. A layout is a function from a folder to `Source`s, in `LAYOUTS`.
"""

from __future__ import annotations

import csv
import dataclasses
import re
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from speak.config import EMOTIONS
from speak.errors import SpeakError
from speak.media.files import check_readable
from speak.media.image import SUFFIXES as PICTURE_SUFFIXES
from speak.media.prepared import safe_name

VIDEO_SUFFIXES = (".mp4", ".mov", ".avi", ".mkv", ".webm", ".flv", ".mpg", ".mpeg", ".m4v", ".wmv", ".3gp", ".mts")
SOUND_SUFFIXES = (".wav", ".m4a", ".aac", ".mp3", ".flac", ".ogg", ".opus", ".aif", ".aiff", ".wma")

_SHORT = {"ang": "angry", "con": "contempt", "dis": "disgusted", "fea": "fear", "hap": "happy", "neu": "neutral",
          "sad": "sad", "sur": "surprised"}  # fmt: skip
_CREMAD_LEVEL = {"lo": 1, "md": 2, "hi": 3, "xx": None}


@dataclasses.dataclass(frozen=True)
class Source:
    """One video (or picture) of a corpus and what its place and name say of it."""

    name: str  # of the clip, or of the clips' common part
    path: Path
    identity: str
    emotion: str | None = None
    level: int | None = None
    view: str = "front"
    split: str | None = None  # None: decided by `split_identities`
    sound: Path | None = None  # a sound file of its own, used where the video has none
    boxes: Path | None = None  # VoxCeleb's annotation of the face in every frame
    crop: tuple[int, int, int, int] | None = None  # HDTF's: the square to cut out of the original video
    picture: bool = False
    cropped: bool = False  # the corpus has been through the crop rule


@dataclasses.dataclass(frozen=True)
class Listing:
    """What a layout found."""

    sources: list[Source]
    left_out: list[tuple[str, str]]  # path and reason


def read_corpus(folder: str | Path, layout: str) -> Listing:
    """Lists the sources of a corpus. Raises SpeakError: no such folder or layout, or nothing of that layout in it."""
    folder = Path(folder)
    if layout not in LAYOUTS:
        raise SpeakError(f"unknown layout '{layout}': choose from {', '.join(LAYOUTS)}")
    if not folder.is_dir():
        raise SpeakError(f"{folder}: no such folder of videos")
    listing = LAYOUTS[layout](folder)
    if not listing.sources:
        raise SpeakError(f"{folder}: nothing that looks like the layout '{layout}'"
                         + ("" if layout == "folder" else ": try --layout folder"))  # fmt: skip
    names: dict[str, Source] = {}
    doubles = []
    for source in sorted(listing.sources, key=lambda source: str(source.path)):
        if source.name in names:
            doubles.append((str(source.path), f"the same clip as {names[source.name].path}"))
        else:
            names[source.name] = source
    return Listing(list(names.values()), sorted(listing.left_out + doubles))


def emotion_of(word: str) -> str | None:
    """One of EMOTIONS for a word in any of the corpora's ways (ANG, fear, Disgust, ...); None for another word."""
    return _SHORT.get(word.lower()[:3]) if word.lower() in _EMOTION_WORDS else None


_EMOTION_WORDS = {*_SHORT, *EMOTIONS, "disgust", "fearful", "happiness", "sadness", "surprise", "anger"}


def _voxceleb(folder: Path) -> Listing:
    """`mp4/ID/YTID/UTT.mp4` with `txt/...` and `aac/...`, or `{train,test}/ID#YTID#UTT.txt#000.mp4` and the like."""
    files = _files(folder, VIDEO_SUFFIXES)
    sounds = {path.with_suffix("").parts[-3:]: path for path in _files(folder, SOUND_SUFFIXES)}
    boxes = {path.with_suffix("").parts[-3:]: path for path in _files(folder, (".txt",)) if _is_vox(path.parts[-3:])}
    sources, left_out, whole = [], [], {}
    for path in files:
        flat = path.name.split("#")
        if len(flat) > 2 and re.fullmatch(r"id\d{5}", flat[0]):
            split = next((part for part in reversed(path.parent.parts) if part in ("train", "test")), None)
            sources.append(Source(safe_name(path.stem), path, flat[0], split=split or _vox1_split(flat[0]),
                                  cropped=True))
        elif _is_vox(path.parts[-3:]):
            key = path.with_suffix("").parts[-3:]
            sources.append(Source(
                safe_name("#".join(key)), path, key[0], split=_vox1_split(key[0]), sound=sounds.get(key),
                boxes=boxes.get(key),
            ))  # fmt: skip
        else:
            whole[path.stem] = path
    cut = {source.boxes for source in sources}
    for key, annotation in boxes.items():  # whole videos as downloaded, cut by their annotations
        if annotation not in cut and key[1] in whole:
            name = safe_name("#".join(key))
            sources.append(Source(name, whole[key[1]], key[0], split=_vox1_split(key[0]), boxes=annotation))
    used = {source.path for source in sources}
    left_out = [(str(path), "its name and place are none of VoxCeleb's") for path in whole.values() if path not in used]
    return Listing(sources, left_out)


def read_boxes(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """VoxCeleb's annotation: six lines of header, then FRAME X Y W H at 25 frames/s.

    Returns the frame numbers [N] and the boxes [N, 4]: in pixels, or as shares of the picture where none is above 2.
    Raises SpeakError where there is no such line.
    """
    rows = []
    for line in check_readable(path).read_text(errors="replace").splitlines():
        fields = line.split()
        try:
            rows.append([float(field) for field in fields] if len(fields) == 5 else [])
        except ValueError:
            continue
    table = np.array([row for row in rows if row and np.isfinite(row).all() and min(row[3:]) > 0]).reshape(-1, 5)
    if not len(table):
        raise SpeakError(f"{path}: has no line FRAME X Y W H")
    table = table[np.argsort(table[:, 0], kind="stable")]
    return table[:, 0], table[:, 1:]


def _is_vox(parts: Iterable[str]) -> bool:
    parts = tuple(parts)
    return len(parts) == 3 and re.fullmatch(r"id\d{5}", parts[0]) is not None


def _vox1_split(identity: str) -> str | None:
    """VoxCeleb1's official test people are id10270 to id10309; others are divided by us, never into `test` by name."""
    return "test" if "id10270" <= identity <= "id10309" else None


def _mead(folder: Path) -> Listing:
    """`M003/video/VIEW/EMOTION/level_L/001.mp4` (also `1` or `2` for `video`, or without it), or flat names."""
    sources, left_out = [], []
    # the sound lies apart by emotion, level and take, the same for all views
    root = Path(folder.resolve().name)  # the folder may be one person's
    sounds = {_mead_key(root / path.relative_to(folder)): path for path in _files(folder, SOUND_SUFFIXES)}
    for path in _files(folder, VIDEO_SUFFIXES):
        key = _mead_key(root / path.relative_to(folder))
        if key is None or key[1] is None:
            left_out.append((str(path), "its name and place are none of MEAD's"))
            continue
        identity, emotion, level, take, view = key
        name = safe_name(f"{identity}#{view}#{emotion}#level_{level}#{take}")
        sound = sounds.get(key) or sounds.get((*key[:4], "front"))
        sources.append(Source(name, path, identity, emotion, level, view, sound=sound))
    return Listing(sources, left_out)


def _mead_key(path: Path) -> tuple[str, str | None, int | None, str, str] | None:
    """identity, emotion, level, take and view from a path below the corpus; None where there is no identity."""
    words = [word for part in path.with_suffix("").parts for word in _mead_words(part)]
    identity = next((word for word in words if re.fullmatch(r"[MW]\d{3,}", word)), None)
    if identity is None:
        return None
    view = next((word for word in words if re.fullmatch(r"front|down|top|(left|right)_(30|60)", word)), "front")
    emotion = next((found for word in words if (found := emotion_of(word))), None)
    numbers = [word for word in words if re.fullmatch(r"\d{3,}", word)]
    level = next((int(word[-1]) for word in words if re.fullmatch(r"level_?[1-3]", word)), None)
    if level is None:  # flat: M003_neu_1_001
        level = next((int(word) for word in words[1:] if re.fullmatch(r"[1-3]", word)), None)
    return identity, emotion, level, numbers[-1] if numbers else path.stem, view


def _mead_words(part: str) -> list[str]:
    """A path's part as words: `M003#angry#level_1#001`, `M003_neu_1_001`, `level_1` and `left_30` stay whole."""
    words = []
    for piece in part.split("#"):
        words += re.findall(r"level_?\d|(?:left|right)_\d\d|[A-Za-z0-9]+", piece)
    return words


def _cremad(folder: Path) -> Listing:
    """`VideoFlash/1001_DFA_ANG_XX.flv` and `AudioWAV/1001_DFA_ANG_XX.wav`."""
    sounds = {path.stem.upper(): path for path in _files(folder, SOUND_SUFFIXES)}
    sources, left_out = [], []
    for path in _files(folder, VIDEO_SUFFIXES):
        match = re.fullmatch(r"(\d{4})_([A-Z]{3})_([A-Z]{3})_(LO|MD|HI|XX?)", path.stem, re.IGNORECASE)
        emotion = emotion_of(match[3]) if match else None
        if match is None or emotion is None:
            left_out.append((str(path), "its name is none of CREMA-D's"))
            continue
        level = _CREMAD_LEVEL.get(match[4].lower())
        sound = sounds.get(path.stem.upper())
        sources.append(Source(safe_name(path.stem), path, match[1], emotion, level, sound=sound))
    return Listing(sources, left_out)


def _hdtf(folder: Path) -> Listing:
    """`RD_Radio1_000.mp4` with the sound apart, `RD_Radio1_000#1.mp4`, or originals with the crop lists."""
    crops: dict[str, tuple[int, int, int, int]] = {}
    for path in _files(folder, (".txt",)):
        kind = re.fullmatch(r"(RD|WDA|WRA)_crop_wh", path.stem)
        for line in path.read_text(errors="replace").splitlines() if kind else []:
            fields = line.split()
            if kind and len(fields) == 5 and all(re.fullmatch(r"\d+", field) for field in fields[1:]):
                x, y, w, h = (int(field) for field in fields[1:])
                name, _, number = Path(fields[0]).stem.rpartition("_")
                for prefix in ("", kind[1] + "_"):
                    crops[f"{prefix}{name}_{int(number) if number.isdigit() else number}"] = (x, y, w, h)
    sounds = {path.stem: path for path in _files(folder, SOUND_SUFFIXES)}
    sources = []
    for path in _files(folder, VIDEO_SUFFIXES):
        piece, _, _ = path.stem.partition("#")
        person, _, number = piece.rpartition("_")
        if not (person and number.isdigit()):
            person, number = piece, ""
        crop = crops.get(f"{person}_{int(number)}") if number else None
        sources.append(Source(safe_name(path.stem), path, person, sound=sounds.get(path.stem), crop=crop))
    return Listing(sources, [])


def _folder(folder: Path) -> Listing:
    """Any videos and pictures: the identity is the sub-folder, or the file where there is none; `labels.csv` rules."""
    labels = _read_labels(folder)
    sounds = {path.with_suffix(""): path for path in _files(folder, SOUND_SUFFIXES)}
    sources: list[Source] = []
    left_out = []
    for path in _files(folder, VIDEO_SUFFIXES + PICTURE_SUFFIXES):
        place = path.relative_to(folder)
        known = labels.get(place.as_posix(), labels.get(place.name, labels.get(place.stem, {})))
        identity = known.get("identity") or (place.parts[0] if len(place.parts) > 1 else place.stem)
        sources.append(Source(
            safe_name(place.as_posix()), path, identity, known.get("emotion"), known.get("level"),
            known.get("view") or "front", known.get("split"), sounds.pop(path.with_suffix(""), None),
            picture=path.suffix.lower() in PICTURE_SUFFIXES,
        ))  # fmt: skip
    left_out = [(str(path), "a sound without a video of the same name") for path in sounds.values()]
    return Listing(sources, left_out)


def _read_labels(folder: Path) -> dict[str, dict]:
    """`labels.csv`: columns file, identity, emotion, level, view, split; all but file may be empty or missing."""
    path = folder / "labels.csv"
    if not path.exists():
        return {}
    labels = {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            for number, row in enumerate(csv.DictReader(file), 2):
                values = {key.strip().lower(): (value or "").strip() for key, value in row.items()
                          if isinstance(key, str) and not isinstance(value, list)}  # fmt: skip
                if not values.get("file"):
                    raise SpeakError(f"{path}: line {number} names no file (columns file, identity, emotion, ...)")
                emotion, level, split = values.get("emotion"), values.get("level"), values.get("split")
                if emotion and emotion_of(emotion) is None:
                    raise SpeakError(f"{path}: line {number}: no emotion '{emotion}': one of {', '.join(EMOTIONS)}")
                if level and level not in ("1", "2", "3"):
                    raise SpeakError(f"{path}: line {number}: the level is 1, 2 or 3, not '{level}'")
                if split and split not in ("train", "val", "test"):
                    raise SpeakError(f"{path}: line {number}: the split is train, val or test, not '{split}'")
                labels[values["file"].replace("\\", "/")] = {
                    "identity": values.get("identity"), "view": values.get("view"), "split": split or None,
                    "emotion": emotion_of(emotion) if emotion else None, "level": int(level) if level else None,
                }  # fmt: skip
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SpeakError(f"{path}: cannot be read as CSV ({error})") from None
    return labels


def _files(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """All files below `folder` with one of `suffixes`, sorted; hidden files and folders are not looked at."""
    found = []
    for path in folder.rglob("*"):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if path.suffix.lower() in suffixes and not hidden and not path.is_dir():
            found.append(path)
    return sorted(found)


LAYOUTS: dict[str, Callable[[Path], Listing]] = {
    "voxceleb": _voxceleb,
    "mead": _mead,
    "cremad": _cremad,
    "hdtf": _hdtf,
    "folder": _folder,
}
