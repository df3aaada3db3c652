"""Others' checkpoints into our networks, each by a written key map with an example of before and after.

A map says how a key of ours is called upstream. Every key that upstream has must be wanted or listed as ignorable, and
every key that we want must be there: SpeakError names the first that is not. No pickle of a file is ever run
(foreign_pickles.py). wav2vec 2.0 has a file of its own, foreign_wav2vec2.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from speak import foreign_pickles, safetensors
from speak.checkpoint import load_into
from speak.errors import SpeakError
from speak.media.files import check_readable

KeyMap = tuple[tuple[str, str], ...]  # (ours, theirs) beginnings of keys, {i} any number

# Keys of batch norms that weights from before torch 0.4.1 lack; nothing but momentum-free averaging reads them.
OPTIONAL = ".num_batches_tracked"


def load_resnet(network: nn.Module, path: str | Path) -> None:
    """torchvision's resnet18 or resnet50 into our trunk of 64 channels with batch norm.

    layer1.0.bn1.weight <- layer1.0.bn1.weight; `fc.*`, the classifier of ImageNet, is ignored.
    """
    load(network, read(path), path, ignored=("fc.",))


def load_vgg(network: nn.Module, path: str | Path) -> None:
    """torchvision's vgg16 or vgg19 into our VGG.

    features.28.weight <- features.28.weight; `classifier.*`, the classifier of ImageNet, is ignored.
    """
    load(network, read(path), path, ignored=("classifier.",))


def load_syncnet(network: nn.Module, path: str | Path) -> None:
    """syncnet_python's `syncnet_v2.model`, a state dict: netcnnaud.0.weight <- netcnnaud.0.weight, and so on."""
    load(network, read(path), path)


def load_stylegan2(generator: nn.Module, path: str | Path, mapping: nn.Module | None = None) -> None:
    """StyleGAN2's `g_ema` in the common PyTorch layout (rosinality's) into our synthesis network of the same channels.

    constant                    <- input.input
    convolutions.0.affine.bias  <- conv1.conv.modulation.bias
    convolutions.5.weight       <- convs.4.conv.weight
    to_rgb.3.weight             <- to_rgbs.2.conv.weight
    mapping: also takes its mapping network, `style.*`; None ignores it. Fixed noise maps and filters are ignored.
    The file is what its training writes, with `g_ema` in it, or that state dict alone.
    """
    content = read(path)
    state = content.get("g_ema", content)
    if not isinstance(state, Mapping):
        raise SpeakError(f"{path}: 'g_ema' is no state dict")
    keys = [("constant", "input.input")]
    for i in range(len(generator.convolutions)):
        ours, theirs = f"convolutions.{i}.", f"convs.{i - 1}." if i else "conv1."
        keys += [(ours + "affine.", theirs + "conv.modulation."), (ours + "weight", theirs + "conv.weight"),
                 (ours + "noise_strength", theirs + "noise.weight"), (ours + "bias", theirs + "activate.bias")]
    for i in range(len(generator.to_rgb)):
        ours, theirs = f"to_rgb.{i}.", f"to_rgbs.{i - 1}." if i else "to_rgb1."
        keys += [(ours + "affine.", theirs + "conv.modulation."), (ours + "weight", theirs + "conv.weight"),
                 (ours + "bias", theirs + "bias")]
    own, mapped = {}, {}
    for key, value in state.items():
        (mapped if key.startswith("style.") else own)[key] = value
    fixed = [key for key in own if key.startswith("noises.") or key.endswith((".blur.kernel", ".upsample.kernel"))]
    # Upstream keeps dimensions of 1 that ours lack: [1, O, I, 3, 3], [1, 3, C, 1, 1], [1, 3, 1, 1].
    for name, parameter in generator.state_dict().items():
        theirs = upstream_name(name, tuple(keys))
        value = own.get(theirs)
        if isinstance(value, Tensor) and value.squeeze().shape == parameter.squeeze().shape:
            own[theirs] = value.reshape(parameter.shape)
    if mapping is not None:  # style.0 is the normalisation, which has no weights
        load(mapping, mapped, path, tuple((f"layers.{i}.", f"style.{i + 1}.") for i in range(len(mapping.layers))))
    load(generator, own, path, tuple(keys), fixed)


def read(path: str | Path) -> dict[str, Any]:
    """The content of a safetensors file or of one of torch.save, by what it is and not by its name."""
    path = check_readable(path)
    with path.open("rb") as file:
        start = file.read(9)
    content = safetensors.load(path) if start[8:] == b"{" else foreign_pickles.load(path)
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise SpeakError(f"{path}: holds a {type(content).__name__} where a dictionary of named tensors is wanted: "
                         "save the state dict of the network")
    return content


def load(
    network: nn.Module,
    state: Mapping[str, Any],  # upstream's keys
    path: str | Path,  # named in errors
    keys: KeyMap = (),  # ours that are called otherwise upstream
    ignored: Iterable[str] = (),  # beginnings of upstream's keys that we have no use for
) -> None:
    """Copies `state` into `network`. Raises SpeakError that names the first missing, unknown or misshapen key."""
    wanted = {upstream_name(key, keys): key for key in network.state_dict()}
    ignored = tuple(ignored)
    unknown = [key for key in state if key not in wanted and not key.startswith(ignored)]
    if unknown:
        raise SpeakError(f"{path}: unknown key '{unknown[0]}' ({len(unknown)} unknown): not the weights of "
                         f"{type(network).__name__}, or of another kind than this loader knows")
    missing = [key for key in wanted if key not in state and not key.endswith(OPTIONAL)]
    if missing:
        raise SpeakError(f"{path}: lacks the key '{missing[0]}' ({len(missing)} missing of {len(wanted)} that "
                         f"{type(network).__name__} needs)")
    ours = {}
    for theirs, key in wanted.items():
        value = state.get(theirs, torch.zeros((), dtype=torch.int64))
        if not isinstance(value, Tensor):
            raise SpeakError(f"{path}: '{theirs}' is no tensor")
        ours[key] = value
    load_into(network, ours, path)


def upstream_name(key: str, keys: KeyMap) -> str:
    """What upstream calls our `key`; the same where no line of the map fits."""
    for ours, theirs in keys:
        pattern = re.escape(ours).replace(re.escape("{i}"), r"(\d+)")
        match = re.match(pattern, key)
        if match:
            return theirs.replace("{i}", match[1] if match.groups() else "") + key[match.end():]
    return key
