import argparse

from speak.bench_data import measure


def test_prepare_is_near_the_decoder_and_reading_feeds_training() -> None:
    tables = measure(argparse.Namespace(quick=True))
    prepared, read, rendered, voices = tables.values()
    assert [row["video"] for row in prepared] == ["1920x1080", "640x480", "256x256"]
    # start-up weighs in these short videos; of a large picture most of the time is the decoder's
    assert all(row["ratio of times"] > 1 for row in prepared) and prepared[0]["ratio of times"] < 4
    assert [row["what"] for row in read] == ["single frames", "irfd pairs", "syncnet windows", "speak windows"]
    assert all(row["frames/s"] >= 300 for row in read)  # what is asked of a core
    assert [row["size"] for row in rendered] == [256, 128, 64]
    speeds = [row["1 thread"] for row in rendered]
    assert 0 < speeds[0] < speeds[1] < speeds[2]  # smaller pictures are quicker to make
    assert voices[0]["times as fast as it lasts"] >= 5  # speech is no burden beside its pictures
