"""Evaluation of clips: truth scores as truth should, planted sync is found, reports are whole and need no network."""

import html.parser
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from speak import checkpoint, cli, metrics
from speak.config import EvaluateConfig, preset, sample_of_frame, to_dict
from speak.evaluate_clips import TestClip, score_clip, test_clips
from speak.evaluate_instruments import Instruments, LandmarkReader, Loaded, find_sync, read
from speak.evaluate_page import from_markdown
from speak.evaluate_sync import OurSync, PublishedSync, at_rate, published_crops, smooth_boxes
from speak.media.prepared import ClipRecord, PreparedWriter
from speak.media.video import VideoReader
from speak.models.irfd import IRFD
from speak.models.judge import Judge
from speak.models.speak import Speak
from speak.models.syncnet import PublishedSyncNet, SyncNet
from tests.tolerances import assert_close

TestClip.__test__ = False  # its name is not a test's
test_clips.__test__ = False


class PlantedSyncNet(nn.Module):
    """Reads the brightness of five frames and the loudness of their speech: equal where both were planted equal."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def embed_video(self, windows: Tensor) -> Tensor:  # [n, 5, 3, H, W] in [-1, 1]
        return (windows.mean((2, 3, 4)) + 1) / 2

    def embed_audio(self, windows: Tensor) -> Tensor:  # [n, 2667]
        edges = [sample_of_frame(k) for k in range(6)]
        return torch.stack([windows[:, a:b].abs().mean(1) for a, b in zip(edges, edges[1:], strict=False)], 1)


class PlantedPublished(nn.Module):
    """The same from BGR frames 0-255 and from the log energy, the first MFCC; how both change within the window."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def embed_video(self, windows: Tensor) -> Tensor:  # [1, 3, 5, 224, 224]
        assert windows.shape[1:] == (3, 5, 224, 224)
        values = windows.mean((1, 3, 4)) / 255
        return values - values.mean()

    def embed_audio(self, windows: Tensor) -> Tensor:  # [1, 1, 13, 20]
        assert windows.shape == (1, 1, 13, 20)
        values = windows[0, 0, 0].reshape(5, 4).mean(1)[None] / 6
        return values - values.mean()


def brightness(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0.1, 0.9, count)


def planted(values: np.ndarray, size: int = 16) -> Tensor:
    """Frames as bright as `values`, uint8 [N, 3, size, size]."""
    levels = torch.from_numpy(np.round(values * 255).astype(np.uint8))
    return levels[:, None, None, None].expand(-1, 3, size, size).contiguous()


def spoken(values: np.ndarray, rate: int = 30) -> Tensor:
    """Sound as loud in each frame's time as `values`."""
    ends = [round(16000 * (n + 1) / rate) for n in range(len(values))]
    sound = np.concatenate([np.full(end - start, value) for start, end, value in
                            zip([0, *ends], ends, values, strict=False)])  # fmt: skip
    noise = np.random.default_rng(3).choice([-1.0, 1.0], len(sound))
    return torch.from_numpy(sound * noise).float()


@pytest.mark.parametrize("late", [-9, 0, 3, 10])
def test_a_video_shifted_by_k_frames_is_found_at_offset_k(late: int) -> None:
    values = brightness(140)
    judge = OurSync(PlantedSyncNet(), "planted")
    video = planted(values)[20 - late : 110 - late]  # its frame t shows what is heard `late` frames earlier
    found = judge(video, spoken(values[20:110]))
    assert found.offset == late and found.confidence > 0.15


def test_a_mismatched_voice_gets_a_low_confidence() -> None:
    values = brightness(90)
    judge = OurSync(PlantedSyncNet(), "planted")
    own, foreign = judge(planted(values), spoken(values)), judge(planted(values), spoken(brightness(90, seed=5)))
    assert foreign.confidence < 0.35 * own.confidence


@pytest.mark.parametrize("late", [0, 4])
def test_the_published_path_runs_at_25_frames_a_second_with_its_mfcc(late: int) -> None:
    values = brightness(70)
    loud = np.exp(3 * values - 7)  # log energy is 6 times the brightness and a constant
    judge = PublishedSync(PlantedPublished(), "planted")
    found = judge(planted(values)[10 - late : 60 - late], spoken(loud[10:60], rate=25), None)
    assert judge.rate == 25 and found.offset == late


