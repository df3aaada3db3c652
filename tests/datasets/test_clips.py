import itertools
import multiprocessing
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from speak.config import EMOTIONS, ClipsConfig, sample_of_frame
from speak.datasets.batches import batches, to_model
from speak.datasets.clips import IrfdPairs, SpeakWindows, SyncWindows
from speak.errors import SpeakError
from speak.media.prepared import ClipRecord, PreparedCorpus, PreparedWriter

CONTEXT = 0.1  # seconds, to keep the samples small


def corpus_of(folder: Path, clips: dict[str, tuple], frames: int = 24, sound: bool = True, poses: bool = False):
    """name -> (identity, emotion[, frames]); frame n of clip c has red 10 n and green 20 c, its sound says n."""
    writer = PreparedWriter(folder)
    for number, (name, (identity, emotion, *more)) in enumerate(clips.items()):
        count = more[0] if more else frames
        pictures = np.zeros((count, 16, 16, 3), np.uint8)
        pictures[..., 0] = 10 * np.arange(count)[:, None, None]
        pictures[..., 1] = 20 * number
        samples = np.zeros(sample_of_frame(count), np.float32)
        for frame in range(count):
            samples[sample_of_frame(frame) : sample_of_frame(frame + 1)] = (frame + 1) / 100
        labels = None
        if poses:
            labels = {"pose": np.arange(count)[:, None] * np.ones((1, 6)) + number / 100}
        writer.write(ClipRecord(name, identity, 0, emotion), pictures, samples if sound else None, labels)
    return PreparedCorpus(folder)


def frame_number(picture: np.ndarray) -> int:
    return round(float(picture[..., 0].mean()) / 10)


def clip_number(picture: np.ndarray) -> int:
    return round(float(picture[..., 1].mean()) / 20)


FOUR = ("angry", "happy", "sad", "fear")
EIGHT = {f"{person}{emotion}": (person, emotion) for person in ("ann", "bob") for emotion in FOUR}


def test_irfd_pairs_are_of_the_kinds_asked_for_in_their_shares(tmp_path: Path) -> None:
    pairs = IrfdPairs(corpus_of(tmp_path, EIGHT, poses=True), ClipsConfig())
    assert pairs.messages == []
    counts = dict.fromkeys(pairs.KINDS, 0)
    for index in range(600):
        sample = pairs[index]
        kind = pairs.KINDS[sample["kind"]]
        counts[kind] += 1
        same_person = sample["source_identity"] == sample["target_identity"]
        same_emotion = sample["source_emotion"] == sample["target_emotion"]
        first, second = (list(EIGHT.values())[clip_number(sample[side])] for side in ("source", "target"))
        assert same_person == (first[0] == second[0]) and EMOTIONS[sample["source_emotion"]] == first[1]
        expected = {
            "same_clip": (True, True), "same_identity": (True, False), "same_emotion": (False, True),
            "different": (False, False),
        }  # fmt: skip
        if kind == "same_pose":
            assert not same_person and frame_number(sample["source"]) == frame_number(sample["target"])
        else:
            assert (same_person, same_emotion) == expected[kind]
        assert sample["same_clip"] == (clip_number(sample["source"]) == clip_number(sample["target"]))
        if kind == "same_clip":
            assert frame_number(sample["source"]) != frame_number(sample["target"])
        assert abs(sample["source_pose"][0] - frame_number(sample["source"])) < 0.8
    shares = ClipsConfig()
    for kind, count in counts.items():
        wanted = getattr(shares, kind)
        assert abs(count / 600 - wanted) < 4 * (wanted / 600) ** 0.5  # four standard deviations


