"""ffmpeg as a child process: argument lists, its complaints collected, a limit on how long it may be silent.

The program is the one that comes with imageio-ffmpeg; nothing here needs one on the PATH.
"""

from __future__ import annotations

import re
import subprocess
import threading
import time
from collections import deque
from pathlib import Path
from typing import Any

from speak.errors import SpeakError

STALL_SECONDS = 120.0  # longest silence of ffmpeg while we wait for it
PIPE_BYTES = 1 << 20  # a larger pipe saves switches between the two processes; Linux only, best effort
# A picture larger than this is refused by ffmpeg before it takes memory (twice 8K video).
MAX_PIXELS = 1 << 26

INPUT_OPTIONS = ["-max_pixels", str(MAX_PIXELS), "-protocol_whitelist", "file,pipe"]


def executable() -> str:
    """Path of the ffmpeg program. Raises SpeakError where imageio-ffmpeg or its program is missing."""
    try:
        import imageio_ffmpeg

        return imageio_ffmpeg.get_ffmpeg_exe()
    except (ImportError, RuntimeError):
        raise SpeakError("ffmpeg is not installed: pip install imageio-ffmpeg") from None


def file_argument(path: str | Path) -> str:
    """`path` for ffmpeg's command line; the prefix keeps names such as `-x.mp4` and `a:b.mp4` plain files."""
    return f"file:{path}"


def longest_seconds(path: Path) -> float:
    """More than this a file of its size does not hold: damaged time stamps may claim years, all of it to be filled in.

    Fifty bytes a second are less than a still picture's; twelve hours are the most that is read of any file.
    """
    return min(12 * 3600.0, 60 + path.stat().st_size / 50)


class Ffmpeg:
    """One run of ffmpeg, read from or written to through a pipe.

    Args:
        arguments: everything after the program's name.
        stdin: True to feed it through `write`, False to read from it with `read_line` and `read_into`.
        name: the file that errors name.
        stall_seconds: how long one read or write may take before ffmpeg is ended and SpeakError is raised.
        log_level: ffmpeg's own; "error" gives complaints only, "info" also the description of streams.
    """

    def __init__(
        self,
        arguments: list[str],
        stdin: bool,
        name: str | Path,
        stall_seconds: float = STALL_SECONDS,
        log_level: str = "error",
    ) -> None:
        self.name = name
        self.lines: deque[str] = deque(maxlen=400)  # what ffmpeg said, the last of it
        self.truncated = False
        self.stalled = False
        self._stall_seconds = stall_seconds
        self._waiting_since: float | None = None
        command = [executable(), "-hide_banner", "-nostdin", "-nostats", "-loglevel", f"level+{log_level}", *arguments]
        self._process: subprocess.Popen[bytes] = subprocess.Popen(
            command,
            stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
            stdout=subprocess.DEVNULL if stdin else subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is ours to handle: ffmpeg must not finish half a file on its own
        )
        self._pipe: Any = self._process.stdin if stdin else self._process.stdout
        _widen(self._pipe)
        self._collector = threading.Thread(target=self._collect, daemon=True)
        self._collector.start()
        self._ended = threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()

    def read_line(self, limit: int = 200) -> bytes:
        """The next bytes up to a line feed; empty at the end."""
        return self._timed(self._pipe.readline, limit)

    def read_into(self, buffer: Any) -> int:
        """Fills `buffer` from the pipe; returns the number of bytes, fewer only at the end."""
        return self._timed(self._pipe.readinto, buffer)

    def write(self, data: Any) -> None:
        """Feeds `data` to ffmpeg. Raises SpeakError where ffmpeg has given up, with its reason."""
        try:
            self._timed(self._pipe.write, data)
        except (BrokenPipeError, ConnectionError):
            self._process.wait()
            self._collector.join(5)
            raise SpeakError(f"{self.name}: not written, ffmpeg stopped ({self.complaint()})") from None

    def finish(self) -> int:
        """Closes our end, waits, returns ffmpeg's exit status. Raises SpeakError where it was silent too long."""
        try:
            self._timed(self._close_and_wait)
        finally:
            self._ended.set()
        self._collector.join(5)
        return self._process.returncode

    def kill(self) -> None:
        """Ends ffmpeg at once; harmless where it has ended."""
        self._ended.set()
        if self._process.poll() is None:
            self._process.kill()
        try:
            self._pipe.close()
        except OSError:
            pass
        self._process.wait()
        self._collector.join(5)

    def complaint(self) -> str:
        """The first thing ffmpeg complained of, which is the cause of the others, in its words; or its exit status."""
        if self.truncated:
            return "the file ends early"
        if any("matches no streams" in line for line in self.lines):
            return "there is none in the file"
        wrong = [line for line in self.lines if "[error]" in line or "[fatal]" in line]
        texts = [re.sub(r"\[[^\]]*@ 0x[0-9a-f]+\] *|\[(error|fatal)\] *", "", line).strip() for line in wrong]
        for text in texts:
            if text and not text.startswith("Error opening"):
                return text.replace(file_argument(self.name), "").replace("file:", "").strip(": ")[:160]
        for text in texts:
            if ": " in text:
                return text.rpartition(": ")[2][:160]
        return f"exit status {self._process.returncode}"

    def _close_and_wait(self) -> None:
        try:
            self._pipe.close()
        except (BrokenPipeError, ConnectionError):
            pass
        self._process.wait()

    def _timed(self, call: Any, *arguments: Any) -> Any:
        self._waiting_since = time.monotonic()
        try:
            result = call(*arguments)
        except (OSError, ValueError):
            if not self.stalled:
                raise
        finally:
            self._waiting_since = None
        if self.stalled:
            raise SpeakError(f"{self.name}: ffmpeg said nothing for {self._stall_seconds:g} s and was ended")
        return result

    def _watch(self) -> None:
        # Silence is counted in our own steps: time in which this program was itself stopped does not count.
        step, silent, last = min(1.0, self._stall_seconds / 4), 0.0, None
        while not self._ended.wait(step):
            since = self._waiting_since
            silent = silent + step if since is not None and since == last else 0.0
            last = since
            if silent >= self._stall_seconds:
                self.stalled = True
                self._process.kill()
                return

    def _collect(self) -> None:
        stream = self._process.stderr
        assert stream is not None
        for raw in iter(lambda: stream.readline(2000), b""):
            line = raw.decode("utf-8", "replace").rstrip()
            self.truncated |= "partial file" in line or "ended prematurely" in line
            self.lines.append(line)
        stream.close()


def _widen(pipe: Any) -> None:
    try:
        import fcntl

        fcntl.fcntl(pipe.fileno(), fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    except (ImportError, AttributeError, OSError):
        pass
