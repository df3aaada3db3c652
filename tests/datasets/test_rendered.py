"""Batches of rendered people: each sample a function of its number, exchanges true, sound and picture together."""

import dataclasses
import itertools
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import Tensor

from speak.config import EMOTIONS, RenderedConfig, sample_of_frame
from speak.datasets.rendered import STAGES, RenderedData, synthetic_seed
from speak.datasets.rendered_draws import Pictures
from speak.datasets.stage_batches import FACTORS, moved, of_corpus
from speak.errors import SpeakError
from speak.synthetic.other_voices import installed_voices
from speak.synthetic.phones import mouth_opening
from tests.tolerances import assert_close

SIZE = 32


def tensors_of(batch: object) -> list[Tensor]:
    values = [getattr(batch, field.name) for field in dataclasses.fields(batch)]
    found = [tensors_of(value) if dataclasses.is_dataclass(value) else [value] for value in values]
    return [value for value in itertools.chain(*found) if isinstance(value, Tensor)]


def assert_same(one: Tensor, other: Tensor) -> None:
    """Equal where numbers and speech are concerned; a batch's size may move a picture's last bit."""
    if one.is_floating_point():
        assert_close(one, other)
    else:
        assert torch.equal(one, other)


@pytest.mark.parametrize("stage", STAGES)
def test_a_sample_depends_on_its_number_alone(stage: str) -> None:
    data = RenderedData(stage, seed=5, size=SIZE)
    three = tensors_of(data.batch([4, 900, 5]))
    alone = tensors_of(RenderedData(stage, seed=5, size=SIZE).batch([5]))
    for a, b in zip(three, alone, strict=True):
        assert_same(a[2], b[0])
    other = tensors_of(RenderedData(stage, seed=6, size=SIZE).batch([5]))
    assert not torch.equal(alone[0], other[0])


@pytest.mark.parametrize("stage", ["irfd", "audio"])
def test_two_processes_with_workers_see_the_global_batch_of_one(stage: str) -> None:
    data = RenderedData(stage, seed=1, size=SIZE, config=RenderedConfig(speech_frames=15))
    whole = list(itertools.islice(data.batches(4), 2))
    halves = [list(itertools.islice(data.batches(4, rank=rank, world=2, workers=1), 2)) for rank in (0, 1)]
    resumed = next(data.batches(4, first_step=1))
    for step in (0, 1):
        parts = zip(tensors_of(whole[step]), *(tensors_of(half[step]) for half in halves), strict=True)
        for one, left, right in parts:
            assert_same(one, torch.cat([left, right]))
    for again, before in zip(tensors_of(resumed), tensors_of(whole[1]), strict=True):
        assert_same(again, before)
    with pytest.raises(SpeakError, match="batch of 5"):
        next(data.batches(5, world=2))


def test_exchanged_pictures_have_the_factor_from_the_other_and_all_else_their_own() -> None:
    drawn = RenderedData("irfd", size=SIZE).draw(range(24))
    columns = {"identity": ("identity", "mouth", "eyes", "light", "background", "person"),
               "emotion": ("emotion", "level", "emotion_weights"), "pose": ("pose",)}  # fmt: skip
    seen = set()
    for row in range(24):
        source, target, a, b = (drawn.pictures[4 * row + place : 4 * row + place + 1] for place in range(4))
        factor = FACTORS[drawn.tensors["factor"][row]]
        seen.add(factor)
        for name, fields in columns.items():
            for field in fields:
                s, t, one, other = (getattr(picture, field) for picture in (source, target, a, b))
                assert torch.equal(one, t if name == factor else s)
                assert torch.equal(other, s if name == factor else t)
        assert not torch.equal(source.identity, target.identity) and source.emotion != target.emotion
    assert seen == set(FACTORS)


def test_the_true_picture_of_an_exchange_is_the_one_rendered_from_those_numbers() -> None:
    data = RenderedData("irfd", seed=3, size=SIZE)
    batch, drawn = data.batch([7]), data.draw([7])
    rows = [drawn.pictures[place : place + 1] for place in range(4)]
    factor = FACTORS[int(batch.factor)]
    fields = {"identity": ("identity", "mouth", "eyes", "light", "background", "person"),
              "emotion": ("emotion", "level", "emotion_weights"), "pose": ("pose",)}[factor]  # fmt: skip
    by_hand = dataclasses.replace(rows[0], **{field: getattr(rows[1], field) for field in fields})
    shown = data._show(Pictures.joined([by_hand]), 1, "cpu")
    assert_close(shown.frames[0], batch.source_exchanged)
    error = (batch.source_exchanged - batch.source).abs().mean()
    assert error > 0.005  # something was exchanged


