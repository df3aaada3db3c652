"""`python -m speak animate`: a photo, speech, head motion and a feeling become a talking video.

The video is exactly 30 frames/s and as long as the speech, its sound is that of the original file. It appears whole or
not at all.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
import time
from pathlib import Path
from typing import Any

from tqdm import tqdm

from speak.batch_file import NOTHING, Job, read_batch
from speak.config import FRAME_RATE, AdaptConfig, AnimateConfig, InversionConfig
from speak.drivers import ENDS, LARGEST_STRENGTH, POSE_MODES, is_label, parse_emotions
from speak.errors import SpeakError
from speak.generation import TalkingHead, load
from speak.media.face import parse_box
from speak.media.files import check_readable, whole_file
from speak.media.video import VideoWriter
from speak.speech import Speech


def write_video(
    head: TalkingHead,
    job: Job,
    speech: Speech | None = None,  # the job's, where it is open already
    progress: bool = True,
) -> int:
    """Makes one video, whole or not at all; returns its number of frames. Remarks go to stderr. Raises SpeakError."""
    speech = speech or Speech(job.speech, head.settings)
    animation = head.animate(job.photo, speech, **job.arguments())
    for note in animation.notes:
        print(f"note: {note}", file=sys.stderr)
    cut = animation.frames < speech.frames
    seconds = animation.frames / FRAME_RATE if cut else None
    bar = tqdm(total=animation.frames, desc=Path(job.out).name, unit="frame", disable=not progress)
    with contextlib.closing(animation), bar, VideoWriter(job.out, job.speech, seconds) as writer:
        for frame in animation:
            writer.write(frame)
            bar.update()
    return animation.frames


def check_files(job: Job) -> None:
    """Raises SpeakError, before any work is done, where an input is missing or the video cannot be written."""
    given = [job.photo, job.speech, *(name for name in (job.pose, job.emotion) if name and not is_label(name))]
    for path in given:
        check_readable(path)
    out = Path(job.out)
    if out.suffix.lower() != ".mp4":
        raise SpeakError(f"{out}: the video is an mp4, name it so")
    if out.is_dir():
        raise SpeakError(f"{out}: is a folder, a name for the video is wanted")
    if out.exists() and any(out.samefile(path) for path in given):
        raise SpeakError(f"{out}: is one of the inputs, write the video elsewhere")
    check_writable(out)


def check_writable(path: str | Path) -> None:
    """Raises SpeakError where no file can be made at `path`; leaves nothing there."""
    with contextlib.suppress(_Enough), whole_file(path):
        raise _Enough


class _Enough(Exception):
    """Leaves `whole_file` without a file."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    steps = AdaptConfig().steps
    parser.add_argument("photo", nargs="?", metavar="ID.png", help="photo of the person")
    parser.add_argument("speech", nargs="?", metavar="SPEECH.wav", help="what they say: any sound or video file")
    parser.add_argument("pose", nargs="?", metavar="POSE.mp4", help="how the head moves: a video, a picture, a CSV or "
                        "JSON of angles; - or nothing: gentle motion")  # fmt: skip
    parser.add_argument("emotion_from", nargs="?", metavar="EMO.mp4", help="how they feel: a video or picture; - or "
                        "nothing: neutral, or what --emotion says")  # fmt: skip
    parser.add_argument("-o", "--out", default="out.mp4", metavar="OUT.mp4", help="the video (default out.mp4)")
    parser.add_argument("--weights", metavar="FILE", help="a checkpoint; default: the weights that come with speak")
    parser.add_argument("--device", help="cpu or cuda; default: cuda where there is one")
    parser.add_argument("--dtype", choices=("auto", "float32", "bfloat16", "float16"), default="auto",
                        help="auto: bfloat16 where the processor computes in it")  # fmt: skip
    parser.add_argument("--box", metavar="x,y,w,h", help="the head in the photo, in pixels; default: it is found")
    parser.add_argument("--face", type=int, metavar="N", help="which face of the photo, from 1, from left to right")
    parser.add_argument("--emotion", metavar="LABEL[:S][,LABEL[:S]]", help="instead of EMO.mp4, such as happy:0.7 or "
                        "happy:0.5,surprised:0.5; strengths 0 to 1")  # fmt: skip
    parser.add_argument("--emotion-strength", type=float, default=1.0, metavar="S",
                        help=f"0: neutral, 1: as given, up to {LARGEST_STRENGTH:g}: exaggerated")  # fmt: skip
    parser.add_argument("--pose-strength", type=float, default=1.0, metavar="S",
                        help=f"0: as in the photo, 1: as given, up to {LARGEST_STRENGTH:g}")  # fmt: skip
    parser.add_argument("--pose-mode", choices=POSE_MODES, default="relative", help="relative (default): the head "
                        "moves about its pose in the photo as the video's does about its mean; absolute: the video's "
                        "poses themselves")  # fmt: skip
    parser.add_argument("--driver-end", choices=ENDS, default="pingpong", help="when a driving video is shorter than "
                        "the speech: back and forth (default), last frame held, or the video cut")  # fmt: skip
    parser.add_argument("--paste-back", action="store_true", help="put the face back into the whole photo")
    parser.add_argument("--identity-steps", type=int, metavar="N", help="steps that fit the person's code to the "
                        f"photo; 0: as it is read (default: the weights' own, mostly {InversionConfig().steps}; half a "
                        "second)")  # fmt: skip
    parser.add_argument("--adapt", nargs="?", type=int, const=steps, metavar="STEPS",
                        help=f"fit the weights to the photo first, minutes (default {steps} steps)")  # fmt: skip
    parser.add_argument("--adapt-clip", metavar="CLIP", help="fit them to a short video of the person as well")
    parser.add_argument("--save-adapted", metavar="FILE", help="keep the fitted weights for --weights")
    parser.add_argument("--seed", type=int, default=0, help="other noise and natural motion (default 0)")
    parser.add_argument("--batch", metavar="FILE.csv", help="many videos: a table with columns photo, speech, out and "
                        "any of pose, emotion, box, face, seed, ...; paths count from its folder")  # fmt: skip


