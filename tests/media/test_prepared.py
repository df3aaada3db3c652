import dataclasses
import json
import multiprocessing
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from speak.config import sample_of_frame
from speak.errors import SpeakError
from speak.media.prepared import ClipRecord, PreparedCorpus, PreparedWriter, safe_name, split_identities


def smooth(count: int, seed: int = 0, side: int = 48) -> np.ndarray:
    """Frames that JPEG codes well, uint8 [count, side, side, 3]."""
    y, x, t = np.meshgrid(np.arange(side), np.arange(side), np.arange(count), indexing="ij")
    planes = [128 + 100 * np.sin((x * (k + 1) + y) / side * 3 + t / 5 + seed) for k in range(3)]
    return np.stack(planes, -1).transpose(2, 0, 1, 3).astype(np.uint8)


def written(folder: Path, name: str = "a", **fields: object) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    frames, audio = smooth(20, hash(name) % 7), np.sin(np.arange(12000) / 20) * 0.4
    labels = {"pose": np.arange(120.0).reshape(20, 6), "phones": np.array(["a", "m"]), "phone_times": np.ones((2, 2))}
    PreparedWriter(folder).write(ClipRecord(name, "p", 0, **fields), frames, audio, labels)
    return frames, audio, labels


def test_a_clip_comes_back_as_it_was_written(tmp_path: Path) -> None:
    fields = {"emotion": "happy", "level": 2, "view": "left_30", "source": "v/a.mp4", "box": (1, 2, 3, 3)}
    frames, audio, labels = written(tmp_path, **fields)
    corpus = PreparedCorpus(tmp_path)
    (clip,) = corpus.clips
    assert (clip.frames, clip.emotion, clip.level, clip.view, clip.box) == (20, "happy", 2, "left_30", (1, 2, 3, 3))
    assert (clip.fps, clip.sample_rate, clip.sound, clip.labels) == (30, 16000, True, True)
    again = corpus.frames(clip, [7, 0, 19, 7])
    assert again.dtype == np.uint8 and np.abs(again.astype(int) - frames[[7, 0, 19, 7]]).mean() < 1
    heard = corpus.audio(clip, -50, sample_of_frame(20) + 50)
    assert np.abs(heard[50 : 50 + sample_of_frame(20)] - audio[: sample_of_frame(20)]).max() < 1e-4
    assert not heard[:50].any() and not heard[-50:].any()
    assert all(np.array_equal(corpus.labels(clip)[key], value) for key, value in labels.items())


def test_the_files_are_what_other_programs_read(tmp_path: Path) -> None:
    frames, _, _ = written(tmp_path)
    with zipfile.ZipFile(tmp_path / "clips" / "a.zip") as archive:
        assert archive.namelist() == [f"{number:06d}.jpg" for number in range(20)]
        assert {entry.compress_type for entry in archive.infolist()} == {zipfile.ZIP_STORED}
        picture = np.asarray(Image.open(archive.open("000003.jpg")))
    assert np.abs(picture.astype(int) - frames[3]).mean() < 1
    samples, rate = soundfile.read(tmp_path / "clips" / "a.wav")
    assert rate == 16000 and samples.shape == (sample_of_frame(20),)
    line = json.loads((tmp_path / "index.jsonl").read_text())
    assert line["name"] == "a" and line["frames"] == 20 and line["emotion"] is None


