"""`bench train`: a row a stage, from samples that were really made and steps that were really taken."""

import argparse

from speak import bench_train
from speak.config import Config


def test_a_row_a_stage_whose_parts_add_up(monkeypatch) -> None:
    monkeypatch.setattr(bench_train, "preset", _small)
    tables = bench_train.measure(argparse.Namespace(preset="tiny", device="cpu", quick=True))
    (rows,) = tables.values()
    assert [row["stage"] for row in rows] == list(bench_train.ORDER)
    for row in rows:
        whole, networks = row["samples/s"], row["networks alone"]
        assert 0 < whole <= networks
        assert abs(float(row["outside the networks"].split()[0]) - 100 * (1 - whole / networks)) < 2


def _small(name: str) -> Config:
    from tests.small_training import small

    return small(**{f"{stage}__batch": 2 for stage in bench_train.ORDER})
