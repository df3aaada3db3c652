"""How stages begin with what others have learnt: as the perceptual net, G_g as G_d, IRFD as a finished SPEAK."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from speak.checkpoint import load_into
from speak.errors import SpeakError
from speak.models.generators import GlobalGenerator
from speak.models.irfd import ENCODERS, IRFD
from speak.models.syncnet import WINDOW_FRAMES, SyncNet
from speak.train.grow import THUMBNAIL, load_or_grow
from speak.train.perceptual import perceptual_trunk
from speak.train.stage import Inputs

FUSE_FIRST = "fuse.layers.0.weight"  # [style_dim, f_I, f_P and, in G_d, f_E side by side]; its gain goes by its width


def trunks_from_perceptual(irfd: IRFD, choice: str, inputs: Inputs) -> None:
    """Encoders begin as the net of stage `perceptual` where there is one and a trunk has its shape, else anew."""
    if choice != "perceptual":
        raise SpeakError(f"irfd.trunks '{choice}': choose new or perceptual")
    state = perceptual_trunk(inputs)
    if state is None:
        return
    for name in ENCODERS.values():
        trunk = getattr(irfd, name).trunk
        own = trunk.state_dict()
        if {key: value.shape for key, value in own.items()} == {key: value.shape for key, value in state.items()}:
            load_into(trunk, state, "the weights of stage perceptual")


def video_from_perceptual(syncnet: SyncNet, choice: str, inputs: Inputs) -> None:
    """SyncNet's video net begins as the trunk of stage `perceptual`, where there is one of its shape.

    Its first convolution begins as the trunk's on the mean of the five frames.
    """
    if choice != "perceptual":
        raise SpeakError(f"syncnet.trunk '{choice}': choose new or perceptual")
    state, own = perceptual_trunk(inputs), syncnet.video.state_dict()
    if state is None:
        return
    first = "conv1.weight"
    state = state | {first: state[first].repeat(1, WINDOW_FRAMES, 1, 1) / WINDOW_FRAMES}
    if {key: value.shape for key, value in own.items()} == {key: value.shape for key, value in state.items()}:
        load_into(syncnet.video, state, "the weights of stage perceptual")


@torch.no_grad()
def global_from_disentangling(generator: GlobalGenerator, irfd: Mapping[str, Tensor]) -> None:
    """G_g begins as G_d with a quiet editing module, where their shapes agree; f_E's part of G_d's mlp is dropped."""
    own = generator.state_dict()
    found = {key: value for key, value in own.items() if key.startswith("additions.")}
    for key, value in irfd.items():
        key = key.removeprefix("generator.")
        if key in own and key not in found:
            if key == FUSE_FIRST:
                kept, all_of_it = own[key].shape[1], value.shape[1]
                value = value[:, :kept] * math.sqrt(kept / all_of_it)
            found[key] = value
    if {key: value.shape for key, value in own.items()} == {key: value.shape for key, value in found.items()}:
        generator.load_state_dict(found)
        for weight in generator.additions.weights:
            weight *= 0.1


def irfd_from_speak(irfd: IRFD, speak: Mapping[str, Tensor], path: str | Path) -> None:
    """IRFD begins as the weights of stage `speak`: its encoders and controls, and G_d as G_g without its editing.

    f_E's part of G_d's mlp, C_m and what else only this stage has are new. Raises SpeakError where shapes differ.
    """
    own = irfd.state_dict()
    taken = {key: value for key, value in speak.items() if key in own}
    first = f"generator.{FUSE_FIRST}"
    kept, all_of_it = speak[first].shape[1], own[first].shape[1]
    if speak[first].shape[0] == own[first].shape[0] and kept < all_of_it:
        taken[first] = torch.cat([speak[first] * math.sqrt(all_of_it / kept), own[first][:, kept:]], 1)
    left = [key for key in own if not key.startswith("generator.synthesis") and not key.endswith(THUMBNAIL)]
    new = {key: own[key] for key in left if key not in taken}
    load_or_grow(irfd, taken | new, path)
