import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

import speak.datasets.source
import speak.prepare
from speak.cli import main
from speak.config import PrepareConfig
from speak.errors import SpeakError
from speak.media.audio import read_audio
from speak.media.face_detection import Box, Face
from speak.media.prepared import PreparedCorpus
from speak.media.video import VideoReader, write_video
from speak.prepare import prepare
from tests.media.generated import clicks, flash_and_click, flashes, number_of, numbered_frame

SMALL = PrepareConfig(size=64, smallest_face=10)


def film(path: Path, count: int = 30, **options: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_video(path, [numbered_frame(number, 96, 96) for number in range(count)], quality=8, **options)


def partial_files(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*") if path.name.startswith(".") or path.name.endswith(".part")]


def test_flash_and_click_stay_together_through_prepare(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    flash_and_click(tmp_path / "in" / "v.mp4", "30000/1001", 12, 4)
    prepare(tmp_path / "in", "folder", tmp_path / "out", SMALL, workers=1, quiet=True)
    corpus = PreparedCorpus(tmp_path / "out")
    clip = corpus.clips[0]
    seen = flashes(corpus.frames(clip, range(clip.frames)).mean(axis=(1, 2, 3)), 30)
    heard = clicks(corpus.audio(clip, 0, 12 * 16000), 16000)
    assert len(seen) == len(heard) == 3 and np.abs(seen - heard).max() <= 1 / 30


def test_a_long_video_is_divided_and_its_sound_with_it(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    flash_and_click(tmp_path / "in" / "v.mp4", "30", 12, 3)
    config = PrepareConfig(size=32, longest_chunk=100, shortest_chunk=64)
    report = prepare(tmp_path / "in", "folder", tmp_path / "out", config, workers=1, quiet=True)
    corpus = PreparedCorpus(tmp_path / "out")
    assert [clip.frames for clip in corpus.clips] == [100, 100, 100]  # the last 60 frames are too few
    assert [clip.name for clip in corpus.clips] == ["v.mp4", "v.mp4#001", "v.mp4#002"] and report.clips == 3
    assert [round(clip.start * 30) for clip in corpus.clips] == [0, 100, 200]
    for clip in corpus.clips:
        seen = flashes(corpus.frames(clip, range(clip.frames)).mean(axis=(1, 2, 3)), 30)
        heard = clicks(corpus.audio(clip, 0, 53333), 16000)
        assert len(seen) == len(heard) == 1 and abs(seen[0] - heard[0]) <= 1 / 60 + 1e-3


class WhiteSquares:
    """A detector that finds white squares, and nothing in every fifth picture that it is shown."""

    name, tracks = "white squares", True

    def __init__(self) -> None:
        self.shown = 0

    def find(self, picture: np.ndarray) -> list[Face]:
        self.shown += 1
        if self.shown % 5 == 0:
            return []
        white, faces = picture.min(axis=2) > 200, []
        middle = picture.shape[1] // 2
        for half, offset in ((white[:, :middle], 0), (white[:, middle:], middle)):
            rows, columns = np.nonzero(half)
            if len(rows):
                x, y = int(columns.min()) + offset, int(rows.min())
                faces.append(Face(Box(x, y, np.ptp(columns) + 1, np.ptp(rows) + 1), 1.0))
        return faces


def test_frames_without_a_face_are_filled_in_and_one_of_two_faces_is_chosen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def frames():
        for number in range(75):
            frame = np.zeros((120, 200, 3), np.uint8)
            frame[40:80, 10 + number // 5 : 50 + number // 5] = 255  # the larger one moves
            frame[40:60, 150:170] = 255
            yield frame

    (tmp_path / "in").mkdir()
    write_video(tmp_path / "in" / "v.mp4", frames(), quality=8)
    boxes = {}
    for face in (None, 1, 2):
        monkeypatch.setattr(speak.datasets.source, "best_detector", WhiteSquares)
        out = tmp_path / f"out{face}"
        report = prepare(tmp_path / "in", "folder", out, SMALL, face=face, workers=1, quiet=True)
        assert report.found_by == {"white squares": 1}
        assert any("no face in 5 of 25 frames looked at: filled in" in note for _, note in report.notes)
        clip = PreparedCorpus(out).clips[0]
        assert clip.frames == 75
        boxes[face] = clip.box
    # the union of a 40 pixels square that moved by 14, with a tenth around it: 65; the second, still: 24
    assert abs(boxes[None][2] - 65) <= 2 and boxes[1] == boxes[None]
    assert abs(boxes[2][2] - 24) <= 2 and boxes[2][0] > 140
    with pytest.raises(SpeakError, match="has no face 3, white squares finds 2"):
        prepare(tmp_path / "in", "folder", tmp_path / "out3", SMALL, face=3, workers=1, quiet=True)


def bad_files(folder: Path) -> list[str]:
    """One of every kind of bad input, beside a good video."""
    folder.mkdir()
    film(folder / "good.mp4")
    data = (folder / "good.mp4").read_bytes()
    (folder / "empty.mp4").touch()
    (folder / "cut.mp4").write_bytes(data[: len(data) // 2])
    (folder / "text.mp4").write_text("This is a text that somebody renamed.\n" * 30)
    (folder / "folder.mp4").mkdir()
    soundfile.write(folder / "zero.wav", np.zeros(0), 16000)
    film(folder / "zero.mp4")
    samples = np.zeros(16000)
    samples[5] = np.nan
    soundfile.write(folder / "nan.wav", samples, 16000, subtype="FLOAT")
    film(folder / "nan.mp4")
    film(folder / "short.mp4", 3)
    Image.new("1", (20000, 20000)).save(folder / "monster.png", compress_level=1)
    return ["cut.mp4", "empty.mp4", "monster.png", "nan.mp4", "short.mp4", "text.mp4", "zero.mp4"]


@pytest.mark.parametrize("workers", [1, 2])
def test_bad_files_are_reported_one_line_each_and_the_rest_goes_on(tmp_path: Path, workers: int) -> None:
    bad = bad_files(tmp_path / "in")
    report = prepare(tmp_path / "in", "folder", tmp_path / "out", SMALL, workers=workers, quiet=True)
    assert [clip.source for clip in PreparedCorpus(tmp_path / "out").clips] == ["good.mp4"]
    assert [Path(path).name for path, _ in report.problems] == bad
    assert all(reason and "\n" not in reason for _, reason in report.problems)
    reasons = {Path(path).name: reason for path, reason in report.problems}
    assert reasons["text.mp4"].startswith("no picture that can be read (moov atom not found)")
    assert "ends early" in reasons["cut.mp4"] and "scale it down" in reasons["monster.png"]
    assert reasons["short.mp4"] == "only 3 frames, 16 are wanted" and reasons["empty.mp4"] == "the file is empty"
    assert reasons["nan.mp4"].endswith("1 samples are not numbers (NaN or infinite): export the sound again")
    assert sorted(path.name for path in (tmp_path / "out" / "clips").iterdir()) == ["good.mp4.zip"]
    assert partial_files(tmp_path / "out") == []
    assert len((tmp_path / "out" / "problems.txt").read_text().splitlines()) == len(bad) + len(report.notes)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read anything")
def test_a_file_without_permission_is_reported(tmp_path: Path) -> None:
    film(tmp_path / "in" / "a.mp4")
    film(tmp_path / "in" / "b.mp4")
    (tmp_path / "in" / "a.mp4").chmod(0)
    report = prepare(tmp_path / "in", "folder", tmp_path / "out", SMALL, workers=1, quiet=True)
    assert report.made == 1 and "no permission" in report.problems[0][1]


def test_the_command_goes_on_where_it_stopped(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    film(tmp_path / "in" / "a.mp4")
    command = ["prepare", str(tmp_path / "in"), "--out", str(tmp_path / "out"), "--size", "64", "--workers", "1"]
    assert main(command) == 0
    before = (tmp_path / "out" / "clips" / "a.mp4.zip").stat().st_mtime_ns
    film(tmp_path / "in" / "b.mp4")
    (tmp_path / "out" / "clips" / ".c.zip.1.part").write_text("left by a run that was killed")
    assert main(command) == 0
    assert "1 clips made" in capsys.readouterr().out.splitlines()[-3]
    assert (tmp_path / "out" / "clips" / "a.mp4.zip").stat().st_mtime_ns == before
    assert len(PreparedCorpus(tmp_path / "out").clips) == 2 and partial_files(tmp_path / "out") == []


def test_a_corpus_may_be_written_below_its_source(tmp_path: Path) -> None:
    write_video(tmp_path / "v.mp4", [numbered_frame(0)] * 20)
    soundfile.write(tmp_path / "v.wav", np.zeros(9000), 16000)
    for _ in range(2):
        report = prepare(tmp_path, "folder", tmp_path / "out", SMALL, workers=1, quiet=True)
        assert report.clips == 1 and report.problems == []


def test_nothing_usable_is_one_line_and_status_2(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.mp4").write_text("no video")
    for arguments in ([], ["--box", "1,2,3"], ["--size", "0"], ["--jpeg-quality", "0"], ["--layout", "mead"]):
        assert main(["prepare", str(tmp_path / "in"), "--out", str(tmp_path / "out"), *arguments]) == 2
        assert len(capsys.readouterr().err.strip().splitlines()[-1]) < 300
    assert main(["prepare", str(tmp_path / "nowhere"), "--out", str(tmp_path / "out")]) == 2
    (tmp_path / "file").touch()
    assert main(["prepare", str(tmp_path / "in"), "--out", str(tmp_path / "file")]) == 2


# Runs the command and, as soon as the first clip is in the index, signals all of its processes, itself included: from
# outside, a busy machine may see to it only when everything is done.
INTERRUPTED = """
import os, signal, sys
import speak.media.prepared
from speak.cli import main
add = speak.media.prepared.PreparedWriter.add
def add_and_interrupt(writer, records):
    add(writer, records)
    os.killpg(0, int(sys.argv[1]))
speak.media.prepared.PreparedWriter.add = add_and_interrupt
if __name__ == "__main__":
    sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_run_continues_to_the_same_corpus(tmp_path: Path, how: signal.Signals) -> None:
    for number in range(5):
        film(tmp_path / "in" / f"{number}.mp4", 90)
    arguments = ["prepare", str(tmp_path / "in"), "--out", str(tmp_path / "out"), "--size", "64", "--workers", "2"]
    command = [sys.executable, "-m", "speak", *arguments]
    (tmp_path / "interrupted.py").write_text(INTERRUPTED)
    process = subprocess.run(
        [sys.executable, str(tmp_path / "interrupted.py"), str(int(how)), *arguments], capture_output=True,
        start_new_session=True, timeout=120, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    index = tmp_path / "out" / "index.jsonl"
    clips = tmp_path / "out" / "clips"
    if how is signal.SIGINT:
        assert process.returncode == 130 and partial_files(tmp_path / "out") == []
    done = [json.loads(line)["name"] for line in index.read_text().splitlines()]
    assert len(done) == 1
    before = (clips / f"{done[0]}.zip").stat().st_mtime_ns
    subprocess.run(command, check=True, capture_output=True)
    corpus = PreparedCorpus(tmp_path / "out")
    assert [clip.name for clip in corpus.clips] == [f"{number}.mp4" for number in range(5)]
    assert partial_files(tmp_path / "out") == []
    for clip in corpus.clips:
        assert clip.frames == 90 and corpus.frames(clip, [0, 89]).shape == (2, 64, 64, 3)
    assert len(list(clips.iterdir())) == 5
    assert (clips / f"{done[0]}.zip").stat().st_mtime_ns == before  # what was whole is not made again


def test_a_process_that_dies_is_reported_and_the_rest_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3, 6):
        film(tmp_path / "in" / f"{number}.mp4")
    monkeypatch.setattr(speak.prepare, "_make", _make_or_die)
    report = prepare(tmp_path / "in", "folder", tmp_path / "out", SMALL, workers=2, quiet=True)
    assert [Path(path).name for path, _ in report.problems] == ["3.mp4"] and "ended" in report.problems[0][1]
    assert len(PreparedCorpus(tmp_path / "out").clips) == 2


def _make_or_die(item, relative, job):
    from speak.datasets.source import make_clips

    if item.path.name == "3.mp4":
        os._exit(9)
    config, out, box, face, threads = job
    return make_clips(item, relative, Path(out), PrepareConfig(**config), box, face, threads)


def _tiny_disk(folder: Path) -> bool:
    folder.mkdir()
    try:
        result = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=96k", "tmpfs", str(folder)], capture_output=True)
        return result.returncode == 0
    except OSError:
        return False


def test_a_full_disk_stops_with_one_line_and_keeps_what_is_whole(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    if not _tiny_disk(disk):
        pytest.skip("mounting a small disk is not allowed here")
    try:
        random = np.random.default_rng(0)
        (tmp_path / "in").mkdir()
        for number in range(4):
            write_video(tmp_path / "in" / f"{number}.mp4", random.integers(0, 255, (20, 64, 64, 3), np.uint8))
        with pytest.raises(SpeakError, match="the disk is full: make room"):
            prepare(tmp_path / "in", "folder", disk / "out", PrepareConfig(size=48), workers=1, quiet=True)
        whole = PreparedCorpus(disk / "out").clips
        assert 1 <= len(whole) < 4 and partial_files(disk) == []
        assert len(list((disk / "out" / "clips").iterdir())) == len(whole)
        with pytest.raises(SpeakError, match="not written.*(full|space)"):
            write_video(disk / "v.mp4", random.integers(0, 255, (60, 256, 256, 3), np.uint8), quality=5)
        assert not (disk / "v.mp4").exists() and partial_files(disk) == []
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def _files_of(folder: str) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in Path(folder).glob("*/*")}


def test_real_clips_prepare_every_one(tmp_path: Path) -> None:
    folder = os.environ.get("SPEAK_CLIPS")
    if not folder:
        pytest.skip("SPEAK_CLIPS names no folder of real clips")
    report = prepare(folder, "folder", tmp_path, PrepareConfig(size=64), quiet=True)
    sounds = [Path(path) for path, reason in report.problems if "a sound without a video" in reason]
    assert len(sounds) == len(report.problems)
    manifest = Path(folder) / "MANIFEST.csv"  # of others: what each file lasts
    with manifest.open(newline="") as file:
        seconds = {row["file"]: float(row["duration_s"]) for row in csv.DictReader(file) if row["duration_s"]}
    for path in sounds:
        samples = read_audio(path)
        assert np.isfinite(samples).all() and samples.std() > 1e-3
        assert abs(len(samples) / 16000 - seconds[path.relative_to(folder).as_posix()]) < 0.02
    corpus = PreparedCorpus(tmp_path)
    assert {clip.source for clip in corpus.clips} == {name for name in _files_of(folder) if "audio/" not in name}
    for clip in corpus.clips:
        corpus.frames(clip, [0, clip.frames - 1])
        source = Path(folder) / clip.source
        if clip.frames > 1:
            assert abs(clip.frames / 30 - seconds[clip.source]) < 0.1 or clip.chunks > 1
            with VideoReader(source) as reader:
                assert clip.frames == sum(1 for _ in reader) or clip.chunks > 1


def test_frames_are_those_of_the_video(tmp_path: Path) -> None:
    film(tmp_path / "in" / "v.mp4", 50, rate=25)
    config = PrepareConfig(size=96)
    prepare(tmp_path / "in", "folder", tmp_path / "out", config, workers=1, quiet=True)
    corpus = PreparedCorpus(tmp_path / "out")
    numbers = [number_of(frame) for frame in corpus.frames(corpus.clips[0], range(corpus.clips[0].frames))]
    with VideoReader(tmp_path / "in" / "v.mp4") as reader:
        assert numbers == [number_of(frame) for frame in reader] and len(numbers) == 60
