import argparse

import pytest

from speak import bench_animate


def test_whole_videos_and_their_parts_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_animate, "QUICK_LENGTHS", (1, 2))
    tables = bench_animate.measure(argparse.Namespace(quick=True, device="cpu"))
    videos, parts = tables.values()
    assert [row["frames"] for row in videos] == [30, 60]
    assert all(row["frames/s"] > 0 and row["peak MiB"] > 100 for row in videos)
    assert {row["part"].split()[0] for row in parts} == {"audio", "pose", "editing", "all", "video"}
    together = next(row["ms"] for row in parts if row["part"].startswith("all"))
    assert together > max(row["ms"] for row in parts if row["part"].split()[0] == "pose")
    assert all(row["ms"] > 0 for row in parts)