def test_the_published_crop_is_the_pipelines() -> None:
    """In a picture that shows where each pixel lies: y from -s to +1.8 s, x from -1.4 s to +1.4 s; BGR; 110 outside."""
    y, x = torch.meshgrid(torch.arange(100.0), torch.arange(100.0), indexing="ij")
    frame = torch.stack([x, y, torch.full_like(x, 7)]).byte()[None]
    crop = published_crops(frame, np.array([[50.0, 50.0, 20.0]]))[0]  # x 22..78, y 30..86: 56 pixels, four times
    blue, down, across = crop
    assert (blue == 7).all()
    assert (across[:, 0] == 22).all() and (across[:, -1] == 77).all()
    assert (down[0] == 30).all() and (down[-1] == 85).all()
    outside = published_crops(frame, np.array([[50.0, 90.0, 20.0]]))[0]
    assert (outside[:, -1] == 110).all()


def test_boxes_bridge_frames_without_a_face_and_do_not_jump() -> None:
    points = torch.rand(30, 68, 2, generator=torch.Generator().manual_seed(0)) * 40 + 100
    points[:, :2] = torch.tensor([[100.0, 100.0], [140.0, 140.0]])  # the corners of every box
    points[11] += 60  # a single wrong detection
    points[20] = math.nan
    boxes = smooth_boxes(points)
    height = 40 * 4 / 3
    assert np.allclose(boxes[8:22], [120, 140 - height / 2, height / 2], atol=1e-3)


def test_a_clip_of_few_frames_has_boxes_too() -> None:
    points = torch.rand(6, 68, 2, generator=torch.Generator().manual_seed(0)) * 40 + 100
    points[:, :2] = torch.tensor([[100.0, 100.0], [140.0, 140.0]])
    for count in (1, 2, 6):
        assert np.allclose(smooth_boxes(points[:count])[:, 2], 20 * 4 / 3, atol=1e-3), count


def test_frames_at_25_are_the_nearest_of_those_at_30() -> None:
    rows = at_rate(torch.arange(90), 25)
    assert len(rows) == 75
    assert all(abs(int(row) / 30 - n / 25) <= 0.5 / 30 + 1e-9 for n, row in enumerate(rows))


def exact_reader(clip: TestClip) -> LandmarkReader:
    return LandmarkReader("exact", lambda frames: clip.landmarks)


@pytest.fixture(scope="module")
def clip() -> TestClip:
    settings = EvaluateConfig(clips=1, rendered_frames=12)
    return next(iter(test_clips("synthetic:3", "test", 64, settings)))


def test_truth_scores_as_truth_should(clip: TestClip) -> None:
    tools = Instruments(None, OurSync(PlantedSyncNet(), "planted"), exact_reader(clip), None)
    row = score_clip(clip, clip.frames.clone(), tools, EvaluateConfig())
    for figures in (row.generated, row.truth):
        assert figures["ssim"] == pytest.approx(1, abs=1e-12) and math.isinf(figures["psnr"])
        assert figures["f_lmd"] == 0 and figures["m_lmd"] == 0
    assert row.generated["sync_conf"] == row.truth["sync_conf"]
    assert row.reader == {"f_lmd": 0.0, "m_lmd": 0.0} and row.notes == []


def test_a_worse_picture_scores_worse_and_a_missing_face_is_told(clip: TestClip) -> None:
    gaps = clip.landmarks + 3 * torch.randn(clip.landmarks.shape, generator=torch.Generator().manual_seed(1))
    gaps[4] = math.nan
    tools = Instruments(None, None, LandmarkReader("gaps", lambda frames: gaps), None)
    noise = torch.randn(clip.frames.shape, generator=torch.Generator().manual_seed(2)) * 20
    row = score_clip(clip, (clip.frames + noise).clamp(0, 255).byte(), tools, EvaluateConfig())
    assert 18 < row.generated["psnr"] < 25 and row.generated["ssim"] < 0.9
    assert row.generated["f_lmd"] > 5 and "no face in 1 of 12 frames" in row.notes[0]
    assert math.isnan(row.generated["sync_conf"]) and math.isnan(row.generated["csim"])


