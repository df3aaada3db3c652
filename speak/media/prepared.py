"""The prepared corpus, written and read: a folder with `index.jsonl` and, for each clip, files under `clips/`.

    index.jsonl       a line of JSON a clip, the fields of `ClipRecord`; a line is added only when its files are whole
    clips/NAME.zip    stored, not deflated: JPEG frames 000000.jpg, 000001.jpg, ... of one size
    clips/NAME.wav    16 kHz mono 16 bit, exactly `sample_of_frame(frames)` samples; absent where there is no sound
    clips/NAME.npz    exact labels where they exist: landmarks [N, 68, 2] in pixels, pose [N, 6] (`POSE_NAMES`),
                      mouth_opening [N], phones [P] (text), phone_times [P, 2] (start and end in seconds)
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
import re
import zipfile
import zlib
from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from speak.config import EMOTIONS, FRAME_RATE, SAMPLE_RATE, PrepareConfig, sample_of_frame
from speak.errors import SpeakError
from speak.media.audio import read_wav_samples, write_wav
from speak.media.files import check_readable, make_folder, one_line, whole_file, write_error

INDEX = "index.jsonl"
SPLITS = ("train", "val", "test")
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the zip format's zero: the same frames give the same bytes


@dataclasses.dataclass(frozen=True)
class ClipRecord:
    """One line of the index."""

    name: str  # file name of the clip without suffix, unique in the corpus
    identity: str
    frames: int
    emotion: str | None = None  # one of EMOTIONS
    level: int | None = None  # 1 to 3
    view: str = "front"
    split: str = "train"  # train, val or test; by identity
    fps: int = FRAME_RATE
    sample_rate: int = SAMPLE_RATE
    sound: bool = True  # False: no .wav
    labels: bool = False  # True: there is an .npz
    source: str = ""  # the video it was made from, relative to the corpus's root, for metrics at its own frame rate
    start: float = 0.0  # where in the source the clip starts, seconds
    box: tuple[int, int, int, int] | None = None  # x, y, w, h of the crop in pixels of the source
    box_from: str = ""  # how the face was found
    chunk: int = 0  # this clip is number `chunk` of `chunks` cut from one piece of the corpus; from 1 on the name
    chunks: int = 1  # ends in #001, ...

    @property
    def piece(self) -> str:
        """The name of the piece of the corpus that this clip was cut from: its own, or its first neighbour's."""
        return self.name.rpartition("#")[0] if self.chunk else self.name


def safe_name(text: str) -> str:
    """`text` (a relative path, say) as a file name that every system takes: letters, digits, `_ - # .`."""
    name = re.sub(r"[^\w\-#.]+", "_", text.replace("\\", "/").replace("/", "#"), flags=re.ASCII).strip("._")
    if name != text.replace("/", "#") or len(name) > 150:  # something was lost: keep names apart by a short digest
        name = f"{name[:140]}_{hashlib.sha256(text.encode()).hexdigest()[:8]}"
    return name


def split_identities(identities: Iterable[str], known: Mapping[str, str] | None = None) -> dict[str, str]:
    """Identity -> split, the same for the same names in any order: a tenth each, and from three people on at least
    one person each, to `val` and `test`. `known` holds what was decided before and stays."""
    known = dict(known or {})
    names = sorted(set(identities), key=lambda name: hashlib.sha256(name.encode()).digest())
    share = max(1, round(len(names) / 10)) if len(names) >= 3 else 0
    missing = {split: share - sum(known.get(name) == split for name in names) for split in ("test", "val")}
    for name in names:
        if name not in known:
            known[name] = next((split for split in ("test", "val") if missing[split] > 0), "train")
            if known[name] in missing:
                missing[known[name]] -= 1
    return {name: known[name] for name in names}