def test_small_corpora_degrade_with_a_message(tmp_path: Path) -> None:
    alone = IrfdPairs(corpus_of(tmp_path / "1", {"a": ("ann", None)}), ClipsConfig())
    assert {alone.KINDS[alone[index]["kind"]] for index in range(30)} == {"same_clip"}
    assert len(alone.messages) == 4 and any("one person only" in line for line in alone.messages)
    unlabelled = IrfdPairs(corpus_of(tmp_path / "2", {"a": ("ann", None), "b": ("bob", None)}), ClipsConfig())
    kinds = {unlabelled.KINDS[unlabelled[index]["kind"]] for index in range(60)}
    assert kinds == {"same_clip", "different"} and unlabelled[0]["source_emotion"] == -1
    photos = IrfdPairs(corpus_of(tmp_path / "3", {"a": ("ann", None, 1), "b": ("bob", None, 1)}), ClipsConfig())
    assert {photos.KINDS[photos[index]["kind"]] for index in range(30)} == {"different"}
    with pytest.raises(SpeakError, match="too small for any IRFD pair"):
        IrfdPairs(corpus_of(tmp_path / "4", {"a": ("ann", None, 1)}), ClipsConfig())
    silent = corpus_of(tmp_path / "5", {"a": ("ann", None), "b": ("bob", None)}, sound=False)
    for kind in (SyncWindows, SpeakWindows):
        with pytest.raises(SpeakError, match="none of 2 clips has sound"):
            kind(silent, ClipsConfig())
    one = SyncWindows(corpus_of(tmp_path / "6", {"a": ("ann", None)}), ClipsConfig(audio_context=CONTEXT))
    assert any("one clip" in line for line in one.messages)
    assert {one[index]["shift"] == 0 for index in range(40) if not one[index]["matched"]} == {False}
    short = SyncWindows(corpus_of(tmp_path / "7", {"a": ("ann", None, 7), "b": ("bob", None, 7)}), ClipsConfig())
    assert any("too short" in line for line in short.messages)
    with pytest.raises(SpeakError, match="split 'test'"):
        IrfdPairs(corpus_of(tmp_path / "8", {"a": ("ann", None)}), ClipsConfig(), split="test")


def test_sync_windows_match_their_sound_or_clearly_do_not(tmp_path: Path) -> None:
    config = ClipsConfig(audio_context=CONTEXT)
    windows = SyncWindows(corpus_of(tmp_path, EIGHT), config)
    around, own = round(CONTEXT * 16000), sample_of_frame(5)
    kinds = []
    for index in range(300):
        sample = windows[index]
        seen = [frame_number(frame) for frame in sample["frames"]]
        assert seen == list(range(seen[0], seen[0] + 5))
        assert sample["audio"].shape == (own + 2 * around,)
        heard = round(float(sample["audio"][around + 10]) * 100) - 1
        if sample["matched"]:
            assert heard == seen[0] and sample["shift"] == 0
        elif sample["shift"]:
            assert heard - seen[0] == sample["shift"] and abs(sample["shift"]) >= config.sync_shift
        kinds.append(1 if sample["matched"] else 2 if sample["shift"] else 3)
    assert abs(kinds.count(1) - 150) < 40 and abs(kinds.count(2) - 75) < 35 and abs(kinds.count(3) - 75) < 35


@pytest.mark.parametrize("source", ["elsewhere", "clip", "window"])
def test_speak_windows_take_emotion_from_where_it_is_said(tmp_path: Path, source: str) -> None:
    config = ClipsConfig(audio_context=CONTEXT, emotion_source=source)
    windows = SpeakWindows(corpus_of(tmp_path, EIGHT, poses=True), config)
    around = round(CONTEXT * 16000)
    for index in range(60):
        sample = windows[index]
        frames = [frame_number(frame) for frame in sample["frames"]]
        start = sample["first_frame"]
        assert frames == list(range(start, start + 5))
        assert frame_number(sample["identity"]) not in frames
        emotion = [frame_number(frame) for frame in sample["emotion_frames"]]
        assert len(emotion) == config.emotion_frames
        if source == "elsewhere":
            assert not set(emotion) & set(frames) and emotion == list(range(emotion[0], emotion[0] + 4))
        elif source == "clip":
            assert emotion == [0, 8, 15, 23]
        else:
            assert set(emotion) <= set(frames)
        pictures = [sample["identity"], *sample["frames"], *sample["emotion_frames"]]
        assert len({clip_number(picture) for picture in pictures}) == 1
        audio = sample["audio"]
        assert audio.shape == (sample_of_frame(5) + 2 * around,)
        assert round(float(audio[around]) * 100) - 1 == start
        before = audio[:around]
        assert not before[0] if start < 3 else round(float(before[0]) * 100) - 1 == start - 3
        assert sample["pose"].shape == (5, 6) and abs(sample["pose"][0, 0] - start) < 0.8
    with pytest.raises(SpeakError, match="emotion_source"):
        SpeakWindows(windows.corpus, ClipsConfig(emotion_source="nowhere"))


