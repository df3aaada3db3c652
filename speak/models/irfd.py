"""IRFD, the inter-reconstructed feature disentanglement of SPEAK Sec. 3.1: E_i, E_e, E_p, C_m and G_d."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from speak.config import EMOTIONS, POSE_NAMES, Config, EncoderConfig
from speak.models.codes import FACTORS, CodeNorm, Codes, UnitLength, at_least_float32, concatenated, exchange
from speak.models.eye_reader import EyeReader
from speak.models.generators import DisentanglementGenerator, Noise
from speak.models.pose_mapper import controls
from speak.models.resnet import ResNet, resize_for_reading

ENCODERS = {"identity": "identity_encoder", "pose": "pose_encoder", "emotion": "emotion_encoder"}
HANDED_ON = (*ENCODERS.values(), "pose_mapper", "emotion_prototypes")  # what stage `speak` keeps of stage `irfd`


class Encoder(nn.Module):
    """One of E_i, E_p, E_e, SPEAK Sec. 3.1: ResNet trunk, global average pool, linear to the code, normalisation.

    Group norm and pooling leave little of a frame's colours and of where they are. A thumbnail of the frame, mapped
    to the code as well, keeps those of hair, skin, clothes and background (ours; `EncoderConfig.thumbnail`), averages
    over a grid instead of the whole where its shapes are (ours; `EncoderConfig.grid`). What eyes do is read from
    nearby and added (ours; `EncoderConfig.eyes`).
    unit_length: True for f_I; False for f_P and f_E, which `CodeNorm` normalises.
    """

    def __init__(self, config: EncoderConfig, unit_length: bool) -> None:
        super().__init__()
        self.image_size = config.image_size
        self.trunk = ResNet(config.depth, config.width, config.norm)
        self.grid = config.grid
        self.linear = nn.Linear(self.trunk.channels * config.grid**2, config.code_dim)
        self.thumbnail = None
        if config.thumbnail:
            self.thumbnail_size = config.thumbnail
            numbers = 3 * config.thumbnail**2
            self.thumbnail = nn.Linear(numbers, config.code_dim, bias=False)
            nn.init.normal_(self.thumbnail.weight, std=numbers**-0.5)
        self.norm = UnitLength() if unit_length else CodeNorm(config.code_dim)
        self.eyes = EyeReader(config.eyes, config.code_dim) if config.eyes else None

    def forward(
        self,
        frames: Tensor,  # [B, 3, H, W] in [-1, 1]
        again: bool = False,
    ) -> Tensor:
        """Codes [B, code_dim] in float32, under autocast too. `again`: see `CodeNorm`."""
        raw = self.raw(frames)
        with torch.autocast(raw.device.type, enabled=False):
            codes = self.norm(raw, again)
        return codes if self.eyes is None else codes + self.eyes(frames, codes)

    def raw(
        self,
        frames: Tensor,  # [B, 3, H, W] in [-1, 1]
    ) -> Tensor:
        """Codes before their normalisation [B, code_dim]."""
        features = self.trunk(resize_for_reading(frames, self.image_size))
        pooled = nn.functional.adaptive_avg_pool2d(features, self.grid).flatten(1)
        with torch.autocast(pooled.device.type, enabled=False):
            weight, bias = at_least_float32(self.linear.weight), at_least_float32(self.linear.bias)
            codes = nn.functional.linear(pooled.to(weight.dtype), weight, bias)
            if self.thumbnail is not None:
                small = nn.functional.adaptive_avg_pool2d(frames.to(weight.dtype), self.thumbnail_size)
                codes = codes + self.thumbnail(2 * small.flatten(1))  # 2: to a variance of about one
            return codes

    def forward_frozen(
        self,
        frames: Tensor,  # [B, 3, H, W] in [-1, 1]
    ) -> Tensor:
        """Codes of generated frames: gradients reach the frames, not the encoder, and no running statistic moves."""
        tensors = {name: parameter.detach() for name, parameter in self.named_parameters()}
        tensors |= {name: buffer.clone() for name, buffer in self.named_buffers()}
        return torch.func.functional_call(self, tensors, (frames, True))


def encoders(config: Config) -> dict[str, nn.Module]:
    """New E_i, E_p and E_e under the names that `IRFD` and `Speak` give them."""
    return {name: Encoder(getattr(config.model, factor), factor == "identity") for factor, name in ENCODERS.items()}


class _ReverseGradient(torch.autograd.Function):
    """The identity, whose gradient changes its sign (Ganin et al. 2016)."""

    @staticmethod
    def forward(ctx: object, values: Tensor) -> Tensor:
        return values.view_as(values)

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        return -gradient


def reverse_gradient(
    values: Tensor,  # any shape
) -> Tensor:
    """`values`, with the gradient's sign changed on the way back."""
    return _ReverseGradient.apply(values)


class Probes(nn.Module):
    """Small nets that try to read each code from each other code (ours, optional; METHOD, stage `irfd`).

    Behind `reverse_gradient` they learn to read while the encoders learn to be unreadable. They need no labels.
    """

    def __init__(self, config: Config, width: int = 64) -> None:
        super().__init__()
        dims = {factor: getattr(config.model, factor).code_dim for factor in FACTORS}
        self.nets = nn.ModuleDict(
            {
                f"{to}_from_{factor}": nn.Sequential(
                    nn.Linear(dims[factor], width), nn.ReLU(), nn.Linear(width, dims[to])
                )
                for factor in FACTORS
                for to in FACTORS
                if to != factor
            }
        )

    def forward(
        self,
        codes: Codes,  # of B frames
        shown: Mapping[str, Codes] | None = None,  # factor -> the codes of the pictures that its code was read from
    ) -> dict[str, tuple[Tensor, Tensor]]:
        """Name such as `pose_from_identity` -> (what was read [B, D], the code to be read, detached [B, D]).

        Where an encoder read another picture than the frame itself, what can leak is what that picture shows.
        """
        found = {}
        for name, net in self.nets.items():
            to, _, factor = name.partition("_from_")
            there = (shown or {}).get(factor, codes)
            found[name] = (net(reverse_gradient(codes.fused(factor))), there.fused(to).detach())
        return found


@dataclasses.dataclass(frozen=True)
class Exchange:
    """What one step of stage `irfd` computes; pictures [B, 3, H, W], None where they were not asked for.

    A is generated from S's codes with one factor from T, B from T's codes with that factor from S. So whichever factor
    it is, B's identity code is the negative of A in SPEAK Eq. 1, and A's that of B.
    """

    source: Codes  # of S
    target: Codes  # of T
    emotion_logits: Tensor  # C_m(f_E) of S, then of T [2 B, 8]
    codes_a: Codes  # what A is generated from
    codes_b: Codes
    self_source: Tensor | None  # S rebuilt from its own codes
    self_target: Tensor | None
    picture_a: Tensor | None
    picture_b: Tensor | None
    again_a: Codes | None  # codes encoded again from A
    again_b: Codes | None


class IRFD(nn.Module):
    """The disentanglement module of SPEAK Sec. 3.1: three encoders, emotion classifier C_m, generator G_d.

    `pose_mapper` and `emotion_prototypes` are fitted to its codes at the end of the stage and saved with it.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        for name, module in (encoders(config) | controls(config.model)).items():
            self.add_module(name, module)
        self.classifier = nn.Linear(config.model.emotion.code_dim, len(EMOTIONS))
        self.generator = DisentanglementGenerator(config)
        self.probes = Probes(config) if config.irfd.weight_probe else None
        self.pose_reader = nn.Linear(config.model.pose.code_dim, len(POSE_NAMES)) if config.irfd.weight_angles else None

    def encode(
        self,
        frames: Tensor,  # [B, 3, H, W] in [-1, 1]; read by every encoder that is not given its own
        pose_frames: Tensor | None = None,  # the same poses, augmented or rendered with another face
        emotion_frames: Tensor | None = None,
        identity_frames: Tensor | None = None,
    ) -> Codes:
        return Codes(
            self.identity_encoder(frames if identity_frames is None else identity_frames),
            self.pose_encoder(frames if pose_frames is None else pose_frames),
            self.emotion_encoder(frames if emotion_frames is None else emotion_frames),
        )

    def encode_again(
        self,
        frames: Tensor,  # generated frames [B, 3, H, W]
        frozen: bool,
    ) -> Codes:
        """Codes of generated frames, normalised as their originals were; `frozen`: without moving the encoders."""
        used = [getattr(self, name) for name in ENCODERS.values()]
        return Codes(*(encoder.forward_frozen(frames) if frozen else encoder(frames, again=True) for encoder in used))

    def generate(self, codes: Codes, noise: Noise = "random") -> Tensor:
        """`I_d = G_d(mlp(f_I, f_P, f_E))`: frames [B, 3, H, W]."""
        return self.generator(codes, noise)

    def forward(
        self,
        source: Tensor,  # S [B, 3, H, W] in [-1, 1]
        target: Tensor,  # T [B, 3, H, W]
        factors: Tensor,  # [B], the factor to exchange: an index into FACTORS
        pose_frames: Tensor | None = None,  # what E_p reads for S, then for T [2 B, 3, H, W]
        emotion_frames: Tensor | None = None,  # what E_e reads for S, then for T [2 B, 3, H, W]
        noise: Noise = "random",  # maps, where given, are for self S, self T, A, B in this order (those asked for)
        self_pictures: bool = True,
        exchanged_pictures: bool = True,
        again: Literal["frozen", "live", "no"] = "frozen",  # how A and B are encoded again
        identity_frames: Tensor | None = None,  # what E_i reads for S, then for T [2 B, 3, H, W]
    ) -> Exchange:
        """One exchange (SPEAK Sec. 3.1): every code and picture that Eq. 1-7 compare, in as few passes as possible."""
        count = source.shape[0]
        codes = self.encode(torch.cat([source, target]), pose_frames, emotion_frames, identity_frames)
        codes_s, codes_t = codes[:count], codes[count:]
        codes_a, codes_b = exchange(codes_s, codes_t, factors)
        wanted = ([codes_s, codes_t] if self_pictures else []) + ([codes_a, codes_b] if exchanged_pictures else [])
        pictures = list(self.generate(concatenated(*wanted), noise).split(count)) if wanted else []
        self_s, self_t = (pictures.pop(0), pictures.pop(0)) if self_pictures else (None, None)
        picture_a, picture_b = (pictures.pop(0), pictures.pop(0)) if exchanged_pictures else (None, None)
        again_a = again_b = None
        if exchanged_pictures and again != "no":
            codes_again = self.encode_again(torch.cat([picture_a, picture_b]), frozen=again == "frozen")
            again_a, again_b = codes_again[:count], codes_again[count:]
        return Exchange(
            codes_s, codes_t, self.classifier(codes.emotion), codes_a, codes_b,
            self_s, self_t, picture_a, picture_b, again_a, again_b,
        )  # fmt: skip