def test_labels_say_what_is_seen() -> None:
    batch = RenderedData("judge", size=64).batch(range(16))
    assert batch.frames.shape == (16, 3, 64, 64) and batch.frames.min() >= -1 and batch.frames.max() <= 1
    labels = batch.labels
    nose = labels.landmarks[:, 30, 0] - labels.landmarks[:, [0, 16], 0].mean(1)  # turns with yaw, to the image's right
    assert np.corrcoef(nose, labels.pose[:, 0])[0, 1] > 0.8
    chin, brow = labels.landmarks[:, 8], labels.landmarks[:, 27]
    lean = torch.atan2(brow[:, 0] - chin[:, 0], chin[:, 1] - brow[:, 1])
    assert abs(np.corrcoef(lean, labels.pose[:, 2])[0, 1]) > 0.6
    assert labels.pose[:, 0].abs().max() <= 40 and labels.emotion.max() < len(EMOTIONS)
    assert torch.equal(labels.identity[0::2], labels.identity[1::2])  # one person twice, for comparison
    assert len(set(labels.identity.tolist())) == 8


def test_held_out_people_are_in_no_other_split() -> None:
    faces = {}
    for split in ("train", "val", "test"):
        data = RenderedData("irfd", split=split, config=RenderedConfig(identities=30))
        faces[split] = {tuple(data._draws.person(number).identity.tolist()) for number in range(30)}
        assert len(faces[split]) == 30
    assert not faces["train"] & faces["val"] and not faces["train"] & faces["test"]
    assert not faces["val"] & faces["test"]


def loudness_and_opening(speech: Tensor, opening: Tensor, shift: int) -> tuple[np.ndarray, np.ndarray]:
    """Of frames t: the loudness of the speech at t - shift, and the mouth's opening, where both exist."""
    frames = len(opening)
    rows = [(t - shift, t) for t in range(frames) if 0 <= t - shift < frames]
    loud = [speech[sample_of_frame(a) : sample_of_frame(a + 1)].square().mean().sqrt() for a, _ in rows]
    return np.array(loud), opening[[b for _, b in rows]].numpy()


def best_shift(pairs: list[tuple[Tensor, Tensor]], shifts: range) -> int:
    found = {}
    for shift in shifts:
        rows = [loudness_and_opening(speech, opening, shift) for speech, opening in pairs]
        found[shift] = np.mean([np.corrcoef(loud, opened)[0, 1] for loud, opened in rows if loud.std() * opened.std()])
    return max(found, key=found.get)


def test_the_window_of_stage_speak_has_its_own_speech_in_the_middle_and_its_pose_on_somebody_else() -> None:
    data = RenderedData("speak", size=SIZE, config=RenderedConfig(frames=24, context=30))
    drawn = data.draw(range(24))
    speech, begin = drawn.tensors["speech"], sample_of_frame(30)
    assert speech.shape == (24, sample_of_frame(24 + 60))
    pairs = []
    for row in range(24):
        own = drawn.pictures[row * 50 + 1 : row * 50 + 25]
        driving, elsewhere = (drawn.pictures[row * 50 + a : row * 50 + b] for a, b in ((25, 49), (49, 50)))
        assert torch.equal(own.pose, driving.pose) and len(set(own.pose[:, 0].tolist())) > 1
        assert not torch.equal(own.identity, driving.identity) and own.emotion[0] != driving.emotion[0]
        assert not torch.equal(own.mouth, driving.mouth)
        assert torch.equal(elsewhere.identity[0], own.identity[0]) and elsewhere.emotion[0] == own.emotion[0]
        pairs.append((speech[row, begin:], mouth_opening(own.mouth)))
    assert best_shift(pairs, range(-6, 7)) == 0
    batch = RenderedData("speak", size=SIZE).batch(range(2))
    assert batch.frames.shape == batch.pose_frames.shape == (2, 5, 3, SIZE, SIZE) and batch.context == 60
    assert batch.identity_frame.shape == (2, 3, SIZE, SIZE) and batch.emotion_frames.shape[:2] == (2, 1)
    assert batch.labels.landmarks.shape == (2, 5, 68, 2) and batch.phones.shape == (2, 5)


def test_the_speech_of_stage_syncnet_is_shifted_by_what_its_label_says() -> None:
    config = RenderedConfig(frames=60, matched=0.4, longest_shift=4, augmented_speech=0.0)
    drawn = RenderedData("syncnet", size=SIZE, config=config).draw(range(80))
    pairs: dict[int, list[tuple[Tensor, Tensor]]] = {}
    matched = drawn.tensors["matched"] == 1
    for row in range(80):
        shift = int(drawn.tensors["shift"][row])
        if matched[row] or shift:
            opening = mouth_opening(drawn.pictures[row * 60 : row * 60 + 60].mouth)
            pairs.setdefault(shift, []).append((drawn.tensors["speech"][row], opening))
    assert 0.2 < matched.float().mean() < 0.6 and set(pairs) == {-4, -3, -2, 0, 2, 3, 4}
    for shift, rows in pairs.items():
        assert abs(best_shift(rows, range(-9, 10)) - shift) <= (0 if shift == 0 else 1), shift
    foreign = [row for row in range(80) if not matched[row] and not drawn.tensors["shift"][row]]
    assert len(foreign) > 4


