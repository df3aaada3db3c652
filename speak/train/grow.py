"""Weights of a smaller picture, of narrower layers, or from before a part was there as the beginning of others."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from speak.checkpoint import load_into
from speak.errors import SpeakError

THUMBNAIL = "_encoder.thumbnail.weight"
PHOTO_WARP = "photo_warp."
POSES = PHOTO_WARP + "poses."  # what it reads of f_P, behind what it read before
ENCODER_LINEAR = "_encoder.linear.weight"  # [code, channels times the numbers of the grid]
EDITING = "editing.blocks."  # whose blocks may read (f_a, f_E) again, behind what they read before
SYNTHESIS = "synthesis."  # the StyleGAN2 part of G_d and G_g


def load_or_grow(network: nn.Module, state: Mapping[str, Tensor], path: str | Path) -> None:
    """Copies `state` into `network`, whose picture may be larger and whose generator's layers may be wider.

    A generator's layers are numbered from the smallest picture up, so what it has more comes after what it had: those
    keep their new values, except that a new level's ToRGB starts at zero and the grown picture is the old one,
    enlarged. Of a wider layer the new channels are new, and nothing that was there reads them yet: the picture is the
    old one. An encoder's thumbnail that `state` has not starts at zero; averages over a grid weigh as their one average
    did. Editing blocks that read (f_a, f_E) again, and what bends the photo where it reads f_P, make nothing of it yet.
    What bends the photo is new where `state` has none. Raises SpeakError where anything else differs.
    """
    own = network.state_dict()
    for part in (PHOTO_WARP, POSES):
        if not any(key.startswith(part) for key in state):
            state = {**state, **{key: value for key, value in own.items() if key.startswith(part)}}
    grown = {key: _grown(network, key, value, state[key]) for key, value in own.items() if key in state}
    thumbnails = {key: torch.zeros_like(own[key]) for key in own if key not in state and key.endswith(THUMBNAIL)}
    state = {**state, **thumbnails}
    grown |= thumbnails
    new = [key for key in own if key not in state]
    if any(value is None for value in grown.values()) or not set(state) <= set(own) or not all(map(_is_level, new)):
        load_into(network, state, path)  # fits exactly, or says what does not
        return
    if new and not any("synthesis" in key for key in new):
        raise SpeakError(f"{path}: lacks '{new[0]}'")
    filled = {key: grown.get(key, own[key]) for key in own}
    for key in new:
        if ".to_rgb." in key and key.endswith((".weight", ".bias")) and ".affine." not in key:
            filled[key] = torch.zeros_like(own[key])
    network.load_state_dict(filled)


def _grown(network: nn.Module, key: str, own: Tensor, given: Tensor) -> Tensor | None:
    if SYNTHESIS in key:
        return _widened(own, given, key.endswith(".weight"))
    if (EDITING in key and key.endswith(".linear.weight")) or (key.startswith(PHOTO_WARP) and ".compare." in key):
        return _reading_more(own, given)
    if key.endswith(ENCODER_LINEAR) and own.shape != given.shape:
        encoder = network.get_submodule(key.removesuffix(".linear.weight"))
        if given.shape == (own.shape[0], encoder.trunk.channels):  # before there was a grid
            return given.repeat_interleave(encoder.grid**2, 1) / encoder.grid**2
    return _prefix(own, given)


def _reading_more(own: Tensor, given: Tensor) -> Tensor | None:
    """`given` for the first inputs of `own`, and nothing for those after them; None where they differ otherwise."""
    if own.shape == given.shape:
        return given
    if own.dim() != given.dim() or own.shape[0] != given.shape[0] or own.shape[1] < given.shape[1]:
        return None
    if own.shape[2:] != given.shape[2:]:
        return None
    return torch.cat([given.to(own.dtype), torch.zeros_like(own[:, given.shape[1] :])], 1)


def _prefix(own: Tensor, given: Tensor) -> Tensor | None:
    """`given` in the first rows of `own`; None where the shapes differ otherwise."""
    if own.shape == given.shape:
        return given
    if own.dim() != given.dim() or own.shape[1:] != given.shape[1:] or own.shape[0] < given.shape[0]:
        return None
    return torch.cat([given.to(own.dtype), own[given.shape[0] :]])


def _widened(own: Tensor, given: Tensor, is_weight: bool) -> Tensor | None:
    """`given` in the first channels of `own`; None where `own` has fewer of them, or another number of dimensions."""
    if own.dim() != given.dim() or any(wide < narrow for wide, narrow in zip(own.shape, given.shape, strict=True)):
        return None
    wide = own.clone()
    if is_weight:  # [out, in, ...], divided by the root of `in` at run time
        wide[: given.shape[0]] = 0
        given = given * math.sqrt(own.shape[1] / given.shape[1])
    wide[tuple(slice(length) for length in given.shape)] = given.to(own.dtype)
    return wide


def _is_level(key: str) -> bool:
    """Whether a key belongs to a level of a generator, of which a larger picture has more."""
    return any(part in key for part in (".convolutions.", ".to_rgb.", EDITING))
