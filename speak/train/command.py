"""`python -m speak train --stage STAGE`: trains one stage in a run folder; the same command goes on after a stop."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from speak import checkpoint
from speak.config import PRESETS, Config, from_dict, parse_settings, preset, with_changes
from speak.errors import SpeakError
from speak.models.irfd import ENCODERS, HANDED_ON
from speak.models.recompute import recompute_blocks
from speak.precision import choose_device, choose_dtype
from speak.train import audio, irfd, judge, syncnet
from speak.train import speak as speak_stage
from speak.train.data import stage_data
from speak.train.grow import load_or_grow
from speak.train.limits import check_settings
from speak.train.loop import Interrupted, train
from speak.train.processes import begin, end, rank_and_world, share_batch_norms, share_weights
from speak.train.runs import Predecessors, StageFolder
from speak.train.stage import Build, Inputs
from speak.train.warm_start import irfd_from_speak

# stage -> (how it is built, what it is)
STAGES: dict[str, tuple[Build, str]] = {
    "judge": (judge.build, "the net that measures: landmarks, pose, mouth, emotion, likeness"),
    "perceptual": (judge.build_perceptual, "the net whose features are L_vgg, where the user has no VGG"),
    "audio": (audio.build, "the audio encoder, where the user has no wav2vec 2.0"),
    "irfd": (irfd.build, "identity, pose and emotion, disentangled (SPEAK Sec. 3.1)"),
    "syncnet": (syncnet.build, "does the mouth go with the speech? (SPEAK Sec. 3.3)"),
    "speak": (speak_stage.build, "the whole model (SPEAK Sec. 3.2)"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    stages = "; ".join(f"{name}: {what}" for name, (_, what) in STAGES.items())
    parser.add_argument("--stage", required=True, choices=list(STAGES), help=stages)
    parser.add_argument("--data", default="synthetic", metavar="DIR|synthetic[:SEED]",
                        help="a prepared corpus, or rendered people from a seed (default)")  # fmt: skip
    parser.add_argument("--out", default="runs/default", metavar="RUN", help="run folder; all stages share it")
    parser.add_argument("--preset", default="default", choices=list(PRESETS))
    parser.add_argument("--steps", type=int, help="in all; more than before goes on (default: the stage's own)")
    parser.add_argument("--batch", type=int, help="samples a step, over all processes (default: the stage's own)")
    parser.add_argument("--init", metavar="FILE", help="weights of this stage to begin with, also of a smaller "
                        "picture; irfd also begins with those of speak")
    parser.add_argument("--from", dest="sources", action="append", default=[], metavar="STAGE=FILE",
                        help="an earlier stage's weights elsewhere; audio also takes a wav2vec 2.0")  # fmt: skip
    parser.add_argument("--vgg", metavar="FILE", help="torchvision's VGG weights, for model.perceptual.network=vgg19")
    parser.add_argument("--device", help="cpu or cuda (default: cuda where there is one)")
    parser.add_argument("--seed", type=int, help="of the new weights (default 0)")
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="key=value",
                        help="any field of the configuration, for instance irfd.weight_pose=0")  # fmt: skip


def run(arguments: argparse.Namespace) -> None:
    """Trains."""
    config = with_changes(preset(arguments.preset), parse_settings(arguments.settings))
    if arguments.seed is not None:
        config = with_changes(config, {"train.seed": arguments.seed})
    sources = parse_settings(arguments.sources)
    unknown = [name for name in sources if name not in STAGES]
    if unknown:
        raise SpeakError(f"--from {unknown[0]}: no such stage; stages are {', '.join(STAGES)}")
    device = begin(choose_device(arguments.device))
    try:
        run_stage(arguments.stage, config, arguments.data, Path(arguments.out), device, steps=arguments.steps,
                  batch=arguments.batch, init=arguments.init, sources=sources, vgg=arguments.vgg)  # fmt: skip
    except Interrupted as stop:
        print(f"speak: {stop}", file=sys.stderr)
        raise KeyboardInterrupt from None
    finally:
        end()


def run_stage(
    name: str,
    config: Config,
    data: str,  # synthetic[:SEED], or the folder of a prepared corpus
    out: Path,  # run folder
    device: torch.device,
    steps: int | None = None,
    batch: int | None = None,
    init: str | None = None,
    sources: dict[str, str] | None = None,  # stage -> file
    vgg: str | None = None,
) -> dict[str, float]:
    """Trains one stage; what the command does. Returns the last held-out figures.

    Raises SpeakError for anything the user can mend; `loop.Interrupted` when a signal stopped it.
    """
    settings = getattr(config, name)
    steps, batch = settings.steps if steps is None else steps, settings.batch if batch is None else batch
    if steps < 1 or batch < 1:
        raise SpeakError(f"--steps {steps} --batch {batch}: both are whole numbers from 1 on")
    rank, world = rank_and_world()
    check_settings(config, name, batch, world)
    inputs = _Inputs(out, sources or {}, vgg, init)
    config = inputs.fitted(name, config)
    torch.manual_seed(config.train.seed)
    stage = STAGES[name][0](config, inputs, device)
    if config.train.checkpoint_activations:
        for network in stage.networks.values():
            recompute_blocks(network)
    if init is not None:
        kept: tuple[str, ...] = ()
        if name == "speak" and not settings.train_encoders and inputs.weights("irfd", needed=False):
            kept = tuple(part for part in HANDED_ON if not (settings.train_identity and part == ENCODERS["identity"]))
        _initialise(stage.networks, name, init, kept)
    share_batch_norms(list(stage.networks.values()), device)
    share_weights(list(stage.networks.values()))
    torch.manual_seed(config.train.seed + 1 + rank)
    source = stage_data(name, data, config, batch, device)
    folder = StageFolder(out, name)
    folder.make()
    wanted = config.train.dtype
    slow = wanted == "auto" and device.type == "cpu" and not stage.half_on_cpu
    dtype = choose_dtype("float32" if slow else wanted, device)
    if rank == 0:
        count = sum(p.numel() for n in stage.networks.values() for p in n.parameters())
        print(f"{name}: {count / 1e6:.2f} M parameters, {config.model.image_size}x{config.model.image_size}, "
              f"{str(dtype)[6:]} on {device}, {batch} samples a step, into {folder.path}")  # fmt: skip
    return train(stage, name, config, source, folder, steps, batch, device, dtype, data)


def _initialise(networks: dict[str, nn.Module], name: str, file: str, kept: tuple[str, ...]) -> None:
    """Starts from the weights of `file`: of the same stage (irfd: or speak), of the same picture or a smaller one.

    kept: parts that stay as they are. What stage `irfd` of the run has made is newer than what `speak` began with.
    """
    content = checkpoint.load(file)
    if (name, content["stage"]) == ("irfd", "speak"):
        irfd_from_speak(networks["irfd"], content["models"]["speak"], file)
        return
    if content["stage"] != name:
        raise SpeakError(f"{file}: holds stage {content['stage']}, not {name}")
    for key, network in networks.items():
        if key in content["models"]:
            own = {part: value for part, value in network.state_dict().items() if part.split(".")[0] in kept}
            load_or_grow(network, content["models"][key] | own, file)


def stage_inputs(run: Path) -> Inputs:
    """What stages of this run folder find there."""
    return _Inputs(run, {}, None)


class _Inputs(Predecessors):
    """Earlier stages, and the weights of others that stand in for them."""

    def __init__(self, run: Path, named: dict[str, str], vgg: str | None, init: str | None = None) -> None:
        super().__init__(run, named)
        self.vgg_file, self.init = vgg, init
        self._wav2vec: Any = None

    def fitted(self, name: str, config: Config) -> Config:
        """The configuration with the shape of what earlier stages have made: their own, whatever the preset says."""
        changed: dict[str, Callable[[Any], Any]] = {}
        if name == "speak":
            changed = {"irfd": lambda m: {k: m[k] for k in ("identity", "pose", "emotion")},
                       "audio": lambda m: {"audio": m["audio"]},
                       "syncnet": lambda m: {"syncnet": m["syncnet"]}}  # fmt: skip
        settings = getattr(config, name)
        if name in ("speak", "irfd") and (settings.weight_perceptual or settings.weight_reading):
            if config.model.perceptual.network == "rendered":
                changed["perceptual"] = lambda m: {"judge": m["judge"]}
        parts: dict[str, Any] = {}
        for stage, chosen in changed.items():
            content = self.weights(stage, needed=False)
            if content is not None:
                parts |= chosen(content["config"]["model"])
        if not parts:
            return config
        own = from_dict(parts, type(config.model))
        return dataclasses.replace(
            config, model=dataclasses.replace(config.model, **{key: getattr(own, key) for key in parts})
        )

    def weights(self, stage: str, needed: bool = True) -> dict[str, Any] | None:
        if stage == "audio" and stage in self.named and not _is_ours(self.named[stage]):
            return self._foreign_audio(self.named[stage])
        # Weights to begin with have encoders of their own.
        return super().weights(stage, needed and not (stage == "irfd" and self.init is not None))

    def _foreign_audio(self, file: str) -> dict[str, Any]:
        """A wav2vec 2.0 of Hugging Face or fairseq as if stage `audio` had made it."""
        from speak.config import to_dict
        from speak.foreign_wav2vec2 import load_wav2vec2

        if self._wav2vec is None:
            model = load_wav2vec2(file)
            self._wav2vec = {"stage": "audio", "config": {"model": {"audio": to_dict(model.config)}}, "step": 0,
                             "models": {"audio_encoder": model.state_dict()}}  # fmt: skip
        return self._wav2vec

    def vgg(self, trunk: nn.Module, network: str) -> None:
        """torchvision's weights into a VGG. Raises SpeakError where no file was named."""
        from speak.foreign_weights import load_vgg

        if self.vgg_file is None:
            raise SpeakError(
                f"L_vgg wants {network}: name torchvision's file with --vgg FILE, or --set "
                "model.perceptual.network=rendered, or --set speak.weight_perceptual=0 --set speak.weight_reading=0"
            )
        load_vgg(trunk, self.vgg_file)


def _is_ours(file: str) -> bool:
    try:
        checkpoint.load(file)
    except SpeakError:
        return False
    return True
