"""`bench ops`: a row an operator, from calls that were really made, beside the limit that it names."""

import argparse
import itertools

import pytest

from speak import bench_ops, ops

pytestmark = pytest.mark.skipif(bool(ops.LIBRARY.missing), reason=f"no compiled library: {ops.LIBRARY.missing}")


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"SHAPES": ((1, 16, 8, 8),), "ROTATION": 1 << 16, "LAYER": (16, 8, 8), "SECONDS": 0.0,
                        "GENERATOR": (16, 8, 128, 16), "CHILD": "PATH"}.items():  # fmt: skip
        monkeypatch.setattr(bench_ops, name, value)
    monkeypatch.setattr(bench_ops.allocator, "keep_memory", lambda: False)  # of this process, for good


def measured(only: str) -> list[list[dict]]:
    return list(bench_ops.measure(argparse.Namespace(device="cpu", quick=True, only=only)).values())


def test_every_operator_and_the_generator_have_a_row_and_its_ratios(small: None) -> None:
    operators, whole = measured("")
    assert len(operators) == 2 * len({row["operator"] for row in operators}) == 2 * 8
    for row in operators:
        assert row["ratio"] == row["ours"] / row["copy"] > 0 and row["faster"] == row["reference"] / row["ours"] > 0
    expected = itertools.product((1, 4), ("modulated_layer 16x8x8", "generator"), ("float32", "bfloat16"))
    rows = [(row["batch"], row["what"], row["dtype"]) for row in whole if row["bare convolutions"]]
    assert rows == list(expected)
    for row in whole:
        assert row["ours"] > 0 and row["faster"] == row["reference"] / row["ours"]
        assert row["ratio"] is None or row["ratio"] == row["ours"] / row["bare convolutions"]
        assert row["ratio to own"] is None or row["ratio to own"] == row["ours"] / row["own"]


def test_only_chooses_rows_by_name(small: None) -> None:
    ((row, _),) = measured("upfirdn2d")
    assert row["operator"].startswith("upfirdn2d")