def same(one: dict, other: dict) -> bool:
    return all(torch.equal(torch.as_tensor(one[key]), torch.as_tensor(other[key])) for key in one)


def test_the_order_is_seeded_resumes_anywhere_and_divides_over_processes(tmp_path: Path) -> None:
    corpus = corpus_of(tmp_path, EIGHT)
    pairs = IrfdPairs(corpus, ClipsConfig(), seed=5)
    steps = list(itertools.islice(batches(pairs, 8), 6))
    resumed = list(itertools.islice(batches(pairs, 8, first_step=4), 2))
    assert same(steps[4], resumed[0]) and same(steps[5], resumed[1])
    halves = [next(batches(pairs, 8, first_step=3, rank=rank, world=2)) for rank in (0, 1)]
    joined = {key: torch.cat([halves[0][key], halves[1][key]]) for key in halves[0]}
    assert same(steps[3], joined)
    assert not same(steps[0], next(batches(IrfdPairs(corpus, ClipsConfig(), seed=6), 8)))
    with pytest.raises(SpeakError, match="does not divide"):
        next(batches(pairs, 8, world=3))


def test_workers_change_nothing_and_a_damaged_clip_is_one_line(tmp_path: Path) -> None:
    pairs = IrfdPairs(corpus_of(tmp_path, EIGHT), ClipsConfig(), seed=1)
    alone = list(itertools.islice(batches(pairs, 4), 3))
    helped = list(itertools.islice(batches(pairs, 4, workers=2), 3))
    assert all(same(one, other) for one, other in zip(alone, helped, strict=True))
    assert alone[0]["source"].dtype == torch.uint8 and alone[0]["source"].shape == (4, 16, 16, 3)
    for path in (tmp_path / "clips").glob("*.zip"):
        path.write_bytes(b"damaged")
    for workers in (0, 1):
        with pytest.raises(SpeakError, match=r"\.zip: is not a whole zip file") as caught:
            next(batches(IrfdPairs(PreparedCorpus(tmp_path), ClipsConfig()), 4, workers=workers))
        assert "\n" not in str(caught.value)


def test_frames_become_floats_from_minus_one_to_one() -> None:
    frames = torch.tensor([0, 255, 51], dtype=torch.uint8).reshape(1, 1, 1, 3)
    made = to_model(frames.expand(2, 4, 5, 3))
    assert made.shape == (2, 3, 4, 5)
    assert torch.allclose(made[0, :, 0, 0], torch.tensor([-1.0, 1.0, -0.6]))


@pytest.mark.parametrize("error", ["RuntimeError('a mistake')", "SystemExit(3)"])
def test_an_error_ends_the_program_while_workers_still_read(tmp_path: Path, error: str) -> None:
    """Workers leave signals to the training; an error whose traceback holds the batches must not wait for them."""
    corpus_of(tmp_path, EIGHT)
    program = f"""
from speak.config import ClipsConfig
from speak.datasets.batches import batches
from speak.datasets.clips import IrfdPairs
from speak.datasets.rendered import RenderedData
from speak.media.prepared import PreparedCorpus
from tests.small_training import small
if __name__ == "__main__":
    read = batches(IrfdPairs(PreparedCorpus({str(tmp_path)!r}), ClipsConfig()), 2, workers=1)
    rendered = RenderedData("judge", 3, "train", 16, small().rendered).batches(1, workers=1)
    next(read), next(rendered)
    raise {error}
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=100,
                          cwd=Path(__file__).parents[2])  # fmt: skip
    assert done.returncode == (3 if "3" in error else 1), done.stderr
    assert "worker" not in done.stderr


def test_a_damaged_clip_leaves_no_worker_behind(tmp_path: Path) -> None:
    pairs = IrfdPairs(corpus_of(tmp_path, EIGHT), ClipsConfig())
    for path in (tmp_path / "clips").glob("*.zip"):
        path.write_bytes(b"damaged")
    before = set(multiprocessing.active_children())
    with pytest.raises(SpeakError, match="is not a whole zip file"):
        next(batches(pairs, 4, workers=1))
    assert set(multiprocessing.active_children()) <= before
