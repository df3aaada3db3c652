"""Files in and out: what may be read is checked with one clear line, what is written appears whole or not at all."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from speak.errors import SpeakError


class DiskFullError(SpeakError):
    """No room: what follows would fail too."""


def check_readable(path: str | Path) -> Path:
    """`path` as a Path, if it is a file with something in it that may be read. Raises SpeakError otherwise."""
    path = Path(path)
    try:
        if path.is_dir():
            raise SpeakError(f"{path}: is a folder, a file is wanted")
        if not path.exists():
            raise SpeakError(f"{path}: no such file")
        if not path.is_file():
            raise SpeakError(f"{path}: is not an ordinary file")
        with path.open("rb") as file:
            if not file.read(1):
                raise SpeakError(f"{path}: the file is empty")
    except PermissionError:
        raise SpeakError(f"{path}: no permission to read it") from None
    except (OSError, ValueError) as error:  # a name with a zero byte is a ValueError
        raise SpeakError(f"{path}: cannot be read ({_reason(error)})") from None
    return path


def make_folder(path: str | Path) -> Path:
    """Creates folder `path` with its parents where they are missing. Raises SpeakError where that cannot be."""
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise SpeakError(f"{path}: a file of that name is in the way of the folder") from None
    except OSError as error:
        raise SpeakError(f"{path}: cannot be made ({_reason(error)})") from None
    return path


def write_error(path: str | Path, error: OSError) -> SpeakError:
    """The one line that says why `path` could not be written: full disk, no permission, missing folder."""
    remedies = {
        errno.ENOSPC: "the disk is full: make room or write elsewhere",
        errno.EFBIG: "the file is larger than this system allows",
        errno.EDQUOT: "the quota is used up: make room or write elsewhere",
        errno.EACCES: "no permission to write there",
        errno.EPERM: "no permission to write there",
        errno.EROFS: "the disk is read-only",
        errno.ENOENT: "the folder does not exist",
        errno.ENOTDIR: "the folder is a file",
        errno.EISDIR: "a folder of that name exists",
    }
    kind = DiskFullError if error.errno in (errno.ENOSPC, errno.EDQUOT) else SpeakError
    return kind(f"{path}: not written, {remedies.get(error.errno or 0, _reason(error))}")


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """A temporary name beside `path`; on success it is synced and renamed to `path`, on any error it is removed.

    Raises SpeakError for what the disk refuses. The temporary name starts with a dot and ends in `.part`.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")

    def remove() -> None:
        with suppress(OSError):  # a folder that is a file: the first error is the one to be told
            temporary.unlink(missing_ok=True)

    try:
        with temporary.open("wb"):
            pass
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        remove()
        raise write_error(path, error) from None
    except BaseException:
        remove()
        raise


def one_line(error: Exception) -> str:
    """A library's error as part of one of ours: no line feeds, not long, never empty."""
    return " ".join(str(error).split())[:120] or type(error).__name__


def _reason(error: Exception) -> str:
    return (getattr(error, "strerror", None) or one_line(error)).lower()
