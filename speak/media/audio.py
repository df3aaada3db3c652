"""Sound in and out: any format, rate, width and number of channels to 16 kHz mono float, streamed.

WAV, FLAC and AIFF are read by soundfile, everything else (mp3, m4a, ogg, videos) by ffmpeg. The rate is changed by a
polyphase filter (scipy's `resample_poly`), block by block, equal to filtering the whole.
"""

from __future__ import annotations

import math
import struct
import wave
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from speak.config import SAMPLE_RATE
from speak.errors import SpeakError
from speak.media.ffmpeg import INPUT_OPTIONS, STALL_SECONDS, Ffmpeg, file_argument, longest_seconds
from speak.media.files import check_readable, one_line, whole_file

BLOCK_SECONDS = 10
FILTER_HALF_WIDTH = 10  # samples of the lower rate to each side of the polyphase filter; scipy's default


def read_audio(path: str | Path, rate: int = SAMPLE_RATE) -> np.ndarray:
    """The sound of a sound or video file, float32 [samples] mono at `rate` Hz, time 0 the start of the file.

    Channels are averaged; values are about [-1, 1] (float files may go beyond and are left as they are).
    Raises SpeakError: unreadable, no sound, zero length, truncated, samples that are not numbers.
    """
    return np.concatenate(list(stream_audio(path, rate)))


def stream_audio(
    path: str | Path, rate: int = SAMPLE_RATE, stall_seconds: float = STALL_SECONDS
) -> Iterator[np.ndarray]:
    """The same samples as `read_audio` in blocks of about ten seconds, so that memory does not grow with length."""
    path = check_readable(path)
    with path.open("rb") as file:
        head = file.read(12)
    wave_file = head[:4] in (b"RIFF", b"RF64") and head[8:12] == b"WAVE"  # AVI is RIFF as well
    if wave_file or head[:4] == b"fLaC" or (head[:4] == b"FORM" and head[8:11] == b"AIF"):
        source_rate, blocks = _soundfile_blocks(path)
    else:
        source_rate, blocks = _ffmpeg_blocks(path, stall_seconds)
    total = 0
    for block in resampled(_checked(blocks, path), source_rate, rate):
        total += len(block)
        yield block
    if not total:
        raise SpeakError(f"{path}: the sound has no length")


