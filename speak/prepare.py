"""`python -m speak prepare`: a corpus, or a folder of videos, made into a prepared corpus.

Each source goes through alone: a broken one is reported at the end and the others go on; what is whole stays, and the
same command goes on where it stopped.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from multiprocessing import get_context
from pathlib import Path

from tqdm import tqdm

from speak.config import PrepareConfig
from speak.datasets.corpora import LAYOUTS, Source, read_corpus
from speak.datasets.source import Made, make_clips
from speak.errors import SpeakError
from speak.media.face import parse_box
from speak.media.face_detection import best_detector, has_dlib
from speak.media.files import whole_file
from speak.media.prepared import PreparedWriter, split_identities

PROBLEMS = "problems.txt"
SHOWN = 40  # lines of them on the screen


@dataclasses.dataclass(frozen=True)
class Report:
    """What a run of `prepare` did."""

    clips: int  # in the corpus now
    made: int  # by this run
    frames: int  # of those
    already: int  # sources that were whole before
    found_by: dict[str, int]  # how faces were found -> clips of this run
    notes: list[tuple[str, str]]  # source and remark: what was left out of a clip or filled in
    problems: list[tuple[str, str]]  # source and reason: what gave no clip


def prepare(
    source: str | Path,
    layout: str,
    out: str | Path,
    config: PrepareConfig | None = None,
    box: tuple[float, float, float, float] | None = None,  # of the head in every video: x, y, w, h in pixels
    face: int | None = None,  # which face, from 1, from left to right; default the largest
    workers: int | None = None,  # processes; default one a core
    quiet: bool = False,  # no progress bar
) -> Report:
    """Prepares the corpus at `source` into the folder `out`. Raises SpeakError where there is nothing to prepare, where
    nothing could be, and for a full disk; sources that fail are in the report."""
    config = config or PrepareConfig()
    listing = read_corpus(source, layout)
    writer = PreparedWriter(out, config.jpeg_quality)
    writer.remove_leftovers()
    inside = Path(out).resolve()  # the corpus may be written below its source
    sources = [item for item in listing.sources if inside not in item.path.resolve().parents]
    left_out = [item for item in listing.left_out if inside not in Path(item[0]).resolve().parents]
    sources = _with_splits(sources, writer)
    done = {record.piece for record in writer.records.values()}
    root = Path(source)
    waiting = [item for item in sources if item.name not in done]
    already = len(sources) - len(waiting)
    made, frames, found_by, notes = 0, 0, Counter(), []
    problems = [(str(path), reason) for path, reason in left_out]
    workers = max(1, min(workers or os.cpu_count() or 1, len(waiting)))
    job = dataclasses.asdict(config), str(out), box, face, 1 if workers > 1 else 0
    try:
        bar = tqdm(total=len(sources), initial=already, desc="prepare", unit="video", disable=quiet)
        with bar, closing(_each(waiting, root, job, workers)) as results:
            for item, result in results:
                bar.update()
                if result.disk_full:
                    raise SpeakError(result.error or "")
                if result.records:
                    writer.add(result.records)
                    made += len(result.records)
                    frames += sum(record.frames for record in result.records)
                    found_by.update(record.box_from for record in result.records)
                notes += [(str(item.path), note) for note in result.notes]
                if not result.records:
                    problems.append((str(item.path), (result.error or "nothing left").removeprefix(f"{item.path}: ")))
    finally:
        writer.remove_leftovers()
    problems.sort()
    _write_problems(Path(out), problems, notes)
    if not writer.records:
        raise SpeakError(f"{source}: no clip could be prepared; the first reason: {problems[0][0]}: {problems[0][1]}")
    return Report(len(writer.records), made, frames, already, dict(found_by), sorted(notes), problems)


def _with_splits(sources: list[Source], writer: PreparedWriter) -> list[Source]:
    """Every source with a split: the corpus's own, what an earlier run decided, else a tenth of the people each."""
    known = {record.identity: record.split for record in writer.records.values()}
    known.update({item.identity: item.split for item in sources if item.split})
    official = any(item.split == "test" for item in sources)
    decided = split_identities((item.identity for item in sources), known)
    if official:  # the corpus has its own test people: no others become ones
        decided = {name: "train" if split == "test" and name not in known else split for name, split in decided.items()}
    return [dataclasses.replace(item, split=decided[item.identity]) for item in sources]


