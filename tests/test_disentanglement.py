"""The instrument itself: on codes, pictures and clips made so that the right answer is known."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from speak import disentanglement, disentanglement_exchanges
from speak.clip_generation import Drivers, encode_clip, generate_clip, measuring
from speak.config import DisentanglementConfig, preset
from speak.datasets.rendered import RenderedData, fresh
from speak.disentanglement_exchanges import exchange_audio, exchange_factors
from speak.disentanglement_probes import linear_probe, probe, r2, read_class
from speak.metrics import effective_rank
from speak.models.codes import FACTORS, Codes
from speak.models.irfd import ENCODERS
from speak.models.judge import Judge, Reading
from speak.models.speak import Speak
from tests.tolerances import assert_close

SIZE = 32
PAIRS = 12


def random(seed: int, *shape: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape))


def test_a_probe_reads_what_is_linear_in_a_code_and_nothing_of_what_is_not_there() -> None:
    codes = random(1, 600, 20)
    inside = codes @ random(2, 20, 2) + 0.1 * random(3, 600, 2) + 5
    targets = torch.cat([inside, random(4, 600, 1)], 1)
    share = r2(linear_probe(codes[:400], targets[:400], codes[400:]), targets[400:])
    assert share[:2].min() > 0.99 and abs(share[2]) < 0.15
    labels = (codes[:, 0] > 0).long() + 2 * (codes[:, 1] > 0).long()
    assert read_class(codes[:400], labels[:400], codes[400:], labels[400:], 4) > 0.85
    foreign = torch.from_numpy(np.random.default_rng(5).integers(0, 4, 600))
    assert read_class(codes[:400], foreign[:400], codes[400:], foreign[400:], 4) < 0.4


def test_r2_is_the_textbooks() -> None:
    truth, read = random(6, 50, 1), random(7, 50, 1)
    expected = 1 - ((truth - read) ** 2).sum() / ((truth - truth.mean()) ** 2).sum()
    assert_close(r2(read, truth), expected[None])


def test_effective_rank_counts_the_directions_that_carry_anything() -> None:
    orthogonal = torch.linalg.qr(random(8, 200, 10) - random(8, 200, 10).mean(0))[0]
    orthogonal = orthogonal - orthogonal.mean(0)
    assert effective_rank(orthogonal) == pytest.approx(10, abs=0.01)
    assert effective_rank(random(9, 200, 1) @ random(10, 1, 10)) == pytest.approx(1, abs=1e-6)
    assert effective_rank(torch.ones(50, 4)) == 0.0
    # singular values 3 : 1: exp of the entropy of (3/4, 1/4)
    axes = orthogonal[:, :2] @ torch.diag(torch.tensor([3.0, 1.0], dtype=torch.float64))
    assert effective_rank(axes) == pytest.approx(4 / 3**0.75, abs=0.01)


class PerfectIrfd(nn.Module):
    """Its codes are places in the batch, and it draws the true pictures, one grey level off."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        drawn = RenderedData("irfd", 0, "test", SIZE, fresh()).batch(range(PAIRS))
        self.frames = torch.cat([drawn.source, drawn.target])
        self.true = torch.cat([drawn.source_exchanged, drawn.target_exchanged])
        self.factor = [FACTORS[number] for number in drawn.factor.tolist()] * 2

    def encode(self, frames: Tensor) -> Codes:
        assert torch.equal(frames, self.frames)
        places = torch.arange(len(frames), dtype=torch.float32)[:, None]
        return Codes(places, places.clone(), places.clone())

    def generate(self, codes: Codes, noise: str) -> Tensor:
        pictures = []
        for identity, pose, emotion in zip(codes.identity, codes.pose, codes.emotion, strict=True):
            places = {"identity": int(identity), "pose": int(pose), "emotion": int(emotion)}
            values = list(places.values())
            own = max(set(values), key=values.count)
            foreign = [factor for factor, place in places.items() if place != own]
            if foreign:
                assert abs(places[foreign[0]] - own) == PAIRS, "exchanged within the pair"
                assert foreign == [self.factor[own]], "the factor that the batch names"
            pictures.append(self.true[own] if foreign else self.frames[own])
        levels = torch.stack(pictures).add(1).mul(127.5).round()
        return torch.where(levels < 255, levels + 1, levels - 1) / 127.5 - 1


