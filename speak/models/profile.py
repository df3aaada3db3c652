"""What each network of a preset costs: parameters, multiply-adds and memory, for `python -m speak doctor --preset`.

Nothing is allocated or computed: the networks run on fake tensors, through the operators that this machine would use.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from speak.config import FRAME_RATE, SAMPLE_RATE, Config, preset
from speak.models.codes import Codes
from speak.models.discriminator import Discriminator
from speak.models.irfd import IRFD
from speak.models.judge import Judge
from speak.models.photo_warp import Portrait
from speak.models.recompute import recompute_blocks
from speak.models.speak import Speak
from speak.models.syncnet import WINDOW_FRAMES, WINDOW_SAMPLES, SyncNet
from speak.models.vgg import PerceptualFeatures

ENCODERS = ("E_i", "E_p", "E_e")
BATCH = 2  # frames of a trial run: batch norm wants more than one


@dataclasses.dataclass(frozen=True)
class Cost:
    """What one part costs, in float32."""

    part: str
    unit: str  # what the figures below are for: "frame", "window" of SyncNet, "second" of speech
    parameters: int
    multiply_adds: int  # forward, a unit
    weight_bytes: int  # parameters and buffers; training adds a gradient and Adam's two moments to each parameter
    activation_bytes: int  # kept for the backward pass, a unit


def describe(name: str) -> list[Cost]:
    """The cost of every part of preset `name`: first what is shipped, then what only training or measuring needs."""
    return describe_config(preset(name))


def describe_config(config: Config, recompute: bool = False) -> list[Cost]:
    """The same for any configuration. recompute: with activation checkpointing."""
    model = config.model
    with FakeTensorMode():
        speak, irfd = Speak(config), IRFD(config)
        frames = torch.empty(BATCH, 3, model.image_size, model.image_size)
        codes = Codes(*(torch.empty(BATCH, size.code_dim) for size in (model.identity, model.pose, model.emotion)))
        by_frame = Codes(*(code[None] for code in (codes.identity, codes.pose, codes.emotion)))
        audio = torch.empty(1, BATCH, model.audio.width)
        edited = torch.empty(BATCH, speak.editing.levels, speak.editing.width)
        noise = torch.empty(1, speak.editing.levels, speak.editing.width)
        windows = torch.empty(BATCH, WINDOW_FRAMES, *frames.shape[1:])
        second, sync = torch.empty(1, SAMPLE_RATE), SyncNet(model.syncnet)
        discriminator, judge = Discriminator(model.discriminator), Judge(model.judge)
        perceptual = PerceptualFeatures(model)
        trial_frames = frames.clone().requires_grad_()  # the frozen perceptual net passes gradients on
        if recompute:
            for network in (speak, irfd, discriminator):
                recompute_blocks(network)
        parts: list[tuple[str, str, nn.Module, Callable[[], object]]] = [
            ("E_i identity encoder", "frame", speak.identity_encoder, lambda: speak.identity_encoder(frames)),
            ("E_p pose encoder", "frame", speak.pose_encoder, lambda: speak.pose_encoder(frames)),
            ("E_e emotion encoder", "frame", speak.emotion_encoder, lambda: speak.emotion_encoder(frames)),
            ("E_a audio encoder", "second", speak.audio_encoder, lambda: speak.encode_audio(second, FRAME_RATE)),
            ("editing module", "frame", speak.editing, lambda: speak.editing(audio, by_frame, noise)),
            ("G_g global generator", "frame", speak.generator, lambda: speak.generator(codes, edited)),
            ("G_d IRFD generator", "frame", irfd.generator, lambda: irfd.generator(codes)),
            *([] if speak.photo_warp is None else [
                ("photo warp", "frame", speak.photo_warp,
                 lambda: speak.photo_warp(frames, codes.pose, Portrait(frames, frames, codes.pose))),
            ]),
            ("D discriminator", "frame", discriminator, lambda: discriminator(frames, frames)),
            ("SyncNet video", "window", nn.ModuleList([sync.video, sync.video_embedding]),
             lambda: sync.embed_video(windows)),
            ("SyncNet audio", "window", nn.ModuleList([sync.audio, sync.audio_embedding]),
             lambda: sync.embed_audio(torch.empty(BATCH, WINDOW_SAMPLES))),
            ("perceptual features", "frame", perceptual, lambda: perceptual(trial_frames)),
            ("judge", "frame", judge, lambda: judge(frames)),
        ]  # fmt: skip
        return [
            _cost(part, unit, module, run, 1 if unit == "second" else BATCH) for part, unit, module, run in parts
        ]


@dataclasses.dataclass(frozen=True)
class TrainingMemory:
    """What a training stage needs, about, in float32; mixed precision halves the activations."""

    stage: str
    fixed_bytes: int  # weights, their average, gradients and Adam's two moments
    sample_bytes: int  # activations of a sample: a pair of stage `irfd`, a window of stage `speak`
    recomputed_bytes: int  # the same with train.checkpoint_activations


def training_memory(config: Config) -> list[TrainingMemory]:
    """Estimates for the two stages of the paper, from the parts' costs."""
    plain, less = (
        {cost.part.split()[0]: cost for cost in describe_config(config, recompute)} for recompute in (False, True)
    )

    def activations(costs: dict[str, Cost], names: Sequence[str]) -> int:
        return sum(costs[name].activation_bytes for name in names)

    def irfd(costs: dict[str, Cost]) -> int:
        again = any((config.irfd.weight_identity, config.irfd.weight_pose, config.irfd.weight_emotion))
        frames, pictures = 2 + 2 * again, 2 * bool(config.irfd.weight_self) + 2  # read; generated
        return activations(costs, ENCODERS) * frames + activations(costs, ["G_d"]) * pictures

    def speak(costs: dict[str, Cost]) -> int:
        count = config.rendered.frames
        seen = bool(config.speak.weight_perceptual or config.speak.weight_reading)
        frame = ["editing", "G_g"] + ["perceptual"] * seen
        judged = config.speak.weight_adversarial or config.speak.weight_feature_matching
        frame += ["D"] * 2 * bool(judged)
        seconds = (count + 2 * config.rendered.context) / FRAME_RATE * config.speak.train_audio
        return activations(costs, frame) * count + int(activations(costs, ["E_a"]) * seconds)

    def fixed(learning: tuple[str, ...], resting: tuple[str, ...]) -> int:
        return sum(plain[name].weight_bytes for name in (*5 * learning, *resting))

    return [
        TrainingMemory("irfd", fixed((*ENCODERS, "G_d"), ()), irfd(plain), irfd(less)),
        TrainingMemory("speak", fixed(("E_a", "editing", "G_g", "D"), (*ENCODERS, "perceptual")), speak(plain),
                       speak(less)),
    ]  # fmt: skip


