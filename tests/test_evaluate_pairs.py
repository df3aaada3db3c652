"""Any system's videos against truth: what is wrong with a row stands in the row, and the rest goes on."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from speak import cli, evaluate_pairs
from speak.config import EvaluateConfig, RenderedConfig, preset
from speak.datasets.rendered import RenderedData
from speak.errors import SpeakError
from speak.evaluate import evaluate_pairs_table
from speak.evaluate_clips import Row
from speak.evaluate_instruments import Instruments, Loaded, judge_reader
from speak.evaluate_pairs import read_table
from speak.evaluate_sync import OurSync
from speak.media.audio import write_wav
from speak.media.face_detection import Box, Face
from speak.media.video import VideoReader, write_video
from speak.metrics import to_uint8
from speak.models.judge import Judge

FRAMES = 40


class PlantedSyncNet(nn.Module):
    """Reads the brightness of a window's lowest corner and the loudness of its speech."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def embed_video(self, windows: torch.Tensor) -> torch.Tensor:
        return (windows[..., -24:, -24:].mean((2, 3, 4)) + 1) / 2

    def embed_audio(self, windows: torch.Tensor) -> torch.Tensor:
        return windows.unfold(1, 533, 533).abs().mean(2)[:, :5]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A rendered clip as truth, and what systems might have made of it."""
    folder = tmp_path_factory.mktemp("pairs")
    data = RenderedData("speak", 0, "test", 96, RenderedConfig(frames=FRAMES, context=0))
    frames = to_uint8(data.batch([0]).frames[0]).permute(0, 2, 3, 1).contiguous().numpy()
    # a corner of each frame is as bright as its speech is loud
    loud = np.random.default_rng(0).uniform(0.1, 0.9, FRAMES)
    for frame, value in zip(frames, loud, strict=True):
        frame[-12:, -12:] = round(255 * value)
    sound = np.concatenate([np.full(round(16000 * (n + 1) / 30) - round(16000 * n / 30), value)
                            for n, value in enumerate(loud)])  # fmt: skip
    write_wav(folder / "speech.wav", sound.astype(np.float32))
    write_wav(folder / "foreign.wav", np.random.default_rng(7).permutation(sound).astype(np.float32))
    video = {"truth": frames, "short": frames[:30], "late": np.concatenate([frames[:1].repeat(3, 0), frames[:-3]]),
             "small": frames[:, ::2, ::2], "wide": frames[:, 16:80]}  # fmt: skip
    for name, part in video.items():
        write_video(folder / f"{name}.mp4", part, folder / "speech.wav" if name == "truth" else None, quality=8)
    write_video(folder / "slow.mp4", frames[::2], rate=15, quality=8)
    noise = np.random.default_rng(1).integers(0, 255, (FRAMES, 96, 96, 3), dtype=np.uint8)
    write_video(folder / "noise.mp4", noise)
    (folder / "broken.mp4").write_bytes(b"this is no video")
    return folder


@pytest.fixture(scope="module")
def tools() -> Instruments:
    torch.manual_seed(0)
    judge = Judge(preset("tiny").model.judge).eval()
    reader = judge_reader(judge)
    return Instruments(Loaded(judge, None, 0, "random"), OurSync(PlantedSyncNet(), "planted"), reader, reader)


def table(folder: Path, name: str, *rows: tuple[str, ...], header: str = "generated,truth,audio") -> Path:
    path = folder / name
    path.write_text("\n".join([header, *(",".join(row) for row in rows)]) + "\n")
    return path


def noted(row: Row, text: str) -> bool:
    """Whether a note of the row says so, and nothing is wrong with it."""
    return row.error == "" and any(text in note for note in row.notes)


def test_truth_against_itself_is_perfect_and_in_step(folder: Path, tools: Instruments) -> None:
    report = evaluate_pairs_table(str(table(folder, "same.csv", ("truth.mp4", "truth.mp4", "speech.wav"))), tools)
    (row,) = report.rows
    assert row.error == "" and row.frames == FRAMES
    assert row.generated["ssim"] == pytest.approx(1, abs=1e-9) and row.generated["psnr"] == np.inf
    assert row.generated["f_lmd"] == 0 and row.generated["m_lmd"] == 0 and row.generated["offset"] == 0
    assert row.generated["sync_conf"] > 0.15


def test_a_late_video_is_found_late_and_a_foreign_voice_unsure(folder: Path, tools: Instruments) -> None:
    rows = (("late.mp4", "truth.mp4", "speech.wav"), ("truth.mp4", "truth.mp4", "foreign.wav"))
    late, foreign = evaluate_pairs_table(str(table(folder, "late.csv", *rows)), tools).rows
    assert late.generated["offset"] == 3 and late.truth["offset"] == 0
    assert late.generated["psnr"] < 40
    assert foreign.generated["sync_conf"] < 0.6 * late.truth["sync_conf"]


def test_rows_that_cannot_be_scored_are_told_and_the_rest_goes_on(folder: Path, tools: Instruments) -> None:
    path = table(
        folder, "mixed.csv", ("short.mp4", "truth.mp4", ""), ("small.mp4", "truth.mp4", ""),
        ("slow.mp4", "truth.mp4", ""), ("wide.mp4", "truth.mp4", ""), ("gone.mp4", "truth.mp4", ""),
        ("broken.mp4", "truth.mp4", ""), ("", "truth.mp4", ""), ("noise.mp4", "noise.mp4", ""),
        ("truth.mp4", "truth.mp4", "gone.wav"),
    )  # fmt: skip
    rows = evaluate_pairs_table(str(path), tools).rows
    short, small, slow, wide, gone, broken, unnamed, noise, mute = rows
    assert noted(short, "30 generated frames, 40 true ones: the common ones are compared") and short.frames == 30
    assert short.generated["psnr"] > 30
    assert noted(small, "scaled from 48x48 to 96x96") and noted(slow, "15 and 30 frames/s: both compared at 30")
    assert "96x64, the true one 96x96" in wide.error
    assert "gone.mp4: no such file" in gone.error and "broken.mp4" in broken.error
    assert "names no generated video" in unnamed.error and "gone.wav" in mute.error
    assert noted(noise, "no face found in the generated video by the built-in detector: it misses some")


def test_a_video_without_a_face_has_no_figures_of_a_face(
    folder: Path, tools: Instruments, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the detector is to be relied on: the judge would read landmarks and an identity into anything."""

    class Reliable:
        name, tracks = "reliable detector", True

        def find(self, picture: np.ndarray) -> list[Face]:
            noisy = np.abs(np.diff(picture.astype(int), axis=1)).mean() > 20
            return [] if noisy else [Face(Box(16, 16, 64, 64), 1.0)]

    monkeypatch.setattr(evaluate_pairs, "best_detector", Reliable)
    path = table(folder, "faceless.csv", ("noise.mp4", "truth.mp4", "speech.wav"), ("late.mp4", "truth.mp4", ""))
    noise, late = evaluate_pairs_table(str(path), tools).rows
    assert noted(noise, "no face found in the generated video by the reliable detector: no LMD, CSIM and emotion")
    assert noise.generated["psnr"] < 12 and noise.generated["sync_conf"] >= 0
    assert all(np.isnan(noise.generated[name]) for name in ("f_lmd", "m_lmd", "csim", "emotion"))
    assert noise.truth["f_lmd"] == 0 and noise.truth["csim"] > 0 and late.generated["f_lmd"] > 0