class KnowingJudge(nn.Module):
    """Knows every drawn picture, by its bytes, from what was drawn."""

    def __init__(self) -> None:
        super().__init__()
        batch = RenderedData("irfd", 0, "test", SIZE, fresh()).batch(range(PAIRS))
        names = random(11, 200_000, 8).float()
        self.known: dict[bytes, tuple[Tensor, Tensor, Tensor]] = {}
        for row, factor in enumerate(FACTORS[number] for number in batch.factor.tolist()):
            sides = (batch.source_labels, batch.source, batch.source_exchanged), \
                    (batch.target_labels, batch.target, batch.target_exchanged)
            for (own, shown, exchanged), (other, _, _) in zip(sides, sides[::-1], strict=True):
                for picture, foreign in ((shown, ""), (exchanged, factor)):
                    of = {name: other if name == foreign else own for name in FACTORS}
                    self.known[picture[row].numpy().tobytes()] = (
                        of["pose"].pose[row], of["emotion"].emotion[row], names[of["identity"].identity[row]]
                    )  # fmt: skip

    def forward(self, frames: Tensor) -> Reading:
        nothing = (torch.zeros(6), torch.tensor(0), torch.ones(8))
        found = [self.known.get(frame.numpy().tobytes(), nothing) for frame in frames]
        pose, emotion, identity = (torch.stack(part) for part in zip(*found, strict=True))
        logits = torch.nn.functional.one_hot(emotion, 8).float()
        corners = torch.arange(68.0)[:, None].expand(-1, 2).expand(len(frames), -1, -1)
        return Reading(corners, pose, torch.zeros(len(frames)), logits, identity)


@pytest.fixture(scope="module")
def perfect() -> disentanglement_exchanges.Exchanges:
    amounts = DisentanglementConfig(exchange_pairs=PAIRS, batch=PAIRS, grid_rows=1)
    return exchange_factors(PerfectIrfd(), KnowingJudge(), size=SIZE, amounts=amounts, progress=False)


def test_true_exchanges_are_found_to_be_as_near_as_they_are(perfect: disentanglement_exchanges.Exchanges) -> None:
    one_level = 20 * np.log10(255)
    assert set(perfect.factors) == {"identity", "emotion", "pose"}
    assert perfect.self_reconstruction == pytest.approx(one_level, abs=1e-3)
    for factor in perfect.factors.values():
        assert factor.exchanged == pytest.approx(one_level, abs=1e-3)
        assert factor.changed_exchanged == pytest.approx(one_level, abs=1e-3)
        assert factor.unexchanged < one_level - 10 and factor.gain > 10 and factor.changed_gain > 20
        assert factor.rebuilt == pytest.approx(factor.unexchanged, abs=0.5)
    assert sum(factor.count for factor in perfect.factors.values()) == 2 * PAIRS
    assert perfect.grid.shape == (3 * SIZE, 7 * SIZE, 3)


def test_a_judge_that_knows_finds_no_error_in_true_exchanges(perfect: disentanglement_exchanges.Exchanges) -> None:
    for name, factor in perfect.factors.items():
        true = factor.judged["true"]
        assert true.pose_degrees < 1e-6 and true.emotion == 1.0 and true.identity > 0.999, name
        assert true.other_identity < 0.9


