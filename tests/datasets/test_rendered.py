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
from speak.datasets.rendered_draws import CUBE, Draws
from speak.datasets.stage_batches import moved, of_corpus
from speak.errors import SpeakError
from speak.models.codes import FACTORS
from speak.synthetic.other_voices import installed_voices
from speak.synthetic.phones import mouth_opening
from tests.tolerances import assert_close

SIZE = 32


def tensors_of(batch: object) -> list[Tensor]:
    values = [getattr(batch, field.name) for field in dataclasses.fields(batch)]
    found = [tensors_of(value) if dataclasses.is_dataclass(value) else [value] for value in values]
    return [value for value in itertools.chain(*found) if isinstance(value, Tensor)]


FEW = RenderedConfig(chunk=8, kept=8, uses=4, frame_uses=4)  # small blocks, so that few are rendered


def draws(stage: str, config: RenderedConfig = FEW, seed: int = 0) -> Draws:
    return Draws(stage, (seed, 0), config, 8)


@pytest.mark.parametrize("stage", STAGES)
def test_a_sample_depends_on_its_number_alone(stage: str) -> None:
    three = RenderedData(stage, seed=5, size=SIZE, config=FEW).batch([4, 900, 5])
    alone = RenderedData(stage, seed=5, size=SIZE, config=FEW).batch([5])
    pairs = ("identity_frames", "pose_frames", "emotion_frames")  # for S, then for T: three rows each, then one each
    for a, b in zip(tensors_of(three), tensors_of(alone), strict=True):
        assert torch.equal(a[2], b[0])  # to the bit: a resumed training must see what an uninterrupted one sees
    if stage == "irfd":
        assert all(torch.equal(getattr(three, name)[5], getattr(alone, name)[1]) for name in pairs)
    other = RenderedData(stage, seed=6, size=SIZE, config=FEW).batch([5])
    assert not torch.equal(tensors_of(alone)[0], tensors_of(other)[0])


