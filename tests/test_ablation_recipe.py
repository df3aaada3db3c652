"""examples/ablations.py: its commands are ones that `train` takes, rows share what they should, it can be stopped."""

import argparse
import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

from speak import checkpoint
from speak.config import Config, from_dict, parse_settings, preset, to_dict, with_changes
from speak.evaluate_ablations import PAPER, Run, switched_off
from speak.train import command

RECIPE = Path(__file__).parent.parent / "examples/ablations.py"


@pytest.fixture(scope="module")
def recipe() -> ModuleType:
    spec = importlib.util.spec_from_file_location("ablation_recipe", RECIPE)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def parsed(words: list[str]) -> argparse.Namespace:
    """A command line as `train` reads it."""
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return parser.parse_args(words[4:])  # after: python -m speak train


class Trainer:
    """Stands in for `call`: leaves weights as a training does, or stops half-way."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.commands: list[list[str]] = []
        self.stop_at = stop_at

    def __call__(self, words: list[str]) -> None:
        if len(self.commands) == self.stop_at:
            raise KeyboardInterrupt
        self.commands.append(words)
        if words[3] != "train":
            return
        arguments = parsed(words)
        config = with_changes(preset(arguments.preset), parse_settings(arguments.settings))
        config = with_changes(config, {"train.seed": arguments.seed})
        folder = Path(arguments.out) / arguments.stage
        folder.mkdir(parents=True, exist_ok=True)
        for source in parse_settings(arguments.sources).values():
            assert Path(source).is_file(), f"{arguments.stage} is trained before {source} is there"
        content = {"stage": arguments.stage, "config": to_dict(config), "step": arguments.steps, "models": {}}
        checkpoint.save(folder / "weights.pt", content)
        rows = [{"step": step, "samples_per_second": rate} for step, rate in ((10, 1.0), (20, 8.0), (40, 16.0))]
        (folder / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def trained(self) -> list[str]:
        found = [parsed(words) for words in self.commands if words[3] == "train"]
        return [f"{Path(one.out).name}/{one.stage}" for one in found]


SHORT = ["--judge-steps", "4", "--perceptual-steps", "4", "--audio-steps", "4", "--syncnet-steps", "4"]


def test_every_row_of_the_paper_is_there_and_is_read_back_as_that_row(
    recipe: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = Trainer()
    monkeypatch.setattr(recipe, "call", trainer)
    recipe.main(["--out", str(tmp_path), "--rows", "all", "--seeds", "3", "--irfd-steps", "6", "--speak-steps", "6",
                 *SHORT])  # fmt: skip
    rows = {}
    for name in recipe.ROWS:
        speak, irfd = tmp_path / f"{name}-3/speak/weights.pt", tmp_path / f"{name}-3/irfd/weights.pt"
        configs = [None if not path.is_file() else recipe_config(path) for path in (speak, irfd)]
        assert configs[0].train.seed == 3
        rows[name] = Run(tmp_path, switched_off(*configs), 3, {}, 0.0).row
    assert set(PAPER) <= set(rows.values()) and len(set(rows.values())) == len(rows)
    assert rows["pictures"] == "w/o self and cross" and rows["irfd"] == "w/o IRFD"
    # rows of SPEAK's losses share IRFD, and all share SyncNet; the nets that measure are others, on other people
    sources = {Path(parsed(words).out).name: parse_settings(parsed(words).sources) for words in trainer.commands[:-1]
               if parsed(words).stage == "speak"}  # fmt: skip
    shared = str(tmp_path / "shared-3/irfd/weights.pt")
    assert sources["full-3"]["irfd"] == sources["sync-3"]["irfd"] == shared
    assert sources["self-3"]["irfd"] == str(tmp_path / "self-3/irfd/weights.pt") and "irfd" not in sources["irfd-3"]
    assert len({row["syncnet"] for row in sources.values()}) == 1
    measuring = [parsed(words) for words in trainer.commands[:2]]
    assert {one.data for one in measuring} == {"synthetic:1000"} and all(one.seed == 1000 for one in measuring)
    tables = trainer.commands[-1]
    assert tables[3:5] == ["evaluate", "--ablations"] and str(tmp_path / "instruments/judge/weights.pt") in tables


def recipe_config(path: Path) -> Config:
    return from_dict(checkpoint.load(path)["config"])


def test_a_stopped_recipe_goes_on_where_it_was_and_more_rows_may_follow(
    recipe: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["--out", str(tmp_path), "--seeds", "0", "--irfd-steps", "6", "--speak-steps", "6", *SHORT]
    first, second, third = Trainer(stop_at=4), Trainer(), Trainer()
    monkeypatch.setattr(recipe, "call", first)
    with pytest.raises(KeyboardInterrupt):
        recipe.main([*arguments, "--rows", "full", "sync"])
    monkeypatch.setattr(recipe, "call", second)
    recipe.main([*arguments, "--rows", "full", "sync"])
    assert first.trained() + second.trained() == [
        "instruments/judge", "instruments/syncnet", "shared-0/perceptual", "shared-0/audio", "shared-0/syncnet",
        "shared-0/irfd", "full-0/speak", "sync-0/speak",
    ]  # fmt: skip
    monkeypatch.setattr(recipe, "call", third)
    recipe.main([*arguments, "--rows", "full", "sync", "self"])
    assert third.trained() == ["self-0/irfd", "self-0/speak"]


def test_steps_are_fitted_once_to_the_minutes_that_are_given(
    recipe: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = Trainer()
    monkeypatch.setattr(recipe, "call", trainer)
    arguments = ["--out", str(tmp_path), "--rows", "full", "--seeds", "0", "--minutes", "20", *SHORT]
    recipe.main(arguments)
    # 10 minutes each, at 8 samples a second for a while and 16 for as many, the start left out; batches of 8
    steps = json.loads((tmp_path / "steps.json").read_text())
    assert (steps["irfd"], steps["speak"]) == (800, 800)
    assert "trial/irfd" in trainer.trained() and "trial/speak" in trainer.trained()
    again = Trainer()
    monkeypatch.setattr(recipe, "call", again)
    recipe.main([*arguments, "--speak-steps", "900"])
    assert again.trained() == ["full-0/speak"] and parsed(again.commands[0]).steps == 900


def test_stages_that_a_run_has_are_not_trained_again(
    recipe: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    for stage in ("irfd", "syncnet", "audio"):
        (run / stage).mkdir(parents=True)
        content = {"stage": stage, "config": to_dict(preset("tiny")), "step": 8000, "models": {}}
        checkpoint.save(run / stage / "weights.pt", content)
    trainer = Trainer()
    monkeypatch.setattr(recipe, "call", trainer)
    recipe.main(["--out", str(tmp_path / "out"), "--rows", "full", "self", "--seeds", "0", "--shared", str(run),
                 *SHORT])  # fmt: skip
    assert trainer.trained() == [
        "instruments/judge", "instruments/syncnet", "shared-0/perceptual", "trial/speak", "full-0/speak", "self-0/irfd",
        "self-0/speak",
    ]  # fmt: skip
    speak = parsed(trainer.commands[4])
    assert parse_settings(speak.sources)["irfd"] == str(run / "irfd/weights.pt")
    assert parsed(trainer.commands[5]).steps == 8000, "IRFD anew for as long as the shared one"


def test_a_dry_run_says_everything_and_does_nothing(
    recipe: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    recipe.main(["--out", str(tmp_path / "out"), "--dry-run", "--data", "prepared"])
    lines = capsys.readouterr().out.splitlines()
    assert not (tmp_path / "out").exists() and "evaluate --ablations" in lines[-1]
    data = {line.split("--stage ")[1].split()[0]: line.split("--data ")[1].split()[0] for line in lines[:-1]}
    # what needs exact truth is trained on rendered people
    assert data["judge"] == "synthetic:1000" and data["audio"] == data["perceptual"] == "synthetic"
    assert data["irfd"] == data["speak"] == "prepared"


def test_a_row_that_is_not_there_is_named(recipe: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        recipe.main(["--out", str(tmp_path), "--rows", "sinc"])
    assert "no row 'sinc': choose all, or of full, irfd, sync" in capsys.readouterr().err