def run(arguments: argparse.Namespace) -> None:
    """Makes the videos and says what was made."""
    signal.signal(signal.SIGTERM, _interrupt)  # as Ctrl-C: nothing is left behind
    options = _options(arguments)
    if arguments.batch:
        _run_batch(arguments, options)
        return
    if not arguments.photo or not arguments.speech:
        raise SpeakError("animate: a photo and speech are wanted: python -m speak animate ID.png SPEECH.wav")
    job = Job(arguments.photo, arguments.speech, _given(arguments.pose), out=arguments.out,
              emotion=_emotion(arguments), **options)  # fmt: skip
    check_files(job)
    adapting = arguments.adapt is not None or arguments.adapt_clip
    if arguments.save_adapted:
        if not adapting:
            raise SpeakError("--save-adapted: nothing is adapted without --adapt")
        check_writable(arguments.save_adapted)
    speech = Speech(job.speech)
    head = load(arguments.weights, arguments.device, arguments.dtype, _settings(arguments))
    if adapting:
        from speak.adapt import adapt

        if arguments.adapt is not None and arguments.adapt < 1:
            raise SpeakError(f"--adapt {arguments.adapt}: at least one step")
        photo = head.photo(job.photo, job.box, job.face)
        head, report = adapt(head, photo, speech, arguments.adapt, arguments.adapt_clip)
        print(f"adapted in {report.seconds:.0f} s: {report}")
        if arguments.save_adapted:
            head.save(arguments.save_adapted)
            print(f"{arguments.save_adapted}: the adapted weights")
    _make(head, job, speech)


def _run_batch(arguments: argparse.Namespace, options: dict[str, Any]) -> None:
    """Every job of the table; those that fail are told at the end, the others are made."""
    wanted = ("photo", "speech", "pose", "emotion_from", "adapt", "adapt_clip", "save_adapted")
    surplus = [name for name in wanted if getattr(arguments, name) is not None]
    if surplus:
        raise SpeakError(f"--batch: does not go with {surplus[0].replace('_', '-')}, the table names the inputs")
    emotion = _emotion(arguments)
    jobs = read_batch(arguments.batch, {"pose": None, "emotion": emotion, **options})
    head = load(arguments.weights, arguments.device, arguments.dtype, _settings(arguments))
    failed = 0
    for job in jobs:
        try:
            check_files(job)
            _make(head, job)
        except SpeakError as error:
            failed += 1
            print(f"{job.out}: not made: {error}", file=sys.stderr)
    if failed:
        raise SpeakError(f"{arguments.batch}: {failed} of {len(jobs)} videos could not be made, see above")


def _make(head: TalkingHead, job: Job, speech: Speech | None = None) -> None:
    start = time.monotonic()
    frames = write_video(head, job, speech)
    rate = frames / max(1e-3, time.monotonic() - start)
    print(f"{job.out}: {frames} frames, {frames / FRAME_RATE:.1f} s, made at {rate:.0f} frames/s")


def _options(arguments: argparse.Namespace) -> dict[str, Any]:
    names = ("face", "pose_strength", "pose_mode", "emotion_strength", "driver_end", "paste_back", "seed")
    if arguments.seed < 0:
        raise SpeakError(f"--seed {arguments.seed}: at least 0")
    return {"box": parse_box(arguments.box) if arguments.box else None} | {
        name: getattr(arguments, name) for name in names
    }


def _settings(arguments: argparse.Namespace) -> AnimateConfig:
    steps = arguments.identity_steps
    if steps is not None and steps < 0:
        raise SpeakError(f"--identity-steps {steps}: at least 0")
    return AnimateConfig(identity_steps=steps)


def _given(argument: str | None) -> str | None:
    return None if argument is None or argument.lower() in NOTHING else argument


def _emotion(arguments: argparse.Namespace) -> str | None:
    """The emotion video or the labels; both are too much."""
    source = _given(arguments.emotion_from)
    if arguments.emotion is None:
        return source
    if source is not None:
        raise SpeakError(f"--emotion {arguments.emotion}: there is an emotion video already, {source}: give one")
    parse_emotions(arguments.emotion)
    return arguments.emotion


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt
