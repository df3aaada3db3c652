"""`python -m speak evaluate`: how good is it, in the field's own numbers?

Four things, each into a folder as JSON, CSV or Markdown and one HTML page that opens without a network: the
self-driven protocol (SPEAK Table 1), any system's videos against truth, disentanglement (Figure 5), and ablations
(Tables 3 and 4).
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from speak import evaluate_ablations, evaluate_pairs, metrics
from speak.config import DisentanglementConfig, EvaluateConfig, parse_settings, with_changes
from speak.datasets.rendered import SPLITS, synthetic_seed
from speak.errors import SpeakError
from speak.evaluate_clips import Row, Shown, count_clips, data_name, reader_name, score_clip, self_driven, test_clips
from speak.evaluate_instruments import (
    LANDMARK_SOURCES,
    Instruments,
    Loaded,
    find,
    instruments,
    load,
    short,
    weights_of,
)
from speak.evaluate_page import page, picture_uri, report_page
from speak.evaluate_report import Report, markdown, plain, write_tables, write_text
from speak.media.files import check_readable, make_folder
from speak.precision import choose_device


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--pairs", metavar="FILE.csv", help="score videos of any system: columns generated, truth and, "
                      "where wanted, audio, emotion, name")  # fmt: skip
    what.add_argument("--disentanglement", action="store_true", help="do the factors separate? probes and exchanges "
                      "on rendered people")  # fmt: skip
    what.add_argument("--ablations", nargs="+", metavar="RUN", help="run folders, each with something switched off")
    parser.add_argument("--weights", metavar="FILE", help="a checkpoint, or a run folder; default: what ships")
    parser.add_argument("--data", default="synthetic", metavar="DIR|synthetic[:SEED]",
                        help="a prepared corpus, or rendered people (default)")  # fmt: skip
    parser.add_argument("--split", default="test", choices=(*SPLITS, "all"), help="of the data (default test)")
    parser.add_argument("--out", default="evaluation", metavar="FOLDER", help="where the report goes")
    parser.add_argument("--judge", metavar="FILE", help="weights of the judge; default: beside the weights, or shipped")
    parser.add_argument("--syncnet", metavar="FILE", help="weights of the judge of sync: ours, or syncnet_v2.model")
    parser.add_argument("--landmarks", choices=LANDMARK_SOURCES, default="auto", help="who reads landmarks: auto, the "
                        "faces extra, or the judge")  # fmt: skip
    parser.add_argument("--device", help="cpu or cuda; default: cuda where there is one")
    parser.add_argument("--seed", type=int, default=0, help="of the noise, and of the people of --disentanglement")
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="key=value",
                        help="protocol and conventions: clips=0, ssim=gaussian, psnr=legacy_uint8, lmd=sum, "
                        "lengths=resample, ...; with --disentanglement probe_frames=..., ...")  # fmt: skip


def run(arguments: argparse.Namespace) -> None:
    """Measures, writes the report and says where it is."""
    device = choose_device(arguments.device)
    kind = DisentanglementConfig if arguments.disentanglement else EvaluateConfig
    settings = with_changes(kind(), parse_settings(arguments.settings))
    if not 0 <= settings.lifelike <= 1:
        raise SpeakError(f"--set lifelike={settings.lifelike}: a share of people, 0 to 1")
    if isinstance(settings, EvaluateConfig):
        _check(settings)
    out = make_folder(arguments.out)
    if arguments.disentanglement:
        _disentanglement(arguments, settings, out, device)
    elif arguments.ablations:
        _ablations(arguments, settings, out, device)
    elif arguments.pairs:
        tools = instruments(arguments.judge, arguments.syncnet, arguments.landmarks, arguments.weights, device)
        _finish(evaluate_pairs_table(arguments.pairs, tools, settings), out)
    else:
        model = _speak(arguments.weights, device)
        beside = None if model.source == "shipped" else model.source
        tools = instruments(arguments.judge, arguments.syncnet, arguments.landmarks, beside, device)
        _finish(evaluate_model(model, tools, arguments.data, arguments.split, settings, arguments.seed), out)


def evaluate_model(
    model: Loaded,  # a Speak
    tools: Instruments,
    data: str = "synthetic",
    split: str = "test",
    settings: EvaluateConfig | None = None,
    seed: int = 0,
) -> Report:
    """The self-driven protocol over the clips of a split; a clip that cannot be scored says why in its row."""
    settings = settings or EvaluateConfig()
    size = model.config.model.image_size
    rows: list[Row] = []
    shown: list[Shown] = []
    rendered = synthetic_seed(data) is not None
    clips = test_clips(data, split, size, settings)
    for number, clip in enumerate(tqdm(clips, "clips", count_clips(data, split, settings), unit="clip")):
        rendered = clip.rendered
        try:
            generated = self_driven(model.network, clip, settings, seed + number)
            rows.append(score_clip(clip, generated, tools, settings))
        except SpeakError as error:
            rows.append(Row(clip.name, clip.identity, 0, {}, {}, {}, [], str(error)))
            continue
        if len(shown) < settings.shown:
            shown.append(Shown(clip.name, clip.frames[0], clip.frames, generated, clip.speech))
    count = len({row.identity for row in rows})
    people = f"{count} {'person' if count == 1 else 'people'}"
    facts = {
        "weights": f"{short(model.source)} (preset {model.config.preset}, step {model.step})",
        "data": f"{data_name(data)}, split {split}, {people}, {len(rows)} clips",
        "protocol": f"self-driven at {size}x{size}: identity from the first frame, poses from every frame, emotion "
                    f"from {settings.emotion_frames} frames of the clip, its own speech",
        "landmarks": reader_name(tools, rendered),
        **_facts(tools, settings),
    }  # fmt: skip
    return Report("Self-driven evaluation", facts, rows, shown)


def evaluate_pairs_table(table: str, tools: Instruments, settings: EvaluateConfig | None = None) -> Report:
    """Scores every row of a table of videos; a row that cannot be scored says why, and the rest goes on."""
    settings = settings or EvaluateConfig()
    rows, shown = [], []
    for line in tqdm(evaluate_pairs.read_table(table), "pairs", unit="pair"):
        row, clip = evaluate_pairs.score_pair(line, Path(table).parent, tools, settings)
        rows.append(row)
        if clip is not None and len(shown) < settings.shown:
            shown.append(clip)
    facts = {
        "table": f"{Path(table).name}, {len(rows)} rows",
        "landmarks": reader_name(tools, False),
        "csim": "each frame with the first frame of the truth",
        **_facts(tools, settings),
    }
    return Report("Videos against truth", facts, rows, shown)


def _facts(tools: Instruments, settings: EvaluateConfig) -> dict[str, str]:
    names = tools.names()
    return {
        "sync judge": names["sync_judge"],
        "judge (CSIM, emotion)": names["judge"],
        "conventions": f"PSNR {settings.psnr}, SSIM {settings.ssim}, LMD {settings.lmd} in pixels at "
                       f"{metrics.LMD_SIZE}x{metrics.LMD_SIZE}, lengths {settings.lengths}",
    }  # fmt: skip


def _finish(report: Report, out: Path) -> None:
    files = write_tables(report, out)
    text = markdown(report)
    write_text(out / "report.html", report_page(report, text))
    print(text.partition("\n## ")[0].strip())
    print(f"\n{out / 'report.html'} (and {', '.join(path.name for path in files)})")
    if all(row.error for row in report.rows):
        raise SpeakError(f"{out}: nothing could be measured: {report.rows[0].error}")


def _speak(weights: str | None, device: torch.device) -> Loaded:
    if weights is None:
        found = find("speak", None, None, device)
        if found is None:
            raise SpeakError("no weights come with this installation: give trained ones with --weights FILE")
        return found
    return load("speak", weights_of(weights, "speak"), device)


def _disentanglement(
    arguments: argparse.Namespace, settings: DisentanglementConfig, out: Path, device: torch.device
) -> None:
    """IRFD, Speak or both: a run folder, or a file of either stage."""
    from speak import checkpoint, disentanglement

    if arguments.weights is None:
        models = {"speak": _speak(None, device)}
    elif Path(arguments.weights).is_dir():
        paths = {stage: weights_of(arguments.weights, stage) for stage in ("irfd", "speak")}
        models = {stage: load(stage, path, device) for stage, path in paths.items() if path.is_file()}
        if not models:
            raise SpeakError(f"{arguments.weights}: a run folder without trained stages irfd or speak")
    else:
        stage = checkpoint.load(check_readable(arguments.weights))["stage"]
        if stage not in ("irfd", "speak"):
            raise SpeakError(f"{arguments.weights}: holds stage {stage}, not irfd or speak")
        models = {stage: load(stage, arguments.weights, device)}
    seed = synthetic_seed(arguments.data)
    if seed is None:
        raise SpeakError(f"--data {arguments.data}: disentanglement is measured on rendered people: synthetic[:SEED]")
    first = next(iter(models.values()))
    beside = None if first.source == "shipped" else first.source
    judge = find("judge", arguments.judge, beside, device)
    irfd, speak = (models[stage].network if stage in models else None for stage in ("irfd", "speak"))
    report = disentanglement.measure(
        irfd, judge.network if judge else None, speak, first.config, seed + arguments.seed, arguments.split, settings
    )
    names = [f"{stage} {short(found.source)}, step {found.step}" for stage, found in models.items()]
    judged = f"{short(judge.source)}, step {judge.step}" if judge else "none: pictures are compared in dB only"
    text = f"# Disentanglement\n\nWeights: {'; '.join(names)}. Judge: {judged}.\n\n{disentanglement.markdown(report)}"
    write_text(out / "disentanglement.json", json.dumps(plain(report.to_dict()), indent=1, allow_nan=False) + "\n")
    write_text(out / "disentanglement.md", text)
    figures = []
    if report.exchanges:
        disentanglement.write_grid(report.exchanges, out / "figure5.png")
        uri = picture_uri(disentanglement.labelled_grid(report.exchanges))
        figures = [f'<h2>Figure 5</h2><figure><img alt="exchanged factors beside the true ones" src="{uri}"></figure>']
    write_text(out / "disentanglement.html", page("Disentanglement", text, figures))
    print(text)
    print(out / "disentanglement.html")


def _ablations(arguments: argparse.Namespace, settings: EvaluateConfig, out: Path, device: torch.device) -> None:
    """All runs with the same instruments: those named, else those beside the first run, else shipped."""
    folders = [Path(folder) for folder in arguments.ablations]
    beside = weights_of(folders[0], "speak")
    tools = instruments(arguments.judge, arguments.syncnet, arguments.landmarks, beside, device)

    def evaluate(weights: Path, folder: Path) -> dict[str, Any]:
        with weights.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else \
                hashlib.sha256(file.read()).hexdigest()  # fmt: skip
        facts = {"weights": digest, "data": data_name(arguments.data), "split": arguments.split,
                 "seed": arguments.seed, "settings": dataclasses.asdict(settings), "tools": tools.names(),
                 "named": [str(beside), arguments.judge, arguments.syncnet]}  # fmt: skip
        key, report = folder / "measured.json", folder / "report.json"
        if key.is_file() and report.is_file() and key.read_text() == json.dumps(facts):
            return json.loads(report.read_text())
        made = evaluate_model(load("speak", weights, device), tools, arguments.data, arguments.split, settings,
                              arguments.seed)  # fmt: skip
        write_tables(made, folder)
        write_text(folder / "report.html", report_page(made, markdown(made)))
        write_text(key, json.dumps(facts))
        return made.to_dict()

    runs = []
    for folder in folders:
        print(f"{folder}")
        runs.append(evaluate_ablations.read_run(folder, evaluate))
    runs = evaluate_ablations.as_in_the_paper(runs)
    facts = {"data": f"{data_name(arguments.data)}, split {arguments.split}",
             "landmarks": reader_name(tools, synthetic_seed(arguments.data) is not None),
             **_facts(tools, settings)}  # fmt: skip
    text = evaluate_ablations.markdown(runs, facts)
    values = [dataclasses.asdict(run) | {"folder": run.folder.name, "row": run.row} for run in runs]
    write_text(out / "ablations.json", json.dumps(plain({"runs": values, "facts": facts}), indent=1) + "\n")
    write_text(out / "ablations.md", text)
    write_text(out / "ablations.html", page("Ablations", text, []))
    print(text)
    print(out / "ablations.html")


def _check(settings: EvaluateConfig) -> None:
    known = {"psnr": metrics.PSNR_CONVENTIONS, "ssim": metrics.SSIM_CONVENTIONS, "lmd": metrics.LMD_CONVENTIONS,
             "lengths": ("common", "resample")}  # fmt: skip
    for name, choices in known.items():
        if getattr(settings, name) not in choices:
            raise SpeakError(f"--set {name}={getattr(settings, name)}: choose from {', '.join(choices)}")
    for name in ("clips", "frames", "shown"):
        if getattr(settings, name) < 0:
            raise SpeakError(f"--set {name}={getattr(settings, name)}: at least 0")
    if settings.rendered_frames < 5 or settings.emotion_frames < 1:
        raise SpeakError("--set rendered_frames wants 5 or more, emotion_frames 1 or more")