def _cost(part: str, unit: str, module: nn.Module, run: Callable[[], object], units: int) -> Cost:
    own = {_storage(tensor) for tensor in (*module.parameters(), *module.buffers())}
    kept: dict[int, Tensor] = {}  # by storage; the tensors stay alive, so that no storage's place is used twice

    def pack(tensor: Tensor) -> Tensor:
        if _storage(tensor) not in own:
            kept[_storage(tensor)] = tensor
        return tensor

    counter = FlopCounterMode(display=False)
    with counter, torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        outcome = run()
    activations = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    del outcome
    tensors = (*module.parameters(), *module.buffers())
    return Cost(
        part, unit,
        parameters=sum(parameter.numel() for parameter in module.parameters()),
        multiply_adds=counter.get_total_flops() // 2 // units,
        weight_bytes=sum(tensor.numel() * tensor.element_size() for tensor in tensors),
        activation_bytes=activations // units,
    )  # fmt: skip


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def table(costs: list[Cost]) -> list[dict[str, str]]:
    """The costs as rows of text {heading: value}, for printing."""
    return [
        {
            "part": cost.part,
            "per": cost.unit,
            "parameters": f"{cost.parameters / 1e6:.2f} M",
            "multiply-adds": f"{cost.multiply_adds / 1e6:,.0f} M",
            "weights": f"{cost.weight_bytes / 2**20:.1f} MiB",
            "activations": f"{cost.activation_bytes / 2**20:.1f} MiB",
        }
        for cost in costs
    ]


def memory_table(rows: list[TrainingMemory]) -> list[dict[str, str]]:
    """The memory of training as rows of text {heading: value}, for printing."""
    return [
        {
            "stage": row.stage,
            "weights, gradients, Adam, EMA": f"{row.fixed_bytes / 2**30:.2f} GiB",
            "a sample": f"{row.sample_bytes / 2**30:.2f} GiB",
            "with train.checkpoint_activations": f"{row.recomputed_bytes / 2**30:.2f} GiB",
        }
        for row in rows
    ]