def test_csim_and_emotion_are_the_judges(clip: TestClip) -> None:
    torch.manual_seed(1)
    judge = Judge(preset("tiny").model.judge).eval()
    tools = Instruments(Loaded(judge, None, 0, "random"), None, None, None)
    row = score_clip(clip, clip.frames.flip(0), tools, EvaluateConfig())
    reading = read(judge, clip.frames)
    expected = (reading.identity.flip(0) @ reading.identity[0]).mean()
    assert row.generated["csim"] == pytest.approx(float(expected), abs=1e-5)
    named = int(reading.emotion_logits.softmax(1).mean(0).argmax())
    assert row.truth["emotion"] == float(named == clip.emotion)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with networks of random weights, as `train` leaves them."""
    folder, config = tmp_path_factory.mktemp("run"), preset("tiny")
    torch.manual_seed(0)
    networks = {"speak": Speak(config), "irfd": IRFD(config), "judge": Judge(config.model.judge),
                "syncnet": SyncNet(config.model.syncnet)}  # fmt: skip
    for stage, network in networks.items():
        (folder / stage).mkdir()
        content = {"stage": stage, "config": to_dict(config), "step": 3, "models": {stage: network.state_dict()}}
        checkpoint.save(folder / stage / "weights.pt", content)
    return folder


class Page(html.parser.HTMLParser):
    """Collects what a page refers to, and checks that its tags close."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.tags: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.tags.append(tag)
        self.links += [value for key, value in attrs if key in ("src", "href", "data", "poster")]
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_a_model_is_evaluated_into_tables_and_a_page_that_needs_no_network(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    code = cli.main(["evaluate", "--weights", str(run), "--data", "synthetic:1", "--out", str(tmp_path / "out"),
                     "--set", "clips=2", "--set", "rendered_frames=8", "--set", "shown=1"])  # fmt: skip
    assert code == 0
    report = json.loads((tmp_path / "out/report.json").read_text())
    assert report["means"]["truth"]["ssim"]["mean"] == pytest.approx(1)
    assert report["means"]["truth"]["f_lmd"]["mean"] == 0 and report["means"]["generated"]["f_lmd"]["mean"] > 0
    assert report["means"]["generated"]["psnr"]["count"] == 2 and len(report["clips"]) == 2
    assert "judge" in report["facts"]["landmarks"] and "SyncNet" in report["facts"]["sync judge"]
    assert (tmp_path / "out/clips.csv").read_text().count("\n") == 3
    assert "| generated |" in capsys.readouterr().out
    page = Page((tmp_path / "out/report.html").read_text())
    assert page.open == [] and {"table", "svg", "img", "video"} <= set(page.tags)
    assert page.links and all(link.startswith("data:") for link in page.links)
    video = next(link for link in page.links if link.startswith("data:video/mp4"))
    import base64

    (tmp_path / "shown.mp4").write_bytes(base64.b64decode(video.partition(",")[2]))
    frames = list(VideoReader(tmp_path / "shown.mp4"))
    assert len(frames) == 8 and frames[0].shape == (128, 3 * 128, 3)


def test_a_prepared_corpus_is_evaluated_and_a_silent_clip_says_so(run: Path, tmp_path: Path) -> None:
    writer = PreparedWriter(tmp_path / "corpus")
    random = np.random.default_rng(0)
    pictures = [random.integers(0, 255, (64, 64, 3), dtype=np.uint8) for _ in range(8)]
    sound = random.uniform(-0.1, 0.1, sample_of_frame(8)).astype(np.float32)
    writer.write(ClipRecord("one", "M1", 8, emotion="happy", split="test"), pictures, sound)
    writer.write(ClipRecord("two", "M2", 8, split="test"), pictures)
    writer.write(ClipRecord("three", "M3", 8, split="train"), pictures, sound)
    code = cli.main(["evaluate", "--weights", str(run / "speak/weights.pt"), "--data", str(tmp_path / "corpus"),
                     "--out", str(tmp_path / "out"), "--landmarks", "judge"])  # fmt: skip
    assert code == 0
    clips = json.loads((tmp_path / "out/report.json").read_text())["clips"]
    assert [clip["name"] for clip in clips] == ["one", "two"]
    assert clips[0]["error"] == "" and clips[0]["generated"]["psnr"] > 0
    assert "no sound" in clips[1]["error"]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--weights", "{run}/judge/weights.pt"], "holds stage judge, not speak"),
        (["--weights", "nowhere.pt"], "nowhere.pt: no such file"),
        (["--weights", "{run}", "--judge", "{run}/irfd/weights.pt"], "holds stage irfd, not judge"),
        (["--weights", "{run}", "--set", "ssim=box"], "--set ssim=box: choose from uniform, gaussian"),
        (["--set", "lifelike=2"], "--set lifelike=2.0: a share of people, 0 to 1"),
        (["--disentanglement", "--set", "lifelike=-1"], "--set lifelike=-1.0: a share of people, 0 to 1"),
        (["--weights", "{run}", "--landmarks", "faces"], "dlib is not installed|no landmark file"),
        (["--weights", "{run}", "--data", "{run}"], "not a prepared corpus"),
        (["--disentanglement", "--weights", "{run}/judge/weights.pt"], "holds stage judge, not irfd or speak"),
        (["--disentanglement", "--weights", "{run}", "--data", "{run}"], "rendered people: synthetic"),
    ],
)
def test_wrong_input_is_one_clear_line(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture, arguments: list[str], line: str
) -> None:
    import re

    arguments = [argument.format(run=run) for argument in arguments]
    assert cli.main(["evaluate", *arguments, "--out", str(tmp_path)]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert re.search(line, said[-1]), said


def test_disentanglement_is_a_report_with_its_figure(run: Path, tmp_path: Path) -> None:
    small = {"probe_frames": 40, "people": 4, "person_frames": 6, "exchange_pairs": 12, "audio_clips": 2,
             "clip_frames": 6, "grid_rows": 1}  # fmt: skip
    settings = [part for key, value in small.items() for part in ("--set", f"{key}={value}")]
    assert cli.main(["evaluate", "--disentanglement", "--weights", str(run), "--out", str(tmp_path), *settings]) == 0
    values = json.loads((tmp_path / "disentanglement.json").read_text())
    assert set(values["probes"]) == {"identity", "pose", "emotion"} and values["audio"]["new"]["count"] <= 2
    page = Page((tmp_path / "disentanglement.html").read_text())
    assert page.open == [] and "img" in page.tags and all(link.startswith("data:") for link in page.links)
    assert (tmp_path / "figure5.png").stat().st_size > 1000


def test_a_state_dict_in_syncnet_pythons_layout_is_taken_as_the_judge_of_sync(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = PublishedSyncNet()
    torch.save(network.state_dict(), tmp_path / "syncnet_v2.model")
    judge = find_sync(tmp_path / "syncnet_v2.model", None, torch.device("cpu"))
    assert judge.rate == 25 and "syncnet_v2" in judge.name
    values = brightness(12)
    frames, speech = planted(values, 224), spoken(values, rate=25)
    found = judge(frames, speech, None)
    network.eval()
    with torch.no_grad():
        video = torch.stack([network.embed_video(frames[t : t + 5].flip(1).transpose(0, 1)[None].float())[0]
                             for t in range(7)])  # fmt: skip
    assert len(found.curve) == 31 and math.isfinite(found.confidence)
    from speak.models.speech_features import mfcc

    coefficients = mfcc(speech[None])
    with torch.no_grad():
        audio = torch.stack([network.embed_audio(coefficients[:, None, :, 4 * t : 4 * t + 20])[0] for t in range(7)])
    assert_close(found.curve, metrics.sync(video, audio).curve, dtype=torch.float32)


def test_markdown_becomes_html_and_names_cannot_break_the_page() -> None:
    text = "# A <b>\n\n| x | y |\n|---|---|\n| **1** | `2` & 3 |\n\n- one\n- two\n"
    assert from_markdown(text) == (
        "<h1>A &lt;b&gt;</h1>\n<table><tr><th>x</th><th>y</th></tr><tr><td><b>1</b></td>"
        "<td><code>2</code> &amp; 3</td></tr></table>\n<ul><li>one</li><li>two</li></ul>"
    )
    assert "<td>0.81<br><small>(0.7 to 0.9)</small></td>" in from_markdown("| a |\n|---|\n| 0.81 (0.7 to 0.9) |\n")