def test_the_same_clip_gives_the_same_bytes(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        written(tmp_path / folder)
    for file in ("clips/a.zip", "clips/a.wav", "clips/a.npz", "index.jsonl"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_sound_is_exactly_as_long_as_the_frames(tmp_path: Path) -> None:
    writer = PreparedWriter(tmp_path)
    writer.write(ClipRecord("short", "p", 0), smooth(7), np.ones(10))
    writer.write(ClipRecord("long", "p", 0), smooth(7), np.ones(99999))
    writer.write(ClipRecord("silent", "p", 0), smooth(7))
    corpus = PreparedCorpus(tmp_path)
    for name in ("short", "long"):
        assert soundfile.info(tmp_path / "clips" / f"{name}.wav").frames == sample_of_frame(7) == 3733
    silent = next(clip for clip in corpus.clips if clip.name == "silent")
    assert not silent.sound and not (tmp_path / "clips" / "silent.wav").exists()
    with pytest.raises(SpeakError, match="no sound"):
        corpus.audio(silent, 0, 5)


def test_an_interrupted_index_line_is_forgotten_and_written_again(tmp_path: Path) -> None:
    written(tmp_path, "a")
    written(tmp_path, "b")
    index = tmp_path / "index.jsonl"
    index.write_bytes(index.read_bytes()[:-20])
    assert [clip.name for clip in PreparedCorpus(tmp_path).clips] == ["a"]
    assert not PreparedWriter(tmp_path).has("b")
    written(tmp_path, "b")
    assert [clip.name for clip in PreparedCorpus(tmp_path).clips] == ["a", "b"]


def test_a_video_of_which_a_clip_is_missing_counts_as_not_there(tmp_path: Path) -> None:
    writer = PreparedWriter(tmp_path)
    writer.write(ClipRecord("whole", "p", 0, source="w.mp4"), smooth(3))
    writer.write(ClipRecord("v", "p", 0, source="v.mp4", chunk=0, chunks=2), smooth(3))
    assert [clip.name for clip in PreparedCorpus(tmp_path).clips] == ["whole"]
    writer.write(ClipRecord("v#001", "p", 0, source="v.mp4", chunk=1, chunks=2), smooth(3))
    assert [clip.name for clip in PreparedCorpus(tmp_path).clips] == ["v", "v#001", "whole"]


def test_an_error_while_writing_leaves_no_file_and_no_line(tmp_path: Path) -> None:
    writer = PreparedWriter(tmp_path)

    def frames():
        yield from smooth(3)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        writer.write(ClipRecord("a", "p", 0), frames())
    with pytest.raises(SpeakError, match="gave no frame"):
        writer.write(ClipRecord("a", "p", 0), [])
    with pytest.raises(SpeakError, match=r"frame 3"):
        writer.write(ClipRecord("a", "p", 0), [*smooth(3), smooth(1, side=32)[0]])
    assert list((tmp_path / "clips").iterdir()) == [] and not (tmp_path / "index.jsonl").exists()


def _write_with_little_room(folder: Path, most: int, replies) -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    try:
        PreparedWriter(folder).write(ClipRecord("a", "p", 0), smooth(40), np.ones(30000))
        replies.put("written")
    except SpeakError as error:
        replies.put(str(error))


@pytest.mark.parametrize("most", [20_000, 5_000, 300])
def test_a_disk_without_room_leaves_no_partial_file(tmp_path: Path, most: int) -> None:
    context = multiprocessing.get_context("spawn")
    replies = context.Queue()
    process = context.Process(target=_write_with_little_room, args=(tmp_path, most, replies))
    process.start()
    reply = replies.get(timeout=60)
    process.join()
    assert "a.zip: not written" in reply or "a.wav: not written" in reply or "index.jsonl: not written" in reply
    assert not [path for path in (tmp_path / "clips").iterdir() if path.name.endswith(".part")]
    assert not PreparedWriter(tmp_path).has("a")


def test_foreign_and_damaged_corpora_are_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(SpeakError, match="not a prepared corpus"):
        PreparedCorpus(tmp_path)
    for content, reason in {"": "empty", "hello\n": "line 1", '{"name": "a"}\n': "line 1", "[]\n": "line 1"}.items():
        (tmp_path / "index.jsonl").write_text(content)
        with pytest.raises(SpeakError, match=reason):
            PreparedCorpus(tmp_path)
    (tmp_path / "index.jsonl").unlink()
    written(tmp_path)
    line = json.loads((tmp_path / "index.jsonl").read_text())
    for key, value in {"fps": 25, "emotion": "furious", "frames": 0, "name": "../../x", "split": "all"}.items():
        (tmp_path / "index.jsonl").write_text(json.dumps({**line, key: value}) + "\n")
        with pytest.raises(SpeakError, match="line 1"):
            PreparedCorpus(tmp_path)
    (tmp_path / "index.jsonl").write_text(json.dumps({**line, "a later field": 1}) + "\n")
    corpus = PreparedCorpus(tmp_path)
    path = tmp_path / "clips" / "a.zip"
    data = bytearray(path.read_bytes())
    data[100] ^= 255
    path.write_bytes(data)
    with pytest.raises(SpeakError, match="frame 0 is damaged"):
        corpus.frames(corpus.clips[0], [0])
    assert len(corpus.frames(corpus.clips[0], [5]))
    with pytest.raises(SpeakError, match="no frame 20"):
        corpus.frames(corpus.clips[0], [20])
    path.unlink()
    with pytest.raises(SpeakError, match="no such file"):
        PreparedCorpus(tmp_path).frames(dataclasses.replace(corpus.clips[0]), [0])


def test_names_are_safe_and_stay_apart() -> None:
    assert safe_name("M003/front/001") == "M003#front#001"
    assert safe_name("a b") != safe_name("a_b") and safe_name("../x") != safe_name("x")
    assert "/" not in safe_name("../../etc") and not safe_name("../../etc").startswith(".")
    assert len(safe_name("ä" * 300)) < 160


def test_people_are_divided_the_same_in_any_order_and_stay_where_they_were() -> None:
    names = [f"id{number:05d}" for number in range(40)]
    splits = split_identities(names)
    assert splits == split_identities(reversed(names))
    counts = [list(splits.values()).count(split) for split in ("train", "val", "test")]
    assert counts == [32, 4, 4]
    more = split_identities(names + ["someone", "else"], splits)
    assert {name: more[name] for name in names} == splits
    assert sorted(split_identities("abc").values()) == ["test", "train", "val"]
    assert set(split_identities("ab").values()) == {"train"}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_one_line(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(SpeakError, match="permission"):
        PreparedWriter(tmp_path / "corpus")