def _each(waiting: list[Source], root: Path, job: tuple, workers: int) -> Iterator[tuple[Source, Made]]:
    """The sources with what became of them, as they finish."""
    if workers == 1:
        for item in waiting:
            yield item, _make(item, item.path.relative_to(root).as_posix(), job)
        return
    rest = list(waiting)
    while rest:
        # A process that dies (out of memory, a crash within a library) breaks the pool: go on with those left, one by
        # one until the culprit is found.
        culprit = False
        pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_start_worker)
        running: dict[Future, Source] = {}
        queue = iter(list(rest))
        try:
            for item in queue:
                running[pool.submit(_make, item, item.path.relative_to(root).as_posix(), job)] = item
                if len(running) >= 2 * workers:
                    yield from _finished(running, rest)
            while running:
                yield from _finished(running, rest)
        except BrokenProcessPool:
            culprit = True
        except BaseException:
            for process in list((pool._processes or {}).values()):
                process.terminate()  # their temporary files go with them
            raise
        finally:
            pool.shutdown(cancel_futures=True)
        if culprit:
            suspects = [item for item in rest if item in running.values()]
            for item in suspects:
                rest.remove(item)
                yield item, _make_alone(item, root, job)


def _finished(running: dict[Future, Source], rest: list[Source]) -> Iterator[tuple[Source, Made]]:
    done, _ = wait(running, return_when=FIRST_COMPLETED)
    for future in done:
        result = future.result()
        item = running.pop(future)
        rest.remove(item)
        yield item, result


def _make_alone(item: Source, root: Path, job: tuple) -> Made:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=_start_worker) as pool:
        try:
            return pool.submit(_make, item, item.path.relative_to(root).as_posix(), job).result()
        except BrokenProcessPool:
            return Made([], [], f"{item.path}: the process that read it was ended (out of memory?)")


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))


def _make(item: Source, relative: str, job: tuple) -> Made:
    config, out, box, face, threads = job
    return make_clips(item, relative, Path(out), PrepareConfig(**config), box, face, threads)


def _write_problems(out: Path, problems: list[tuple[str, str]], notes: list[tuple[str, str]]) -> None:
    lines = [f"{path}: {reason}\n" for path, reason in problems]
    lines += [f"{path}: note: {note}\n" for path, note in notes]
    if lines:
        with whole_file(out / PROBLEMS) as temporary:
            temporary.write_text("".join(lines), encoding="utf-8")
    else:
        (out / PROBLEMS).unlink(missing_ok=True)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    defaults = PrepareConfig()
    parser.add_argument("source", help="the corpus, or a folder of videos")
    parser.add_argument("--layout", choices=sorted(LAYOUTS), default="folder", help="default: folder")
    parser.add_argument("--out", required=True, help="folder of the prepared corpus; an interrupted run goes on there")
    parser.add_argument("--box", help="x,y,w,h of the head in pixels, for all videos")
    parser.add_argument("--face", type=int, help="which face, counted from 1 from left to right; default the largest")
    parser.add_argument("--workers", type=int, help="processes; default one a core")
    for field in dataclasses.fields(PrepareConfig):
        flag = "--" + field.name.replace("_", "-")
        value = getattr(defaults, field.name)
        parser.add_argument(flag, type=type(value), default=value, help=f"default {value}")


def run(arguments: argparse.Namespace) -> None:
    """Prepares and prints what was done."""
    values = {field.name: getattr(arguments, field.name) for field in dataclasses.fields(PrepareConfig)}
    for name, value in values.items():
        if value < 0 or (value == 0 and name in ("size", "longest_chunk", "detect_every")):
            raise SpeakError(f"--{name.replace('_', '-')} {value}: wants a number above zero")
    if not 1 <= values["jpeg_quality"] <= 100:
        raise SpeakError(f"--jpeg-quality {values['jpeg_quality']}: wants 1 to 100")
    if not has_dlib():
        print(f"faces: by the {best_detector().name}; with the extra (pip install 'speak[faces]') dlib would find more")
    box = parse_box(arguments.box) if arguments.box else None
    report = prepare(arguments.source, arguments.layout, arguments.out, PrepareConfig(**values), box,
                     arguments.face, arguments.workers)  # fmt: skip
    lines = [f"{path}: note: {note}" for path, note in report.notes]
    lines += [f"{path}: {reason}" for path, reason in report.problems]
    print("\n".join(lines[-SHOWN:]) or "no problems")
    if len(lines) > SHOWN:
        print(f"and {len(lines) - SHOWN} more lines in {Path(arguments.out) / PROBLEMS}")
    how = ", ".join(f"{count} {name}" for name, count in sorted(report.found_by.items()))
    print(f"{report.made} clips made, {report.frames} frames" + (f"; faces: {how}" if how else ""))
    print(f"{report.already} sources were there already, {len(report.problems)} gave nothing")
    print(f"{arguments.out}: {report.clips} clips")