class PreparedWriter:
    """Writes a prepared corpus, and goes on with one that exists.

    `write_files` may run in any process; `add` (the index) belongs to one. `write` does both.

    Args:
        folder: the corpus; made where it is missing.
        jpeg_quality: Pillow's quality of the frames (4:2:0 chroma below 95, 4:4:4 from 95 on).
    """

    def __init__(self, folder: str | Path, jpeg_quality: int = PrepareConfig().jpeg_quality) -> None:
        self.folder = make_folder(folder)
        self.jpeg_quality = jpeg_quality
        make_folder(self.folder / "clips")
        self.records: dict[str, ClipRecord] = {}
        index = self.folder / INDEX
        if index.exists():
            content = check_readable(index).read_bytes() if index.stat().st_size else b""
            whole = content[: content.rfind(b"\n") + 1]
            if whole != content:  # an interrupted write: the line's clip is made again
                with index.open("rb+") as file:
                    file.truncate(len(whole))
            self.records = {record.name: record for record in _parse_index(index, whole)}

    def remove_leftovers(self) -> None:
        """Removes temporary files of runs that were killed; only where no other process writes to the corpus."""
        for path in (self.folder / "clips").glob(".*.part"):
            path.unlink(missing_ok=True)

    def has(self, name: str) -> bool:
        """True when clip `name` is in the index, so whole."""
        return name in self.records

    def write(
        self,
        record: ClipRecord,  # its `frames`, `sound` and `labels` are set here
        frames: Iterable[np.ndarray],  # each uint8 [H, W, 3] RGB, all of one size
        audio: np.ndarray | None = None,  # float [samples] in [-1, 1] at 16 kHz; trimmed or padded to the frames
        labels: Mapping[str, np.ndarray] | None = None,
    ) -> ClipRecord:
        """Writes one clip's files and then its line. Returns the record as it stands in the index."""
        record = self.write_files(record, frames, audio, labels)
        self.add([record])
        return record

    def write_files(
        self,
        record: ClipRecord,
        frames: Iterable[np.ndarray],
        audio: np.ndarray | None = None,
        labels: Mapping[str, np.ndarray] | None = None,
    ) -> ClipRecord:
        """Writes the files of one clip, each whole or not at all, and leaves the index alone."""
        return write_clip_files(self.folder, record, frames, audio, labels, self.jpeg_quality)

    def add(self, records: Iterable[ClipRecord]) -> None:
        """Adds lines to the index in one write. The clips' files must be whole by now."""
        records = list(records)
        lines = "".join(json.dumps(dataclasses.asdict(record), ensure_ascii=False) + "\n" for record in records)
        index = self.folder / INDEX
        try:
            with index.open("ab", buffering=0) as file:
                size = file.tell()
                try:
                    if file.write(lines.encode()) != len(lines.encode()):
                        raise OSError(28, "no space left on device")
                    os.fsync(file.fileno())
                except OSError:  # an interrupted run keeps the lines: their files are whole
                    file.truncate(size)
                    raise
        except OSError as error:
            raise write_error(index, error) from None
        self.records.update({record.name: record for record in records})


def write_clip_files(
    folder: Path,
    record: ClipRecord,
    frames: Iterable[np.ndarray],
    audio: np.ndarray | None = None,
    labels: Mapping[str, np.ndarray] | None = None,
    jpeg_quality: int = PrepareConfig().jpeg_quality,
) -> ClipRecord:
    """`PreparedWriter.write_files`, for processes that have no writer. Raises SpeakError where there is no frame."""
    base = folder / "clips" / record.name
    count = write_frames(f"{base}.zip", frames, jpeg_quality)
    if not count:
        Path(f"{base}.zip").unlink(missing_ok=True)
        raise SpeakError(f"{record.source or record.name}: gave no frame")
    if audio is not None:
        write_wav(f"{base}.wav", fit_audio(audio, count))
    if labels is not None:
        with whole_file(f"{base}.npz") as temporary, temporary.open("wb") as file:
            np.savez(file, **labels)
    return dataclasses.replace(record, frames=count, sound=audio is not None, labels=labels is not None)


def write_frames(path: str | Path, frames: Iterable[np.ndarray], jpeg_quality: int) -> int:
    """Writes `frames` (uint8 [H, W, 3], one size) as a stored zip of JPEG files; returns how many there were."""
    count, size = 0, None
    with whole_file(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        for frame in frames:
            size = size or frame.shape
            if frame.shape != size or frame.dtype != np.uint8:
                raise SpeakError(f"{path}: frame {count} is {frame.dtype} {list(frame.shape)}, not {list(size)}")
            archive.writestr(zipfile.ZipInfo(f"{count:06d}.jpg", _EPOCH), encode_jpeg(frame, jpeg_quality))
            count += 1
    return count


def encode_jpeg(frame: np.ndarray, quality: int) -> bytes:
    """A uint8 [H, W, 3] frame as JPEG."""
    from PIL import Image

    data = io.BytesIO()
    # 4:2:0 chroma halves lip colour's resolution: from 95 on the caller has asked for better
    subsampling = "4:4:4" if quality >= 95 else "4:2:0"
    Image.fromarray(frame).save(data, "JPEG", quality=quality, subsampling=subsampling)
    return data.getvalue()


def fit_audio(audio: np.ndarray, frames: int) -> np.ndarray:
    """float32 `audio` trimmed, or padded with silence, to exactly the samples of `frames` frames."""
    wanted = sample_of_frame(frames)
    audio = np.asarray(audio, np.float32)[:wanted]
    return np.pad(audio, (0, wanted - len(audio)))


class PreparedCorpus:
    """Reads a prepared corpus at random. Small enough to be sent to worker processes.

    Args:
        folder: the corpus.
        cached_clips: of how many clips the places of the frames are remembered.
    Raises:
        SpeakError: no index, an empty one, or lines that are none of ours.
    """

    def __init__(self, folder: str | Path, cached_clips: int = 4096) -> None:
        self.folder = Path(folder)
        index = self.folder / INDEX
        if not index.is_file():
            raise SpeakError(f"{self.folder}: not a prepared corpus (no {INDEX}): python -m speak prepare makes one")
        content = check_readable(index).read_bytes()
        self.clips = _parse_index(index, content[: content.rfind(b"\n") + 1])
        if not self.clips:
            raise SpeakError(f"{index}: the corpus is empty")
        self._cached_clips = cached_clips
        self._places: OrderedDict[str, np.ndarray] = OrderedDict()
        self._labels: OrderedDict[str, dict[str, np.ndarray]] = OrderedDict()

    def frames(self, clip: ClipRecord, indices: Iterable[int]) -> np.ndarray:
        """Frames `indices` of `clip`, uint8 [N, H, W, 3]. Raises SpeakError for a missing or damaged frame."""
        from PIL import Image

        path = self.folder / "clips" / f"{clip.name}.zip"
        places = self._frame_places(clip.name, path)
        pictures = []
        try:
            with path.open("rb") as file:
                for index in indices:
                    if not 0 <= index < len(places):
                        raise SpeakError(f"{path}: has no frame {index}, only {len(places)}")
                    offset, size, checksum = (int(value) for value in places[index])
                    file.seek(offset)
                    header = file.read(30)
                    file.seek(int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little"), 1)
                    data = file.read(size)
                    if zlib.crc32(data) != checksum:
                        raise SpeakError(f"{path}: frame {index} is damaged: prepare the clip again")
                    with Image.open(io.BytesIO(data)) as picture:
                        pictures.append(np.asarray(picture.convert("RGB")))
            return np.stack(pictures)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise SpeakError(f"{path}: frames cannot be read ({one_line(error)})") from None

    def audio(self, clip: ClipRecord, start: int, stop: int) -> np.ndarray:
        """Samples start:stop of `clip`, float32 in [-1, 1]; silence before the start and after the end.

        Raises SpeakError for a clip without sound or a damaged file.
        """
        path = self.folder / "clips" / f"{clip.name}.wav"
        if not clip.sound:
            raise SpeakError(f"{path}: the clip has no sound")
        return read_wav_samples(path, start, stop)

    def labels(self, clip: ClipRecord) -> dict[str, np.ndarray]:
        """The exact labels of `clip` by name; empty where it has none. The last few hundred clips' are kept."""
        if not clip.labels:
            return {}
        if clip.name in self._labels:
            self._labels.move_to_end(clip.name)
            return self._labels[clip.name]
        path = check_readable(self.folder / "clips" / f"{clip.name}.npz")
        try:
            with np.load(path, allow_pickle=False) as archive:
                self._labels[clip.name] = {name: archive[name] for name in archive.files}
        except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
            raise SpeakError(f"{path}: cannot be read ({one_line(error)})") from None
        if len(self._labels) > self._cached_clips // 16:
            self._labels.popitem(last=False)
        return self._labels[clip.name]

    def _frame_places(self, name: str, path: Path) -> np.ndarray:
        """int64 [N, 3]: offset of the local header, size and checksum of each frame."""
        if name in self._places:
            self._places.move_to_end(name)
            return self._places[name]
        check_readable(path)
        try:
            with zipfile.ZipFile(path) as archive:
                entries = sorted(archive.infolist(), key=lambda entry: entry.filename)
        except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError, UnicodeError) as error:
            raise SpeakError(f"{path}: is not a whole zip file ({one_line(error)})") from None
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise SpeakError(f"{path}: its frames are compressed, a prepared corpus stores them")
        places = np.array([(e.header_offset, e.file_size, e.CRC) for e in entries], np.int64).reshape(-1, 3)
        self._places[name] = places
        if len(self._places) > self._cached_clips:
            self._places.popitem(last=False)
        return places


def _parse_index(path: Path, content: bytes) -> list[ClipRecord]:
    """The records of the index by name; of two lines with one name the later holds. Half-made pieces are out."""
    fields = {field.name for field in dataclasses.fields(ClipRecord)}
    records: dict[str, ClipRecord] = {}
    for number, line in enumerate(content.splitlines(), 1):
        try:
            values = json.loads(line)
            record = ClipRecord(**{key: value for key, value in values.items() if key in fields})
            valid = isinstance(record.name, str) and isinstance(record.frames, int) and record.frames > 0
            valid &= record.emotion is None or record.emotion in EMOTIONS
            valid &= record.fps == FRAME_RATE and record.sample_rate == SAMPLE_RATE and record.split in SPLITS
            valid &= isinstance(record.chunk, int) and isinstance(record.chunks, int) and "/" not in record.name
        except (ValueError, TypeError, AttributeError, RecursionError):
            valid = False
        if not valid:
            raise SpeakError(f"{path}: line {number} is not of a prepared corpus at {FRAME_RATE} frames/s")
        box = tuple(record.box) if isinstance(record.box, list) else None
        records[record.name] = dataclasses.replace(record, box=box)
    of_piece = Counter((record.piece, record.chunks) for record in records.values())
    whole = [record for record in records.values() if of_piece[record.piece, record.chunks] >= record.chunks]
    return sorted(whole, key=lambda record: record.name)
