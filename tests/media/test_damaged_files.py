"""Thousands of damaged small files through every reader: SpeakError or a result, never another error, never a hang."""

import faulthandler
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from speak.errors import SpeakError
from speak.media.audio import read_audio
from speak.media.image import read_image, write_image
from speak.media.prepared import ClipRecord, PreparedCorpus, PreparedWriter
from speak.media.video import VideoReader, probe, write_video
from tests.media.generated import ffmpeg, flash_and_click, numbered_frame

STALL = 20.0  # a file that keeps ffmpeg silent so long is a hang


def processor_seconds() -> float:
    """Of this process and its ended children: other work on the machine does not count."""
    return sum(os.times()[:4])


def read_video(path: Path) -> None:
    with VideoReader(path, threads=1, stall_seconds=STALL) as reader:
        for number, _ in enumerate(reader):
            if number > 3000:
                break


def read_corpus(path: Path) -> None:
    corpus = PreparedCorpus(path.parent if path.parent.name != "clips" else path.parent.parent)
    for clip in corpus.clips:
        corpus.frames(clip, [0, clip.frames - 1])
        corpus.audio(clip, -5, 2000)
        corpus.labels(clip)


def seeds(folder: Path) -> list[tuple[Path, Callable[[Path], object]]]:
    """Small whole files of every kind, and who reads them."""
    random = np.random.default_rng(0)
    folder.mkdir()
    tone = 0.3 * np.sin(np.arange(3000) / 9)
    files: list[tuple[Path, Callable[[Path], object]]] = []
    write_video(folder / "v.mp4", [numbered_frame(number) for number in range(8)], speed="ultrafast")
    flash_and_click(folder / "f.mp4", "25", 0.4, 0.2)
    for suffix in (".mkv", ".avi", ".flv", ".mpg", ".webm", ".mov"):
        ffmpeg("-i", folder / "f.mp4", *([] if suffix != ".flv" else ["-ar", "44100"]), folder / f"f{suffix}")
    for name in ("v.mp4", "f.mp4", "f.mkv", "f.avi", "f.flv", "f.mpg", "f.webm", "f.mov"):
        files += [(folder / name, read_video)] + ([(folder / name, read_audio)] if name[0] == "f" else [])
    files.append((folder / "v.mp4", probe))
    for name, subtype in (("a.wav", "PCM_16"), ("b.wav", "FLOAT"), ("c.flac", "PCM_24"), ("d.aiff", "PCM_16")):
        soundfile.write(folder / name, np.stack([tone, tone], 1), 22050, subtype=subtype)
        files.append((folder / name, read_audio))
    for name in ("e.mp3", "g.m4a", "h.ogg"):
        ffmpeg("-i", folder / "a.wav", folder / name)
        files.append((folder / name, read_audio))
    picture = random.integers(0, 255, (24, 20, 3), np.uint8)
    write_image(folder / "p.png", picture)
    from PIL import Image

    for name in ("p.jpg", "p.gif", "p.bmp", "p.tif", "p.webp", "p.ppm"):
        Image.fromarray(picture).save(folder / name)
    files += [(path, read_image) for path in sorted(folder.glob("p.*"))]
    writer = PreparedWriter(folder / "corpus")
    labels = {"pose": np.zeros((4, 6))}
    writer.write(ClipRecord("c", "p", 0), random.integers(0, 255, (4, 16, 16, 3), np.uint8), tone, labels)
    for name in ("index.jsonl", "clips/c.zip", "clips/c.wav", "clips/c.npz"):
        files.append((folder / "corpus" / name, read_corpus))
    return files


def damaged(data: bytes, random: np.random.Generator) -> bytes:
    """One of the ways in which files get damaged."""
    content = bytearray(data)
    kind, size = random.integers(6), len(content)
    if kind == 0:  # some bytes
        for _ in range(int(random.integers(1, 30))):
            content[random.integers(size)] = random.integers(256)
    elif kind == 1:  # the end is missing
        del content[int(random.integers(size)) :]
    elif kind == 2:  # a piece is missing
        start = int(random.integers(size))
        del content[start : start + int(random.integers(1, 200))]
    elif kind == 3:  # a number of the header is extreme
        start = int(random.integers(min(size, 200)))
        content[start : start + 4] = random.choice([b"\xff\xff\xff\xff", b"\x00\x00\x00\x00", b"\x7f\xff\xff\xff"])
    elif kind == 4:  # a piece is doubled
        start = int(random.integers(size))
        content[start:start] = content[start : start + int(random.integers(1, 500))]
    else:  # a piece of noise
        start = int(random.integers(size))
        content[start : start + 64] = random.bytes(64)
    return bytes(content)


def run_damaged(tmp_path: Path, rounds: int, seed: int) -> tuple[int, int, float]:
    """Reads `rounds` damaged copies of each file; returns how many were read, how many refused, the slowest's
    seconds of processor.

    A file that is waited for without end shows by the clock: after 120 seconds of it the test is ended."""
    random = np.random.default_rng(seed)
    read = refused = 0
    slowest = 0.0
    for path, reader in seeds(tmp_path / "whole"):
        reader(path)  # whole, it is read
        data = path.read_bytes()
        for number in range(rounds):
            if reader is read_corpus:
                place = tmp_path / "corpus"
                shutil.rmtree(place, ignore_errors=True)
                shutil.copytree(tmp_path / "whole" / "corpus", place)
                target = place / path.relative_to(tmp_path / "whole" / "corpus")
            else:
                target = tmp_path / f"damaged{path.suffix}"
            target.write_bytes(damaged(data, random))
            faulthandler.dump_traceback_later(120, exit=True)
            start = processor_seconds()
            try:
                reader(target)
                read += 1
            except SpeakError as error:
                refused += 1
                assert "\n" not in str(error) and len(str(error)) < 500
                assert "said nothing" not in str(error), f"{path.name}, round {number}: a hang"
            except Exception as error:
                keep = tmp_path / f"culprit{path.suffix}"
                keep.write_bytes(target.read_bytes())
                raise AssertionError(f"{path.name}, round {number}, kept as {keep}: {error!r}") from error
            finally:
                faulthandler.cancel_dump_traceback_later()
            slowest = max(slowest, processor_seconds() - start)
    return read, refused, slowest


def test_damaged_files_are_read_or_refused_in_one_line(tmp_path: Path) -> None:
    read, refused, slowest = run_damaged(tmp_path, rounds=6, seed=1)
    assert read > 20 and refused > 40 and slowest < STALL


@pytest.mark.long
def test_thousands_of_damaged_files_are_read_or_refused_in_one_line(tmp_path: Path) -> None:
    read, refused, slowest = run_damaged(tmp_path, rounds=110, seed=2)
    print(f"{read} read, {refused} refused, the slowest {slowest:.1f} s")
    assert read + refused > 3500 and slowest < STALL
