"""The loop: never losing work, the same numbers whatever happens, clear words when something is wrong."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from speak import checkpoint
from speak.errors import SpeakError
from speak.models.resnet import ResNet
from speak.train import processes
from speak.train.command import run_stage
from speak.train.loop import divided
from speak.train.processes import share_batch_norms
from tests.small_training import settings, small

CPU = torch.device("cpu")


def train(out: Path, stage: str = "audio", steps: int = 4, batch: int = 4, config=None, **more) -> dict[str, float]:
    return run_stage(stage, config or small(), "synthetic:3", out, CPU, steps=steps, batch=batch, **more)


def newest(folder: Path) -> dict:
    return checkpoint.load(sorted(folder.glob("checkpoint-*.pt"))[-1])


def same(one: object, other: object) -> bool:
    """Bit by bit."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


def command(out: Path, *more: str, stage: str = "audio", **changes: object) -> list[str]:
    return [sys.executable, "-m", "speak", "train", "--stage", stage, "--preset", "tiny", "--out", str(out), "--batch",
            "4", "--data", "synthetic:3", "--device", "cpu", *settings(**changes), *more]  # fmt: skip


def quiet() -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}


@pytest.mark.parametrize("stage", ["audio", "irfd"])
def test_a_training_in_two_pieces_is_bit_for_bit_the_one_in_one_piece(tmp_path: Path, stage: str) -> None:
    config = small(train__decay=0.0)  # with a decay the learning rate depends on the number of steps in all
    train(tmp_path / "whole", stage, 4, config=config)
    train(tmp_path / "pieces", stage, 2, config=config)
    train(tmp_path / "pieces", stage, 4, config=config)
    whole, pieces = newest(tmp_path / "whole" / stage), newest(tmp_path / "pieces" / stage)
    assert whole["step"] == 4
    for key in ("models", "averages", "optimizers"):
        kept = {k: v for k, v in whole[key].items()} if isinstance(whole[key], dict) else whole[key]
        assert same(kept, pieces[key]), key


def test_the_same_command_again_does_nothing_more_and_says_so(tmp_path: Path, capsys) -> None:
    train(tmp_path, steps=2)
    before = newest(tmp_path / "audio")
    assert "note" not in capsys.readouterr().err
    train(tmp_path, steps=2)
    assert same(before, newest(tmp_path / "audio"))
    assert "has had 2 steps: --steps 2 asks for no more" in capsys.readouterr().err


def test_going_on_with_another_batch_or_other_data_is_told(tmp_path: Path, capsys) -> None:
    train(tmp_path, steps=1)
    run_stage("audio", small(), "synthetic:4", tmp_path, CPU, steps=2, batch=2)
    told = capsys.readouterr().err
    assert "was trained with --data synthetic:3, it goes on with synthetic:4" in told
    assert "was trained with --batch 4, it goes on with 2" in told


@pytest.mark.long
@pytest.mark.parametrize("stage", ["audio", "irfd", "speak"])
def test_a_training_killed_at_ten_random_moments_ends_in_the_same_bits(tmp_path: Path, stage: str) -> None:
    """SIGKILL, ten times, at moments drawn at random; what is left resumes."""
    if stage == "speak":
        for earlier in ("perceptual", "irfd", "syncnet"):
            for run in ("whole", "killed"):
                train(tmp_path / run, earlier, 2)
    steps = "400" if stage == "audio" else "40"  # long enough to be killed ten times
    subprocess.run(command(tmp_path / "whole", "--steps", steps, stage=stage), check=True, env=quiet(),
                   capture_output=True)  # fmt: skip
    moments = random.Random(7)
    log = tmp_path / "killed" / stage / "log.jsonl"
    kills = 0
    for _ in range(200):
        process = subprocess.Popen(command(tmp_path / "killed", "--steps", steps, stage=stage), env=quiet(),
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
        begun, size = time.monotonic(), log.stat().st_size if log.exists() else 0
        while process.poll() is None and not (log.exists() and log.stat().st_size > size):
            time.sleep(0.02)
            assert time.monotonic() - begun < 300
        if kills < 10:
            time.sleep(moments.uniform(0, 0.6))
        if process.poll() is None and kills < 10:
            process.send_signal(signal.SIGKILL)
            kills += 1
        if process.wait() == 0:
            break
    assert kills == 10
    whole, killed = newest(tmp_path / "whole" / stage), newest(tmp_path / "killed" / stage)
    assert whole["step"] == killed["step"] == int(steps)
    for key in ("models", "averages", "optimizers", "random"):
        assert same(whole[key], killed[key]), key
    rows = [[json.loads(line) for line in (tmp_path / run / stage / "log.jsonl").read_text().splitlines()]
            for run in ("whole", "killed")]  # fmt: skip
    loss = [[(row["step"], row.get("mouth"), row.get("self"), row.get("pixel")) for row in run] for run in rows]
    assert loss[0] == loss[1]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_leaves(tmp_path: Path, number: signal.Signals) -> None:
    process = subprocess.Popen(command(tmp_path, "--steps", "100000", train__save_every=100000, train__workers=1),
                               env=quiet(), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
                               start_new_session=True)  # fmt: skip
    log = tmp_path / "audio" / "log.jsonl"
    begun = time.monotonic()
    while not log.exists() or log.stat().st_size == 0:
        time.sleep(0.05)
        assert process.poll() is None and time.monotonic() - begun < 120
    os.killpg(process.pid, number)  # as a terminal's Ctrl-C: the workers get it too
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and "all saved" in errors and "Traceback" not in errors
    steps = [json.loads(line)["step"] for line in log.read_text().splitlines()]
    assert newest(tmp_path / "audio")["step"] >= steps[-1] > 0


def test_a_resumed_training_draws_the_random_numbers_that_it_would_have_drawn(tmp_path: Path) -> None:
    config = small(train__decay=0.0, train__workers=1, model__audio__dropout=0.1)
    train(tmp_path / "whole", steps=4, config=config)
    train(tmp_path / "pieces", steps=2, config=config)
    train(tmp_path / "pieces", steps=4, config=config)
    whole, pieces = newest(tmp_path / "whole" / "audio"), newest(tmp_path / "pieces" / "audio")
    assert same(whole["models"], pieces["models"]) and same(whole["random"], pieces["random"])


def test_other_losses_in_the_same_folder_are_refused_in_one_line(tmp_path: Path) -> None:
    train(tmp_path, "irfd", 1, config=small(irfd__weight_adversarial=0.1))
    with pytest.raises(SpeakError, match="same --set as before"):
        train(tmp_path, "irfd", 2)
    train(tmp_path / "adam", "irfd", 1, config=small(irfd__optimizer="adam"))
    with pytest.raises(SpeakError, match="same --set as before"):
        train(tmp_path / "adam", "irfd", 2)


def test_a_damaged_newest_checkpoint_gives_way_to_the_one_before(tmp_path: Path, capsys) -> None:
    config = small(train__decay=0.0, train__save_every=1)
    train(tmp_path, steps=3, config=config)
    expected = newest(tmp_path / "audio")
    path = sorted((tmp_path / "audio").glob("checkpoint-*.pt"))[-1]
    path.write_bytes(path.read_bytes()[:1000])
    left = path.with_name(f".{path.name}.1.part")
    left.touch()
    train(tmp_path, steps=3, config=config)
    assert "trying the checkpoint before it" in capsys.readouterr().err and not left.exists()
    assert same(newest(tmp_path / "audio")["models"], expected["models"])


@pytest.mark.parametrize(
    "stage, changes, words",
    [
        ("audio", {"train__log_every": 0}, "train.log_every=0: must be 1 or more"),
        ("audio", {"train__validation": 0}, "train.validation=0"),
        ("audio", {"train__beta1": 1.5}, "train.beta1=1.5: must be less than 1"),
        ("audio", {"train__workers": -1}, "train.workers=-1"),
        ("irfd", {"rendered__uses": 0}, "rendered.uses=0"),
        ("irfd", {"irfd__pose_source": "both"}, "irfd.pose_source=both: choose own or other"),
        ("speak", {"speak__identity_source": "both"}, "speak.identity_source=both: choose own or other"),
        ("irfd", {"irfd__optimizer": "sgd"}, "irfd.optimizer=sgd: choose adam or muon"),
        ("irfd", {"rendered__identities": 1}, "rendered.identities=1"),
        ("irfd", {"model__image_size": 100}, "power of two"),
        ("syncnet", {"rendered__frames": 4}, "SyncNet's windows have 5"),
        ("judge", {"train__accumulate": 4}, "two frames of each person"),
    ],
)
def test_settings_that_no_training_can_have_are_refused_in_one_line(
    stage: str, changes: dict, words: str, tmp_path: Path
) -> None:
    with pytest.raises(SpeakError, match=words):
        train(tmp_path, stage, config=small(**changes))
    assert not any(tmp_path.iterdir())


def test_batch_norms_are_shared_by_processes_on_cuda_and_keep_their_weights(monkeypatch) -> None:
    trunk = ResNet(18, width=8, norm="batch")
    before = dict(trunk.named_parameters())
    share_batch_norms([trunk], torch.device("cuda"))
    assert not any(isinstance(module, torch.nn.SyncBatchNorm) for module in trunk.modules())  # one process
    monkeypatch.setattr(processes, "rank_and_world", lambda: (0, 2))
    share_batch_norms([trunk], torch.device("cuda"))
    assert isinstance(trunk.layer1[0].bn1, torch.nn.SyncBatchNorm)
    assert all(parameter is before[name] for name, parameter in trunk.named_parameters())


def test_parts_of_a_batch_add_up_to_the_whole(tmp_path: Path) -> None:
    # steps in proportion to gradients: Adam's own would make rounding visible where a gradient is near zero
    flags = {"train__clip": 0.0, "train__epsilon": 1.0, "audio__learning_rate": 0.1, "audio__optimizer": "adam"}
    train(tmp_path / "whole", config=small(**flags), steps=2)
    train(tmp_path / "parts", config=small(train__accumulate=2, **flags), steps=2)
    whole, parts = newest(tmp_path / "whole" / "audio")["models"], newest(tmp_path / "parts" / "audio")["models"]
    for name, value in whole["audio_encoder"].items():
        torch.testing.assert_close(value, parts["audio_encoder"][name], atol=2e-4, rtol=1e-3)
    with pytest.raises(SpeakError, match="train.accumulate=3"):
        train(tmp_path / "odd", config=small(train__accumulate=3))


def test_a_loss_that_is_not_finite_stops_with_the_batch_named_and_the_checkpoint_untouched(tmp_path: Path) -> None:
    train(tmp_path, steps=2)
    path = sorted((tmp_path / "audio").glob("checkpoint-*.pt"))[-1]
    content = checkpoint.load(path)
    content["models"]["heads"]["mouth.bias"][0] = float("nan")
    checkpoint.save(path, content)
    before = path.read_bytes()
    with pytest.raises(SpeakError, match=r"loss 'mouth' is not finite at step 2, samples 8 to 11; .*untouched"):
        train(tmp_path, steps=4)
    assert path.read_bytes() == before


def test_only_the_newest_checkpoints_stay_and_the_log_has_a_line_a_step(tmp_path: Path) -> None:
    train(tmp_path, steps=7)
    names = sorted(path.name for path in (tmp_path / "audio").glob("checkpoint-*"))
    assert names == ["checkpoint-000000006.pt", "checkpoint-000000007.pt"]
    rows = [json.loads(line) for line in (tmp_path / "audio" / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "mouth" in row] == [1, 2, 3, 4, 5, 6, 7]
    assert "held_out_mouth_correlation" in rows[-1] and (tmp_path / "audio" / "losses.png").stat().st_size > 1000


def test_a_run_of_another_shape_or_stage_is_refused_in_one_line(tmp_path: Path) -> None:
    train(tmp_path, steps=1)
    with pytest.raises(SpeakError, match=r"model.audio.width=8"):
        train(tmp_path, steps=2, config=small(model__audio__width=16))
    with pytest.raises(SpeakError, match=r"stage audio, not irfd"):
        train(tmp_path, "irfd", steps=1, init=str(tmp_path / "audio" / "weights.pt"))
    with pytest.raises(SpeakError, match=r"irfd.weights.pt: not there.*--stage irfd"):
        train(tmp_path, "speak", steps=1)


def test_a_stage_goes_on_although_networks_that_it_has_not_have_another_shape(tmp_path: Path) -> None:
    train(tmp_path, steps=1)
    train(tmp_path, steps=2, config=small(model__judge__width=24, model__generator__mapping_layers=3))
    assert newest(tmp_path / "audio")["step"] == 2


def test_a_full_disk_is_one_line_and_leaves_the_last_checkpoint(tmp_path: Path, monkeypatch) -> None:
    train(tmp_path, steps=2)
    whole = torch.save

    def full(content: object, file: object) -> None:
        whole(content, file)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    before = sorted(path.name for path in (tmp_path / "audio").iterdir())
    with pytest.raises(SpeakError, match="disk is full"):
        train(tmp_path, steps=4)
    assert sorted(path.name for path in (tmp_path / "audio").iterdir()) == before


def test_bad_data_is_refused_in_one_line(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    for source, words in ((str(empty), "not a prepared corpus"), ("synthetic:x", "synthetic:x")):
        with pytest.raises(SpeakError, match=re.escape(words)):
            run_stage("irfd", small(), source, tmp_path / "run", CPU, steps=1, batch=2)
    with pytest.raises(SpeakError, match="only rendered people have"):
        run_stage("judge", small(), str(empty), tmp_path / "run", CPU, steps=1, batch=2)


def test_a_corpus_says_what_it_is_too_small_for(tmp_path: Path, capsys) -> None:
    folder = tmp_path / "people"
    subprocess.run([sys.executable, "-m", "speak", "synth", "--out", str(folder), "--identities", "1", "--clips", "2",
                    "--size", "32", "--seconds", "2", "--workers", "1"], check=True, env=quiet(), capture_output=True)
    index = folder / "index.jsonl"
    index.write_text(re.sub(r'"split": "\w+"', '"split": "train"', index.read_text()))
    run_stage("irfd", small(), str(folder), tmp_path / "run", CPU, steps=1, batch=4)
    said = capsys.readouterr().err
    assert "one person only" in said and "no split val: held-out figures are of people it is trained on" in said


def test_a_batch_is_divided_with_both_halves_of_its_pairs() -> None:
    import dataclasses

    @dataclasses.dataclass
    class Batch:
        frames: torch.Tensor
        both: torch.Tensor
        number: torch.Tensor
        text: str = "as it is"

    batch = Batch(torch.arange(4), torch.arange(8), torch.arange(4))
    first, second = divided(batch, 2)
    assert first.both.tolist() == [0, 1, 4, 5] and second.both.tolist() == [2, 3, 6, 7]
    assert second.frames.tolist() == [2, 3] and first.text == "as it is"