def test_what_is_rendered_is_used_several_times_and_then_makes_room() -> None:
    data = RenderedData("irfd", size=SIZE, config=FEW)
    units = [data._draws.use(index)[0] for index in range(400)]
    assert min(units) == 0 and 99 <= max(units) <= 106 and len(set(units)) > 90
    assert all(index // 4 <= unit < index // 4 + 8 for index, unit in enumerate(units))
    for index in range(0, 400, 20):
        data.batch([index])
    assert len(data._stock) <= 10
    fresh = RenderedData("irfd", size=SIZE, config=dataclasses.replace(FEW, uses=1, kept=1))
    assert [fresh._draws.use(index)[0] for index in range(5)] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("stage", ["irfd", "audio"])
def test_two_processes_with_workers_see_the_global_batch_of_one(stage: str) -> None:
    data = RenderedData(stage, seed=1, size=SIZE, config=dataclasses.replace(FEW, speech_frames=15))
    whole = list(itertools.islice(data.batches(4), 2))
    halves = [list(itertools.islice(data.batches(4, rank=rank, world=2, workers=1), 2)) for rank in (0, 1)]
    resumed = next(data.batches(4, first_step=1))
    for step in (0, 1):
        parts = zip(tensors_of(whole[step]), *(tensors_of(half[step]) for half in halves), strict=True)
        for one, left, right in parts:
            if len(one) == 8:  # both pictures of four pairs: sources first, then targets
                left, right = (torch.cat(both) for both in zip(left.split(2), right.split(2), strict=True))
            assert torch.equal(one, torch.cat([left, right]))
    for again, before in zip(tensors_of(resumed), tensors_of(whole[1]), strict=True):
        assert torch.equal(again, before)
    with pytest.raises(SpeakError, match="batch of 5"):
        next(data.batches(5, world=2))


COLUMNS = {"identity": ("identity", "mouth", "light", "background", "person"),
           "emotion": ("emotion", "level", "emotion_weights"), "pose": ("pose", "eyes")}  # fmt: skip


def test_a_unit_of_irfd_has_every_combination_of_two_people_moods_and_poses() -> None:
    for number in range(6):
        rows = draws("irfd").unit(number).pictures
        for factor, fields in COLUMNS.items():
            for field in fields:
                value = getattr(rows, field)
                for corner in range(8):
                    assert torch.equal(value[corner], value[corner & CUBE[factor]])
        assert not torch.equal(rows.identity[0], rows.identity[7]) and rows.emotion[0] != rows.emotion[7]


def test_exchanged_pictures_and_the_encoders_other_pictures_share_what_they_should() -> None:
    config = dataclasses.replace(FEW, chunk=64)
    data = RenderedData("irfd", seed=3, size=SIZE, config=config)
    batch = data.batch(range(24))
    seen = set()
    for row in range(24):
        unit, how = data._draws.use(row)
        frames = data._unit(unit).frames
        factor = FACTORS[int(how["factor"])]
        seen.add(factor)

        def shown(corner: int, frames: Tensor = frames) -> Tensor:
            return frames[corner].float() / 127.5 - 1

        source, bit = int(how["source"]), CUBE[factor]
        assert_close(batch.source[row], shown(source))
        assert_close(batch.target[row], shown(7 - source))
        assert_close(batch.source_exchanged[row], shown(source ^ bit))
        assert_close(batch.target_exchanged[row], shown(7 - source ^ bit))
        for name, frame_bit in CUBE.items():
            others = getattr(batch, f"{name}_frames")
            # alike in that factor only: S's other picture has S's bit and the opposite of S's other two
            assert_close(others[row], shown((source & frame_bit) | (~source & 7 & ~frame_bit)))
            assert_close(others[24 + row], shown((~source & frame_bit) | (source & 7 & ~frame_bit)))
    assert seen == set(FACTORS)
    assert (batch.source_exchanged - batch.source).abs().mean((1, 2, 3)).min() > 0.001  # something was exchanged


def test_labels_say_what_is_seen() -> None:
    batch = RenderedData("judge", size=64, config=RenderedConfig(frame_uses=1, kept=1)).batch(range(16))
    assert batch.frames.shape == (16, 3, 64, 64) and batch.frames.min() >= -1 and batch.frames.max() <= 1
    labels = batch.labels
    nose = labels.landmarks[:, 30, 0] - labels.landmarks[:, [0, 16], 0].mean(1)  # turns with yaw, to the image's right
    assert np.corrcoef(nose, labels.pose[:, 0])[0, 1] > 0.8
    chin, brow = labels.landmarks[:, 8], labels.landmarks[:, 27]
    lean = torch.atan2(brow[:, 0] - chin[:, 0], chin[:, 1] - brow[:, 1])
    assert abs(np.corrcoef(lean, labels.pose[:, 2])[0, 1]) > 0.6
    assert labels.pose[:, 0].abs().max() <= 40 and labels.emotion.max() < len(EMOTIONS)
    lids = (labels.landmarks[:, [40, 41]] - labels.landmarks[:, [38, 37]])[..., 1].mean(1)  # of the eye at the left
    shut = RenderedData("judge", size=64, config=RenderedConfig(frame_uses=1, kept=1, blinks=1)).batch(range(48))
    wide = (shut.labels.landmarks[:, [40, 41]] - shut.labels.landmarks[:, [38, 37]])[..., 1].mean(1)
    assert np.corrcoef(wide, shut.labels.eyes[:, 0])[0, 1] < -0.6 and wide.mean() < lids.mean()
    assert torch.equal(labels.identity[0::2], labels.identity[1::2])  # one person twice, for comparison
    assert len(set(labels.identity.tolist())) == 8 and not torch.equal(batch.frames[0], batch.frames[1])


def test_people_seen_from_nearer_are_the_same_people_with_their_faces_still_in_the_picture() -> None:
    far, near = (dataclasses.replace(FEW, nearest=nearest, frame_uses=1, kept=1) for nearest in (1.0, 1.5))
    zooms = []
    for number in range(32):
        a, b = draws("judge", far).unit(number).pictures, draws("judge", near).unit(number).pictures
        for field in dataclasses.fields(a):
            if field.name != "pose":
                assert torch.equal(getattr(a, field.name), getattr(b, field.name)), field.name
        assert torch.equal(a.pose[:, :3], b.pose[:, :3])
        zooms += (b.pose[:, 5] / a.pose[:, 5]).tolist()
    assert 1 <= min(zooms) < 1.1 and 1.4 < max(zooms) <= 1.5
    marks = RenderedData("judge", size=64, config=near).batch(range(64)).labels.landmarks
    assert (((marks[:, 36:68] > 0) & (marks[:, 36:68] < 64)).all(2)).float().mean() > 0.99  # eyes and mouth


def test_photo_window_and_emotion_frames_are_seen_from_as_near() -> None:
    far, near = (draws("speak", dataclasses.replace(FEW, nearest=nearest)) for nearest in (1.0, 1.5))
    zooms = []
    for number in range(6):
        a, b = far.unit(number).pictures, near.unit(number).pictures
        own = a.person == a.person[0]
        zoom = b.pose[own, 5] / a.pose[own, 5]
        assert_close(zoom, zoom[:1].expand_as(zoom))
        zooms.append(float(zoom[0]))
    assert min(zooms) >= 1 and max(zooms) - min(zooms) > 0.1
    with pytest.raises(SpeakError, match="rendered.nearest 0.9"):
        draws("speak", dataclasses.replace(FEW, nearest=0.9))


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


def test_the_window_of_stage_speak_has_its_own_speech_in_the_middle_its_pose_and_eyes_on_somebody_else() -> None:
    drawn = [draws("speak", RenderedConfig(frames=24, context=30)).unit(number) for number in range(24)]
    begin = sample_of_frame(30)
    pairs = []
    for unit in drawn:
        speech = unit.tensors["speech"]
        assert speech.shape == (sample_of_frame(24 + 60),)
        own, driving, elsewhere = (unit.pictures[a:b] for a, b in ((1, 25), (25, 49), (49, 50)))
        assert torch.equal(own.pose, driving.pose) and len(set(own.pose[:, 0].tolist())) > 1
        assert torch.equal(own.eyes, driving.eyes) and len(set(own.eyes[:, 2].tolist())) > 1
        assert not torch.equal(own.identity, driving.identity) and own.emotion[0] != driving.emotion[0]
        assert not torch.equal(own.mouth, driving.mouth)
        assert torch.equal(elsewhere.identity[0], own.identity[0]) and elsewhere.emotion[0] == own.emotion[0]
        pairs.append((speech[begin:], mouth_opening(own.mouth)))
    assert best_shift(pairs, range(-6, 7)) == 0
    batch = RenderedData("speak", size=SIZE, config=FEW).batch(range(2))
    assert batch.frames.shape == batch.pose_frames.shape == (2, 5, 3, SIZE, SIZE) and batch.context == 60
    assert batch.identity_frame.shape == (2, 3, SIZE, SIZE) and batch.emotion_frames.shape[:2] == (2, 3)
    assert batch.labels.landmarks.shape == (2, 5, 68, 2) and batch.phones.shape == (2, 5)


def test_what_stage_speak_reads_codes_from_has_only_their_factor_in_common_with_the_window() -> None:
    for number in range(24):
        pictures = draws("speak", RenderedConfig(frames=4, emotion_frames=2)).unit(number).pictures
        assert len(pictures) == 1 + 4 + 4 + 2 + 1 + 2
        own, person, feeling = (pictures[a:b] for a, b in ((1, 5), (11, 12), (12, 14)))
        assert torch.equal(person.identity[0], own.identity[0]) and torch.equal(person.background[0], own.background[0])
        assert person.emotion[0] != own.emotion[0]
        assert torch.equal(feeling.emotion, own.emotion[:2]) and torch.equal(feeling.level, own.level[:2])
        assert not torch.equal(feeling.identity[0], own.identity[0]) and not torch.equal(feeling.mouth, own.mouth[:2])
        for told in (person, feeling):  # the strengths are those of the emotion that the label says
            felt = (told.emotion_weights > 0.05).nonzero()[:, 1]
            assert set(felt.tolist()) - {EMOTIONS.index("neutral")} <= set(told.emotion.tolist())
            assert set(told.emotion.tolist()) <= set(felt.tolist())
    batch = RenderedData("speak", size=SIZE, config=FEW).batch(range(2))
    assert batch.identity_frame_other.shape == batch.identity_frame.shape
    assert batch.emotion_frames_other.shape == batch.emotion_frames.shape


def test_the_speech_of_stage_syncnet_is_shifted_by_what_its_label_says() -> None:
    config = RenderedConfig(frames=60, matched=0.4, longest_shift=4, augmented_speech=0.0, chunk=60, uses=10, kept=8)
    data = RenderedData("syncnet", size=8, config=config)
    batch = data.batch(range(80))
    uses = [data._draws.use(index) for index in range(80)]
    openings = {unit: data._unit(unit).labels.mouth_opening for unit, _ in uses}
    pairs: dict[int, list[tuple[Tensor, Tensor]]] = {}
    for row, (unit, how) in enumerate(uses):
        assert int(batch.shift[row]) == int(how["shift"]) and batch.matched[row] == how["matched"]
        if not how["foreign"]:
            pairs.setdefault(int(how["shift"]), []).append((batch.speech[row], openings[unit]))
    assert 0.2 < batch.matched.mean() < 0.6 and set(pairs) == {-4, -3, -2, 0, 2, 3, 4}
    for shift, rows in pairs.items():
        assert abs(best_shift(rows, range(-9, 10)) - shift) <= (0 if shift == 0 else 1), shift
    assert sum(bool(how["foreign"]) for _, how in uses) > 4


def test_labels_of_stage_audio_go_with_the_sound() -> None:
    clean = RenderedData("audio", config=RenderedConfig(augmented_speech=0.0, uses=1, kept=1)).batch(range(6))
    assert clean.speech.shape == (6, 48000) and clean.phones.shape == (6, 90) and clean.mouth.shape == (6, 90, 6)
    frames = torch.stack([clean.speech[:, sample_of_frame(t) : sample_of_frame(t) + 533] for t in range(90)], 1)
    loud = frames.square().mean(-1).sqrt()
    silent = clean.phones == 0
    still = silent & silent.roll(1, 1) & silent.roll(-1, 1)  # not at the edge of a phone
    assert still.sum() > 20 and loud[still].max() < 0.03 * loud.max()
    assert best_shift([(clean.speech[row], clean.mouth_opening[row]) for row in range(6)], range(-6, 7)) == 0


def test_bad_conditions_keep_time_and_change_the_sound() -> None:
    config = RenderedConfig(augmented_speech=1.0)

    def speech_of(config: RenderedConfig) -> np.ndarray:
        return torch.stack([draws("audio", config).unit(number).tensors["speech"] for number in range(6)]).numpy()

    bad = speech_of(config)
    good = speech_of(dataclasses.replace(config, augmented_speech=0.0))
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
        "from speak.config import RenderedConfig\n"
        "batch = RenderedData('speak', size=32, config=RenderedConfig(chunk=8)).batch([0])\n"
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
    config = RenderedConfig(installed_voices=1.0, augmented_speech=0.0, uses=1, kept=1)
    batch = RenderedData("audio", config=config).batch(range(4))
    assert batch.speech.shape == (4, 48000) and batch.speech.abs().amax(1).min() > 0.01
    assert best_shift([(batch.speech[row], batch.mouth_opening[row]) for row in range(4)], range(-6, 7)) in (-1, 0, 1)
    own = RenderedData("audio", config=dataclasses.replace(config, installed_voices=0.0)).batch(range(4))
    assert not torch.equal(own.speech, batch.speech)
