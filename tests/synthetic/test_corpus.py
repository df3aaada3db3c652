"""`python -m speak synth`: exact truth, the same bytes from the same seed, whole clips only, MEAD and back."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from speak.cli import main
from speak.config import EMOTIONS, SynthConfig, sample_of_frame
from speak.errors import SpeakError
from speak.media.prepared import PreparedCorpus
from speak.synthetic import performance
from speak.synthetic.corpus import Corpus
from speak.synthetic.corpus_files import write_prepared
from speak.synthetic.identity import IDENTITY_NAMES, RESTING
from speak.synthetic.phones import PHONES, closures, frame_times

SMALL = SynthConfig(identities=1, clips=2, size=48, seconds=0.6)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("people")
    assert write_prepared(Corpus(SMALL), folder) == 2
    return folder


def test_the_same_seed_gives_the_same_bytes(small: Path, tmp_path: Path) -> None:
    write_prepared(Corpus(SMALL), tmp_path)
    assert contents(tmp_path) == contents(small)


def test_two_processes_write_the_same_bytes_as_one(small: Path, tmp_path: Path) -> None:
    assert write_prepared(Corpus(SMALL), tmp_path, workers=2) == 2
    assert contents(tmp_path) == contents(small)


def test_another_seed_gives_other_people_and_sentences(small: Path, tmp_path: Path) -> None:
    corpus, other = Corpus(SMALL), Corpus(SynthConfig(seed=1, seconds=0.6))
    assert not torch.equal(corpus.person(0).identity, other.person(0).identity)
    clip = next(corpus.clips())
    assert corpus.perform(clip).phones.names != other.perform(clip).phones.names


def test_the_truth_on_disk_is_that_of_the_clip(small: Path) -> None:
    prepared, corpus = PreparedCorpus(small), Corpus(SMALL)
    for record, clip in zip(prepared.clips, corpus.clips(), strict=True):
        truth, labels = corpus.perform(clip), prepared.labels(record)
        count = record.frames
        assert (record.name, record.emotion, record.level) == (clip.name, EMOTIONS[clip.emotion], clip.level)
        assert {name: labels[name].shape for name in ("pose", "landmarks", "mouth_opening")} == {
            "pose": (count, 6), "landmarks": (count, 68, 2), "mouth_opening": (count,)
        }  # fmt: skip
        assert np.array_equal(labels["pose"], truth.pose.numpy())
        assert set(labels["phones"]) <= set(PHONES) and labels["phone_times"].shape == (len(labels["phones"]), 2)
        assert labels["phone_times"][-1, 0] < count / 30 <= labels["phone_times"][-1, 1] + 1 / 30
        sound = prepared.audio(record, 0, sample_of_frame(count))
        assert np.abs(sound - truth.sound()).max() < 1 / 30000
        frames = prepared.frames(record, range(count))
        assert frames.shape == (count, 48, 48, 3) and frames.std() > 20
        face = labels["landmarks"].reshape(-1, 2)
        assert face.min() > 0 and face.max() < 48


def test_a_share_of_people_has_the_proportions_of_adults_and_nothing_else_changes() -> None:
    corpora = [Corpus(SynthConfig(lifelike=lifelike)) for lifelike in (0.0, 0.3, 1.0)]
    figurines, some, adults = ([corpus.person(number) for number in range(200)] for corpus in corpora)
    place = IDENTITY_NAMES.index("lifelike")
    others = [index for index, name in enumerate(IDENTITY_NAMES) if name not in (*RESTING, "lifelike")]
    resting = [IDENTITY_NAMES.index(name) for name in RESTING]
    for one, other, third in zip(figurines, some, adults, strict=True):
        assert torch.equal(one.identity[others], other.identity[others]) and one.voice == other.voice
        assert one.identity[place] == 0 and 0.6 <= third.identity[place] <= 1
        assert (one.identity[resting] == 0.5).all()
        assert other.identity[place] in (0, third.identity[place])
    assert 40 < sum(bool(person.identity[place] > 0) for person in some) < 80
    spread = torch.stack([person.identity[resting] for person in adults])
    assert (spread.amin(0) < 0.1).all() and (spread.amax(0) > 0.9).all()
    with pytest.raises(SpeakError, match="0 to 1"):
        Corpus(SynthConfig(lifelike=-0.1)).person(0)


def test_the_drawn_mouth_is_shut_in_every_bilabial_and_opens_on_open_vowels() -> None:
    corpus = Corpus(SynthConfig(identities=4, clips=4, seconds=3.0))
    shut, opened = [], []
    for clip in list(corpus.clips())[::5]:  # other people in other emotions
        truth = corpus.perform(clip)
        times = frame_times(0, truth.frames)
        closed, open_ = np.zeros(truth.frames, bool), np.zeros(truth.frames, bool)
        for name, start, end in closures(truth.phones):
            closed |= (name in "pbm") & (times > start + 0.012) & (times < end - 0.012)
        for name, start, end in zip(truth.phones.names, truth.phones.starts, truth.phones.ends, strict=True):
            middle = 0.5 * (start + end)
            open_ |= (name in ("aa", "ae", "ay", "aw")) & (end - start > 0.12) & (abs(times - middle) < 0.017)
        frames = torch.from_numpy(np.nonzero(closed | open_)[0])
        opening = truth.render(frames, 32).mouth_opening.numpy()
        shut.append(opening[closed[frames]])
        opened.append(opening[open_[frames]])
    shut, opened = np.concatenate(shut), np.concatenate(opened)
    assert len(shut) > 8 and shut.max() < 0.05, shut
    assert len(opened) > 4 and opened.min() > 0.3, opened


def test_the_same_person_can_say_the_same_sentence_in_another_emotion() -> None:
    from speak.synthetic.performance import make_person, perform

    person = make_person(0, 3, 5)
    calm, angry = (perform(person, EMOTIONS.index(e), 3, (1, 2), (3, 4), 1.0) for e in ("neutral", "angry"))
    assert calm.phones.names == angry.phones.names
    assert torch.equal(calm.person.identity, angry.person.identity) and calm.person.voice == angry.person.voice
    assert np.sqrt(np.mean(angry.sound() ** 2)) > 1.5 * np.sqrt(np.mean(calm.sound() ** 2))
    assert not torch.equal(calm.emotion_weights[-1], angry.emotion_weights[-1])


def test_an_interrupted_run_leaves_whole_clips_only_and_goes_on(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rendered, calls = performance.render, []

    def interrupted(*arguments: object, **options: object) -> object:
        calls.append(0)
        if len(calls) == 4:  # in the middle of the second clip
            raise KeyboardInterrupt
        return rendered(*arguments, **options)

    monkeypatch.setattr(performance, "render", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_prepared(Corpus(SMALL), tmp_path)
    monkeypatch.undo()
    assert len(PreparedCorpus(tmp_path).clips) == 1
    assert not [name for name in contents(tmp_path) if name.endswith(".part")]
    assert write_prepared(Corpus(SMALL), tmp_path) == 1
    assert contents(tmp_path) == contents(small)


def test_a_larger_corpus_contains_the_smaller(small: Path) -> None:
    more = list(Corpus(SynthConfig(identities=2, clips=25, seconds=0.6)).clips())
    assert [clip for clip in more if clip in list(Corpus(SMALL).clips())] == list(Corpus(SMALL).clips())
    first = [clip for clip in more if clip.person == 0]
    assert len({(clip.emotion, clip.level) for clip in first[:22]}) == 22  # all that MEAD has
    assert {clip.emotion for clip in first[:8]} == set(range(8)) and first[22].take == 2
    assert len({clip.name for clip in more}) == 50


def test_mead_layout_prepared_is_the_prepared_corpus_up_to_coding(small: Path, tmp_path: Path) -> None:
    raw, out = tmp_path / "raw", tmp_path / "out"
    arguments = ["--identities", "1", "--clips", "2", "--size", "48", "--seconds", "0.6", "--workers", "1"]
    assert main(["synth", "--out", str(raw), "--layout", "mead", *arguments]) == 0
    assert main(["synth", "--out", str(raw), "--layout", "mead", *arguments]) == 0  # nothing to do
    tree = contents(raw)
    assert sorted(Path(name).suffix for name in tree) == [".json", ".m4a", ".m4a", ".mp4", ".mp4"]
    whole = ["--box", "0,0,48,48", "--size", "48", "--shortest-clip", "5"]
    assert main(["prepare", str(raw), "--layout", "mead", "--out", str(out), *whole]) == 0
    direct, through = PreparedCorpus(small), PreparedCorpus(out)
    assert {r.name for r in direct.clips} == {r.name for r in through.clips}
    for one in direct.clips:
        other = next(record for record in through.clips if record.name == one.name)
        facts = ("identity", "emotion", "level", "view", "frames", "split", "sound")
        assert [getattr(one, fact) for fact in facts] == [getattr(other, fact) for fact in facts]
        frames = [c.frames(r, range(r.frames)).astype(np.float64) for c, r in ((direct, one), (through, other))]
        assert 10 * np.log10(255**2 / np.mean((frames[0] - frames[1]) ** 2)) > 28
        sounds = [c.audio(r, 0, sample_of_frame(r.frames)) for c, r in ((direct, one), (through, other))]
        assert np.corrcoef(*sounds)[0, 1] > 0.97
        late = [np.mean((frames[0][1:-1] - frames[1][1 + by : len(frames[1]) - 1 + by]) ** 2) for by in (-1, 0, 1)]
        assert np.argmin(late) == 1  # each frame at its own time
        lags = np.correlate(sounds[1], sounds[0][400:-400])
        assert abs(np.argmax(lags) - 400) <= 1  # samples


def test_preview_is_a_sheet_and_a_clip(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from speak.media.image import read_image
    from speak.media.video import probe

    arguments = ["--identities", "1", "--size", "32", "--seconds", "0.6", "--preview"]
    assert main(["synth", "--out", str(tmp_path), *arguments]) == 0
    assert read_image(tmp_path / "preview.png").shape == (32, 256, 3)
    assert probe(tmp_path / "preview.mp4").sound
    assert sorted(contents(tmp_path)) == ["preview.mp4", "preview.png"]


@pytest.mark.parametrize(("words", "told"), [
    (["--identities", "0"], "--identities 0"), (["--clips", "-3"], "--clips -3"), (["--size", "4"], "--size 4"),
    (["--seed", "-1"], "--seed -1"), (["--identities", "1000", "--layout", "mead"], "at most 999"),
    (["--lifelike", "1.5"], "--lifelike 1.5"),
])  # fmt: skip
def test_settings_that_make_no_sense_are_refused_in_one_line(
    words: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["synth", "--out", str(tmp_path / "x"), *words]) == 2
    error = capsys.readouterr().err
    assert told in error and error.count("\n") == 1
    assert not (tmp_path / "x").exists()


def test_a_folder_of_another_corpus_is_refused_and_left_alone(small: Path, tmp_path: Path) -> None:
    before = contents(small)
    with pytest.raises(SpeakError, match="another seed"):
        write_prepared(Corpus(dataclasses.replace(SMALL, seed=1)), small)
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(SpeakError, match="something else"):
        write_prepared(Corpus(SMALL), tmp_path)
    assert contents(small) == before and list(contents(tmp_path)) == ["thesis.txt"]


def test_the_index_is_plain_lines_of_json(small: Path) -> None:
    lines = [json.loads(line) for line in (small / "index.jsonl").read_text().splitlines()]
    assert [line["emotion"] for line in lines] == ["angry", "contempt"] and all(line["labels"] for line in lines)
