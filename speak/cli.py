"""The command line: `python -m speak COMMAND`.

A command is a module with `add_arguments(parser)` and `run(arguments)`, listed in `COMMANDS` and imported only when
it is the one asked for. Errors that users can mend are one line and exit status 2; `--debug` shows the traceback.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys

from speak import allocator
from speak.errors import SpeakError
from speak.version import __version__

# name -> (module, what it does, example)
COMMANDS: dict[str, tuple[str, str, str]] = {
    "animate": ("speak.animate", "make a talking video of a photo",
                "python -m speak animate ID.png SPEECH.wav POSE.mp4 EMO.mp4 -o OUT.mp4"),
    "bench": ("speak.bench", "measure speed on this machine", "python -m speak bench ops"),
    "train": ("speak.train.command", "train a stage", "python -m speak train --stage irfd"),
    "prepare": ("speak.prepare", "make a corpus or a folder of videos ready for training",
                "python -m speak prepare MEAD --layout mead --out prepared"),
    "synth": ("speak.synthetic.corpus", "render a corpus of people who speak", "python -m speak synth --out people"),
    "evaluate": ("speak.evaluate", "measure a model, or any system's videos, in the field's own numbers",
                 "python -m speak evaluate --weights runs/default/speak/weights.pt --data prepared --out evaluation"),
    "doctor": ("speak.doctor", "say what is installed, compiled and used", "python -m speak doctor"),
}


def main(argv: list[str] | None = None) -> int:
    """Runs one command; returns the exit status: 0 done, 2 wrong input, 130 interrupted, 141 nobody reads on."""
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(prog="python -m speak", description="Controllable talking heads.")
    parser.add_argument("--version", action="version", version=f"speak {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    chosen = next((word for word in argv if not word.startswith("-")), None)
    for name, (module, summary, example) in COMMANDS.items():
        command = commands.add_parser(
            name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.", epilog=f"example: {example}"
        )
        command.add_argument("--debug", action="store_true", help="show the traceback of an error")
        if name == chosen:
            importlib.import_module(module).add_arguments(command)
    arguments = parser.parse_args(argv)
    allocator.keep_memory()
    try:
        importlib.import_module(COMMANDS[arguments.command][0]).run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:  # of `| head`, which has read enough; ours to ffmpeg are met where they happen
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter complains as it ends
        return 141
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except SpeakError as error:
        if arguments.debug:
            raise
        print(f"speak: {error}", file=sys.stderr)
        return 2
    return 0
