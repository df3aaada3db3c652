"""Tables 3 and 4 from runs: which row a run is, what it lost, and that nothing is measured twice."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from speak import checkpoint, cli
from speak.config import Config, preset, to_dict, with_changes
from speak.evaluate_ablations import PAPER, Run, as_in_the_paper, markdown, switched_off, verdict
from speak.models.judge import Judge
from speak.models.speak import Speak


def row_of(speak: Config, irfd: Config | None) -> str:
    return Run(Path(), switched_off(speak, irfd), 0, {}, 0.0).row


@pytest.mark.parametrize(
    ("changes", "row"),
    [
        ({}, "SPEAK"),
        ({"speak.weight_sync": 0}, "w/o sync"),
        ({"speak.weight_adversarial": 0}, "w/o GAN"),
        ({"speak.weight_perceptual": 0}, "w/o vgg"),
        ({"irfd.weight_self": 0}, "w/o self"),
        ({"irfd.weight_classification": 0}, "w/o cls"),
        ({"irfd.weight_pose": 0, "irfd.weight_emotion": 0}, "w/o pose and emotion"),
        ({"irfd.weight_cross": 0, "irfd.weight_self": 0}, "w/o self and cross"),
        ({"speak.train_encoders": True}, "w/o IRFD"),
    ],
)
def test_a_runs_configuration_says_which_row_it_is(changes: dict, row: str) -> None:
    config = with_changes(preset("tiny"), changes)
    assert row_of(config, None) == row
    # a run's own stage irfd has the last word on IRFD's losses, and none on those of stage speak
    expected = row if "irfd.weight" in str(changes) else "w/o IRFD" if "train_encoders" in str(changes) else "SPEAK"
    speak = with_changes(preset("tiny"), {"speak.train_encoders": config.speak.train_encoders})
    assert row_of(speak, with_changes(config, {"speak.weight_sync": 0})) == expected


def test_what_a_preset_does_not_have_is_not_missing() -> None:
    assert preset("paper").irfd.weight_cross == 0 and row_of(preset("paper"), None) == "SPEAK"


def figures(**values: float) -> dict[str, float]:
    usual = {"ssim": 0.8, "psnr": 28.0, "f_lmd": 2.0, "m_lmd": 3.0, "sync_conf": 0.4, "sync_distance": 0.9,
             "offset": 0.0, "csim": 0.9, "emotion": 0.7}  # fmt: skip
    return usual | values


def run(row: str, seed: int, minutes: float = float("nan"), **values: float) -> Run:
    return Run(Path(f"{row}-{seed}"), () if row == "SPEAK" else (row,), seed, figures(**values), minutes)


def test_cross_names_no_row_where_no_run_has_it() -> None:
    """With --set irfd.weight_cross=0 for all, the full model is the paper's."""
    full, without = (Run(Path(), off, 0, figures(), 0.0) for off in (("w/o cross",), ("w/o cross", "w/o sync")))
    assert [found.row for found in as_in_the_paper([full, without])] == ["SPEAK", "w/o sync"]
    assert [found.row for found in as_in_the_paper([full, run("SPEAK", 0)])] == ["w/o cross", "SPEAK"]


def test_a_row_is_worse_in_what_it_is_for_or_it_is_said_not_to_be() -> None:
    full = [run("SPEAK", 0, sync_conf=0.40), run("SPEAK", 1, sync_conf=0.44)]
    worse = [run("w/o sync", 0, sync_conf=0.20), run("w/o sync", 1, sync_conf=0.30)]
    assert verdict("w/o sync", worse, full) == "Sync_conf worse by 0.170, every seed"
    near = [run("w/o sync", 0, sync_conf=0.41), run("w/o sync", 1, sync_conf=0.35)]
    assert verdict("w/o sync", near, full) == "Sync_conf worse by 0.040, within the spread of seeds"
    assert verdict("w/o sync", [run("w/o sync", 0, sync_conf=0.5)], full) == "Sync_conf better by 0.080"
    # landmark distance: less is better
    assert verdict("w/o IRFD", [run("w/o IRFD", 0, f_lmd=5.0)], full) == "F-LMD worse by 3.000, one seed"


def test_what_a_row_loses_has_its_interval_over_the_same_clips() -> None:
    """Clips differ far more than the models do: only clip by clip is the loss seen."""
    usual = {"a": 0.2, "b": 0.5, "c": 0.8, "d": 1.1}
    loss = {"a": 0.10, "b": 0.12, "c": 0.08, "d": 0.10}

    def measured(row: str, values: dict[str, float]) -> Run:
        mean = sum(values.values()) / len(values)
        clips = {name: figures(sync_conf=value) for name, value in values.items()}
        return dataclasses.replace(run(row, 0, sync_conf=mean), clips=clips)

    full = measured("SPEAK", usual | {"only here": 9.0})
    full = dataclasses.replace(full, means=figures(sync_conf=0.65))
    without = measured("w/o sync", {name: usual[name] - loss[name] for name in usual})
    # 0.1 -+ 3.182446 (t of three degrees of freedom) * 0.016330 / 2
    assert verdict("w/o sync", [without], [full]) == "Sync_conf worse by 0.100 (0.074 to 0.126), one seed"
    better = dataclasses.replace(full, off=("w/o sync",))
    assert verdict("w/o sync", [better], [dataclasses.replace(without, off=())]) == (
        "Sync_conf better by 0.100 (0.074 to 0.126)"
    )


def test_the_tables_have_the_papers_rows_beside_ours_and_name_what_is_owed() -> None:
    runs = [run("SPEAK", 0, 20.0), run("SPEAK", 1, 22.0, ssim=0.7), run("w/o self", 0, ssim=0.5)]
    text = markdown(runs, {"data": "synthetic"})
    ours = next(line for line in text.splitlines() if line.startswith("| SPEAK |"))
    assert "0.750 (0.700 to 0.800)" in ours and "| 0, 1 |" in ours and "| 21 |" in ours
    assert "| w/o self, published, MEAD | 0.580 | 25.45 | 3.87 | 3.66 | 3.12 |" in text
    assert "| w/o self and cross |" in markdown([*runs, Run(Path(), ("w/o self", "w/o cross"), 0, figures(), 1.0)], {})
    assert "Not run: w/o identity, w/o cls" in text and "w/o GAN, w/o vgg, w/o sync." in text
    columns = {line.count("|") for line in text.splitlines() if line.startswith("|")}
    assert columns == {12}, "every row has its eleven columns"


def test_the_papers_full_model_is_best_in_its_own_tables() -> None:
    """A check of the copied figures: each row without something has a lower SSIM and a higher F-LMD."""
    for row, (mead, hdtf) in PAPER.items():
        for own, full in zip((mead, hdtf), PAPER["SPEAK"], strict=True):
            assert len(own) == 5 and (row == "SPEAK" or (own[0] < full[0] and own[2] > full[2])), row


def test_runs_are_measured_once_and_made_a_table(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for name, changes in (("full", {}), ("nosync", {"speak.weight_sync": 0})):
        config = with_changes(preset("tiny"), changes)
        torch.manual_seed(0)
        content = {"stage": "speak", "config": to_dict(config), "step": 1,
                   "models": {"speak": Speak(config).state_dict()}}  # fmt: skip
        (tmp_path / name / "speak").mkdir(parents=True)
        checkpoint.save(tmp_path / name / "speak/weights.pt", content)
    (tmp_path / "nosync/minutes.json").write_text('{"speak": 12.5, "irfd": 2.5}')
    judge = Judge(preset("tiny").model.judge)
    checkpoint.save(tmp_path / "judge.pt", {"stage": "judge", "config": to_dict(preset("tiny")), "step": 1,
                                            "models": {"judge": judge.state_dict()}})  # fmt: skip
    command = ["evaluate", "--ablations", str(tmp_path / "full"), str(tmp_path / "nosync"), "--out",
               str(tmp_path / "out"), "--judge", str(tmp_path / "judge.pt"), "--set", "clips=1", "--set",
               "rendered_frames=6"]  # fmt: skip
    assert cli.main(command) == 0
    text = (tmp_path / "out/ablations.md").read_text()
    assert "| SPEAK |" in text and "| w/o sync |" in text and "| 15 |" in text
    truth = next(line for line in text.splitlines() if line.startswith("| ground truth |"))
    assert truth.startswith("| ground truth | 1.000 | - | 0.00 | 0.00 |")
    assert "truth exact, generated frames read by judge" in text and str(tmp_path) not in text
    values = json.loads((tmp_path / "out/ablations.json").read_text())["runs"]
    assert [value["folder"] for value in values] == ["full", "nosync"]
    measured = (tmp_path / "full/evaluation/report.json").stat().st_mtime_ns
    assert cli.main(command) == 0
    assert (tmp_path / "full/evaluation/report.json").stat().st_mtime_ns == measured, "not measured again"
    assert cli.main([*command, "--seed", "5"]) == 0
    assert (tmp_path / "full/evaluation/report.json").stat().st_mtime_ns != measured, "other noise is another measure"
    capsys.readouterr()
    assert cli.main(["evaluate", "--ablations", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    assert "an ablation run has trained stage speak" in capsys.readouterr().err