def test_a_shorter_video_can_be_stretched_instead(folder: Path, tools: Instruments) -> None:
    path = table(folder, "stretched.csv", ("short.mp4", "truth.mp4", ""))
    (row,) = evaluate_pairs_table(str(path), tools, EvaluateConfig(lengths="resample")).rows
    assert noted(row, "the generated ones are resampled") and row.frames == FRAMES and row.generated["psnr"] < 40


def test_the_command_writes_its_report_and_counts_what_failed(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    path = table(folder, "command.csv", ("late.mp4", "truth.mp4", "happy"), ("gone.mp4", "truth.mp4", ""),
                 header="generated,truth,emotion")  # fmt: skip
    assert cli.main(["evaluate", "--pairs", str(path), "--out", str(tmp_path)]) == 0
    assert "| generated |" in capsys.readouterr().out
    clips = json.loads((tmp_path / "report.json").read_text())["clips"]
    assert clips[0]["generated"]["psnr"] > 20 and "gone.mp4" in clips[1]["error"]
    rows = list(csv.DictReader((tmp_path / "clips.csv").open()))
    assert rows[0]["name"] == "late" and "gone.mp4" in rows[1]["error"]
    assert "Not measured: 1 of 2" in (tmp_path / "report.md").read_text()
    assert "gone.mp4" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize(
    ("text", "line"),
    [("generated,truth\n", "has no row"), ("a,b\n1,2\n", "lacks the column generated"), ("", "empty"),
     ("generated,truth\nx.mp4,y.mp4\n", "")],
)  # fmt: skip
def test_a_table_is_checked(tmp_path: Path, text: str, line: str) -> None:
    (tmp_path / "table.csv").write_text(text)
    if line:
        with pytest.raises(SpeakError, match=line):
            read_table(tmp_path / "table.csv")
    else:
        assert read_table(tmp_path / "table.csv") == [{"generated": "x.mp4", "truth": "y.mp4"}]


def test_the_side_by_side_video_of_a_pair_plays(folder: Path, tools: Instruments, tmp_path: Path) -> None:
    from speak.evaluate_page import video_bytes

    report = evaluate_pairs_table(str(table(folder, "shown.csv", ("late.mp4", "truth.mp4", "speech.wav"))), tools)
    (tmp_path / "shown.mp4").write_bytes(video_bytes(report.shown[0]))
    with VideoReader(tmp_path / "shown.mp4") as reader:
        frames = list(reader)
    assert len(frames) == FRAMES and frames[0].shape == (256, 3 * 256, 3)