def resampled(blocks: Iterable[np.ndarray], source_rate: int, rate: int) -> Iterator[np.ndarray]:
    """Blocks of float32 samples at `source_rate` as blocks at `rate`: together ceil(n * rate / source_rate) samples.

    Equal to `scipy.signal.resample_poly` of the whole (Kaiser 5 low-pass, cut at the lower of both rates' half).
    """
    from scipy.signal import firwin, resample_poly

    common = math.gcd(source_rate, rate)
    up, down = rate // common, source_rate // common
    if up == down:
        yield from blocks
        return
    larger = max(up, down)
    low_pass = firwin(2 * FILTER_HALF_WIDTH * larger + 1, 1 / larger, window=("kaiser", 5.0)).astype(np.float32)
    # Context, and the places where blocks are cut, are whole multiples of `down` input samples: there the filter's
    # phase is zero, so a block with its context gives exactly the samples that the whole would.
    context = -(-(FILTER_HALF_WIDTH * larger // up + 1) // down) * down
    pending, before, finished = np.zeros(0, np.float32), 0, False  # `before`: context samples at the head of pending
    source = iter(blocks)
    while not finished:
        block = next(source, None)
        finished = block is None
        if block is not None:
            pending = np.concatenate([pending, block])
        ready = len(pending) - before - (0 if finished else context)
        ready = ready if finished else ready // down * down
        if ready <= 0:
            continue
        filtered = resample_poly(pending, up, down, window=low_pass)
        first = before // down * up
        yield filtered[first : first + -(-ready * up // down)].astype(np.float32)
        keep = before + ready - context if before + ready > context else 0
        before = before + ready - keep
        pending = pending[keep:]


def write_wav(path: str | Path, audio: np.ndarray | Iterable[np.ndarray], rate: int = SAMPLE_RATE) -> int:
    """Writes float samples in [-1, 1] (one array, or blocks; beyond is clipped) as 16 bit mono WAV, whole or not at
    all. Returns the number of samples."""
    total = 0
    with whole_file(path) as temporary, wave.open(str(temporary), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        for block in [audio] if isinstance(audio, np.ndarray) else audio:
            file.writeframes(np.round(np.clip(block, -1, 1) * 32767).astype("<i2").tobytes())
            total += len(block)
    return total


def read_wav_samples(path: str | Path, start: int, stop: int) -> np.ndarray:
    """Samples start:stop of a file of `write_wav` at 16 kHz, float32; silence before its start and after its end."""
    check_readable(path)
    try:
        with wave.open(str(path), "rb") as file:
            if (file.getnchannels(), file.getsampwidth(), file.getframerate()) != (1, 2, SAMPLE_RATE):
                raise SpeakError(f"{path}: is not 16 bit mono at {SAMPLE_RATE} Hz: prepare the clip again")
            first = min(max(0, start), file.getnframes())
            file.setpos(first)
            data = np.frombuffer(file.readframes(max(0, min(stop, file.getnframes()) - first)), "<i2")
    except (wave.Error, EOFError, OSError, ValueError, RuntimeError, struct.error) as error:
        raise SpeakError(f"{path}: is not a whole WAV file ({one_line(error)})") from None
    audio = np.zeros(max(0, stop - start), np.float32)
    if len(data):
        audio[first - start : first - start + len(data)] = data.astype(np.float32) / 32767
    return audio


def _mean(block: np.ndarray) -> np.ndarray:
    """[samples, channels] -> [samples]; what is not a number stays so without a warning and is refused later."""
    with np.errstate(all="ignore"):
        return block.mean(axis=1, dtype=np.float32)


def _checked(blocks: Iterator[np.ndarray], path: Path) -> Iterator[np.ndarray]:
    for block in blocks:
        wrong = len(block) - int(np.isfinite(block).sum())
        if wrong:
            raise SpeakError(f"{path}: {wrong} samples are not numbers (NaN or infinite): export the sound again")
        yield block


def _soundfile_blocks(path: Path) -> tuple[int, Iterator[np.ndarray]]:
    try:
        import soundfile
    except (ImportError, OSError):
        raise SpeakError("soundfile is not installed: pip install soundfile") from None
    try:
        file = soundfile.SoundFile(path)
    except (soundfile.SoundFileError, ValueError, TypeError) as error:
        raise SpeakError(f"{path}: is no sound that can be read ({one_line(error)})") from None
    if not 1 <= file.samplerate <= 1_000_000:
        file.close()
        raise SpeakError(f"{path}: a rate of {file.samplerate} Hz makes no sense")

    def blocks() -> Iterator[np.ndarray]:
        count = 0
        with file:
            missing = _missing_bytes(path)
            while True:
                try:
                    # at most about 100 MB whatever number of channels the header claims
                    size = min(BLOCK_SECONDS * max(file.samplerate, 1000), 25_000_000 // file.channels + 1)
                    block = file.read(size, dtype="float32", always_2d=True)
                except (soundfile.SoundFileError, RuntimeError, ValueError, MemoryError) as error:
                    raise SpeakError(f"{path}: the sound is damaged ({one_line(error)})") from None
                if not len(block):
                    break
                count += len(block)
                yield _mean(block)
            if missing or count < file.frames:
                raise SpeakError(f"{path}: the file is truncated, its sound ends early: copy it again")

    return file.samplerate, blocks()


def _missing_bytes(path: Path) -> bool:
    """True when a WAV file's data chunk says it is longer than the file (libsndfile keeps quiet about it)."""
    size = path.stat().st_size
    with path.open("rb") as file:
        if file.read(4) != b"RIFF":
            return False
        file.seek(12)
        while len(header := file.read(8)) == 8:
            kind, length = header[:4], int.from_bytes(header[4:], "little")
            if kind == b"data":  # 0 and near 4 GiB stand for "unknown": written to a pipe
                return 0 < length < 0xFFFFF000 and file.tell() + length > size
            file.seek(length + length % 2, 1)
    return False


def _ffmpeg_blocks(path: Path, stall_seconds: float) -> tuple[int, Iterator[np.ndarray]]:
    # aresample here changes no rate: it fills gaps and a late start with silence, so that sample n is at time n/rate
    keep_time = "aresample=async=1:first_pts=0:min_hard_comp=0.01"
    source = Ffmpeg(
        [*INPUT_OPTIONS, "-i", file_argument(path), "-map", "0:a:0", "-af", keep_time,
         "-c:a", "pcm_f32be", "-f", "au", "pipe:1"],
        stdin=False, name=path, stall_seconds=stall_seconds,
    )  # fmt: skip
    header = bytearray(24)
    try:
        got = source.read_into(header)
        offset, _, encoding, rate, channels = struct.unpack(">5I", header[4:24])
        if got < 24 or header[:4] != b".snd" or encoding != 6 or not channels or not 0 < rate <= 1_000_000:
            source.finish()
            raise SpeakError(f"{path}: no sound in it that can be read ({source.complaint()})")
        source.read_into(bytearray(min(max(0, offset - 24), 1 << 20)))
    except BaseException:
        source.kill()
        raise

    def blocks() -> Iterator[np.ndarray]:
        try:
            # ffmpeg's own mixing to one channel changes the loudness by 3 dB for some formats: the mean is taken here
            buffer = bytearray(4 * channels * min(BLOCK_SECONDS * max(rate, 1000), 25_000_000 // channels + 1))
            room = longest_seconds(path) * rate
            while got := source.read_into(buffer) // (4 * channels):
                room -= got
                if room < 0:
                    raise SpeakError(f"{path}: its time stamps are damaged: hours of sound in so small a file")
                block = np.frombuffer(bytes(buffer[: 4 * channels * got]), ">f4").astype(np.float32)
                yield _mean(block.reshape(-1, channels))
            source.finish()
            if source.truncated:
                raise SpeakError(f"{path}: the file is truncated, its sound ends early: copy it again")
        finally:
            source.kill()

    return rate, blocks()