def test_labels_of_stage_audio_go_with_the_sound() -> None:
    clean = RenderedData("audio", config=RenderedConfig(augmented_speech=0.0)).batch(range(6))
    assert clean.speech.shape == (6, 48000) and clean.phones.shape == (6, 90) and clean.mouth.shape == (6, 90, 6)
    frames = torch.stack([clean.speech[:, sample_of_frame(t) : sample_of_frame(t) + 533] for t in range(90)], 1)
    loud = frames.square().mean(-1).sqrt()
    silent = clean.phones == 0
    still = silent & silent.roll(1, 1) & silent.roll(-1, 1)  # not at the edge of a phone
    assert still.sum() > 20 and loud[still].max() < 0.03 * loud.max()
    assert best_shift([(clean.speech[row], clean.mouth_opening[row]) for row in range(6)], range(-6, 7)) == 0


def test_bad_conditions_keep_time_and_change_the_sound() -> None:
    config = RenderedConfig(augmented_speech=1.0)
    bad = RenderedData("audio", config=config).draw(range(6)).tensors["speech"].numpy()
    clean = RenderedData("audio", config=dataclasses.replace(config, augmented_speech=0.0))
    good = clean.draw(range(6)).tensors["speech"].numpy()
    for one, other in zip(bad, good, strict=True):
        assert np.isfinite(one).all() and np.abs(one).max() <= 1 and np.abs(one - other).max() > 1e-3
        spectra = np.fft.rfft(one, 2 * len(one)), np.fft.rfft(other, 2 * len(other))
        likeness = np.fft.irfft(spectra[0] * spectra[1].conj())
        lag = int(np.argmax(np.abs(likeness)))
        assert min(lag, len(likeness) - lag) <= 16  # 1 ms


def test_a_prepared_corpus_gives_the_same_kinds_of_batches() -> None:
    frames = torch.zeros(2, 5, 8, 8, 3, dtype=torch.uint8)
    number = torch.tensor([1, 2])
    pairs = {"source": frames[:, 0], "target": frames[:, 0] + 255, "same_clip": torch.tensor([1, 0])}
    pairs |= {f"{side}_{name}": number for side in ("source", "target") for name in ("identity", "emotion", "level")}
    batch = of_corpus("irfd", pairs)
    assert batch.has_exchanged.tolist() == [True, False] and FACTORS[batch.factor[0]] == "pose"
    assert torch.equal(batch.source_exchanged[0], batch.target[0]) and batch.target.min() == 1
    speech = torch.arange(2 * 32000 + sample_of_frame(5)).float().expand(2, -1)
    sync = of_corpus("syncnet", {"frames": frames, "audio": speech, "matched": number, "shift": number})
    assert sync.speech.shape == (2, sample_of_frame(5)) and sync.speech[0, 0] == 32000
    rows = {"identity": frames[:, 0], "frames": frames, "emotion_frames": frames, "audio": speech, "person": number,
            "emotion": number, "level": number}  # fmt: skip
    window = of_corpus("speak", rows)
    assert window.context == 60 and window.labels.identity.shape == (2, 5) and window.labels.pose is None
    assert moved(window, "meta").frames.device.type == "meta"


def test_it_runs_where_media_packages_are_missing() -> None:
    program = (
        "import sys\n"
        "for name in ('soundfile', 'imageio', 'imageio_ffmpeg', 'PIL'): sys.modules[name] = None\n"
        "from speak.datasets.rendered import RenderedData\n"
        "batch = RenderedData('speak', size=32).batch([0])\n"
        "print(tuple(batch.frames.shape))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.strip() == "(1, 5, 3, 32, 32)", done.stderr


def test_a_stage_or_split_that_does_not_exist_is_refused() -> None:
    with pytest.raises(SpeakError, match="dance"):
        RenderedData("dance")
    with pytest.raises(SpeakError, match="everyone"):
        RenderedData("irfd", split="everyone")


def test_the_data_flag_names_the_seed() -> None:
    assert [synthetic_seed(text) for text in ("synthetic", "synthetic:7", "corpora/mead")] == [0, 7, None]
    for text in ("synthetic:", "synthetic:-1", "synthetic:x"):
        with pytest.raises(SpeakError, match=text):
            synthetic_seed(text)


@pytest.mark.skipif(not installed_voices(), reason="neither espeak-ng nor flite is installed")
def test_installed_voices_speak_where_they_are_asked_for() -> None:
    config = RenderedConfig(installed_voices=1.0, augmented_speech=0.0)
    batch = RenderedData("audio", config=config).batch(range(4))
    assert batch.speech.shape == (4, 48000) and batch.speech.abs().amax(1).min() > 0.01
    assert best_shift([(batch.speech[row], batch.mouth_opening[row]) for row in range(4)], range(-6, 7)) in (-1, 0, 1)
    own = RenderedData("audio", config=RenderedConfig(augmented_speech=0.0)).batch(range(4))
    assert not torch.equal(own.speech, batch.speech)