def test_a_mouth_that_follows_the_audio_is_told_from_one_that_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    amounts = DisentanglementConfig(audio_clips=3, clip_frames=24)

    class Brightness(nn.Module):
        def forward(self, frames: Tensor) -> Reading:
            count = len(frames)
            return Reading(torch.zeros(count, 68, 2), torch.zeros(count, 6), frames.mean((1, 2, 3)),
                           torch.zeros(count, 8), torch.ones(count, 4))  # fmt: skip

    data = RenderedData("speak", 0, "test", SIZE, fresh(frames=24))
    openings = iter([data.batch([number]).labels.mouth_opening[0] for number in range(3)])

    def encode(*_: object) -> Drivers:
        return Drivers(torch.zeros(1), torch.zeros(24, 1), torch.zeros(1, 1), next(openings)[:, None])

    def generate(_: object, drivers: Drivers, seed: int) -> Tensor:
        return drivers.audio[:, :, None, None].expand(-1, 3, 4, 4)

    monkeypatch.setattr(disentanglement_exchanges, "encode_clip", encode)
    monkeypatch.setattr(disentanglement_exchanges, "generate_clip", generate)
    found = exchange_audio(nn.Linear(1, 1), Brightness(), size=SIZE, amounts=amounts, progress=False)
    assert found.new.mean == pytest.approx(1, abs=1e-5) and found.own.mean == pytest.approx(1, abs=1e-5)
    assert found.old.mean == pytest.approx(found.truths.mean, abs=1e-5)
    assert found.new.count == 3 and found.truths.mean < 0.9


@pytest.fixture(scope="module")
def report() -> disentanglement.Report:
    config = dataclasses.replace(preset("tiny"), disentanglement=DisentanglementConfig(
        probe_frames=60, people=4, person_frames=8, exchange_pairs=12, audio_clips=2, clip_frames=8, grid_rows=1
    ))  # fmt: skip
    irfd = disentanglement.random_weights(config, seed=1)
    irfd.train()
    speak = Speak(config)
    found = disentanglement.measure(irfd, Judge(config.model.judge), speak, config, progress=False)
    assert irfd.training and irfd.pose_encoder.training, "measuring leaves the mode as it was"
    assert not irfd.pose_encoder.norm.running_mean.any(), "measuring moves no statistic"
    return found


def test_a_whole_report_is_made_of_a_model_with_random_weights(report: disentanglement.Report) -> None:
    assert set(report.probes) == set(ENCODERS) == set(report.control or {})
    text = disentanglement.markdown(report)
    for wanted in ("f_I", "effective rank", "emotion of 8", "identity of 4", "Audio exchanged", "own error"):
        assert wanted in text
    values = json.loads(json.dumps(report.to_dict()))
    assert values["exchanges"]["factors"]["pose"]["count"] > 0 and values["seed"] == 0


def test_random_weights_know_nothing_of_emotion(report: disentanglement.Report) -> None:
    assert report.probes["emotion"].emotion < 0.5 and report.probes["pose"].pose < 0.6
    assert "**" in disentanglement.markdown(report), "what is missed stands out"


def test_the_grid_has_its_names_around_it(report: disentanglement.Report) -> None:
    picture = disentanglement.labelled_grid(report.exchanges)
    grid = report.exchanges.grid
    assert picture.shape == (20 + 2 * grid.shape[0], 70 + 2 * grid.shape[1], 3)
    assert report.exchanges.grid_rows == ["identity", "pose", "emotion"]
    assert (picture[:20] < 100).any() and (picture[:, :60] < 100).any()  # dark letters


def test_the_same_seed_gives_the_same_figures_and_another_one_others() -> None:
    config = preset("tiny")
    amounts = DisentanglementConfig(probe_frames=24, people=3, person_frames=4)
    model = disentanglement.random_weights(config)
    first, again, other = (probe(model, seed, amounts=amounts, progress=False)[0] for seed in (0, 0, 1))
    assert first == again != other


def test_a_clip_in_pieces_is_the_clip_at_once() -> None:
    """Frames are generated sixteen at a time: that may not show."""
    config = preset("tiny")
    model = Speak(config).eval()
    frames, speech = random(1, 20, 3, 64, 64).float().clamp(-1, 1), random(2, 16000 * 22 // 30).float() * 0.1
    with measuring(model):
        drivers = encode_clip(model, frames[0], frames, frames[:2], speech, context=1)
        clip = generate_clip(model, drivers, seed=5)
        audio = model.encode_audio(speech[None], 22)[:, 1:21]
        emotion = model.encode_emotion(frames[:2]).mean(0)[None, None]
        identity = model.read_identity(frames[:1])
        whole = model.generate(identity, model.encode_pose(frames)[None], emotion, audio, model.draw_noise([5]),
                               model.portrait(identity, frames[:1]))  # fmt: skip
    assert_close(clip, whole[0].clamp(-1, 1))
