"""`bench train`: a row a stage, from samples that were really made and steps that were really taken."""

import argparse
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from speak import bench_train
from speak.config import Config
from speak.train.loop import Data
from tests.small_training import small


def test_a_row_a_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_train, "preset", _small)
    tables = bench_train.measure(argparse.Namespace(preset="tiny", device="cpu", quick=True))
    (rows,) = tables.values()
    assert [row["stage"] for row in rows] == list(bench_train.ORDER)
    for row in rows:
        assert row["samples/s"] > 0 and row["networks alone"] > 0 and 0 <= _waited(row) <= 100


@pytest.mark.parametrize("seconds", [0.0, 3.0])
def test_what_waits_for_samples_is_told_from_what_computes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, seconds: float
) -> None:
    """On a clock that only samples and steps move: a step takes a second, a batch's samples `seconds`."""
    clock = [0.0]

    def slow(*how: Any) -> Data:
        def train(first_step: int) -> Iterator[Any]:
            while True:
                clock[0] += seconds
                yield None

        return Data(train, list)

    def advance(self: bench_train.Training, samples: Any) -> None:
        clock[0] += 1.0

    monkeypatch.setattr(bench_train, "stage_data", slow)
    monkeypatch.setattr(bench_train, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    monkeypatch.setattr(bench_train.Training, "advance", advance)
    row = bench_train._stage_speed("judge", _small("tiny"), tmp_path, torch.device("cpu"), quick=False)
    assert _waited(row) == 100 * seconds / (seconds + 1)
    assert row["samples/s"] == 2 / (seconds + 1)


def _waited(row: dict[str, Any]) -> float:
    return float(row["waiting for samples"].split()[0])


def _small(name: str) -> Config:
    return small(**{f"{stage}__batch": 2 for stage in bench_train.ORDER})
