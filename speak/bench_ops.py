"""`bench ops`: each operator against our reference and against memory; the generator against its bare convolutions.

A copy of the same traffic between preallocated tensors is the limit of what an operator of one pass can reach. Inputs
rotate over more than 256 MB, so that no cache holds them. On CPU everything is measured twice: with the allocator as
the system sets it, and with the command line's setting (`speak.allocator`), each in a process of its own.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from speak import allocator, ops
from speak.bench import median_ms, medians_ms
from speak.models.stylegan2 import BLUR, Generator, ModulatedConvolution

ROTATION = 288 << 20  # bytes
SHAPES = ((1, 64, 256, 256), (4, 256, 128, 128), (1, 512, 32, 32))
LAYER = (128, 128, 128)  # channels, height, width of the modulated layer
GENERATOR = (256, 512, 16384, 512)  # picture, style, channel base, most channels
SECONDS = 1.0  # for a figure; slower calls are repeated three times
CHILD = "SPEAK_BENCH_CHILD"


def measure(arguments: argparse.Namespace) -> dict[str, list[dict[str, Any]]]:
    """{title: rows} of every measurement."""
    device = torch.device(arguments.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if device.type == "cuda":
        return _measure_here(device, arguments, "")
    if os.environ.get(CHILD):
        kept = allocator.keep_memory()
        return _measure_here(device, arguments, ", allocator keeps memory" if kept else ", default allocator")
    tables = {}
    for keep in ("1", "0"):
        command = [sys.executable, "-m", "speak", "bench", "ops", "--json", "--device", "cpu"]
        command += ["--only", arguments.only] + (["--quick"] if arguments.quick else [])
        environment = {**os.environ, CHILD: "1", "SPEAK_KEEP_MEMORY": keep}
        child = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
        tables |= json.loads(child.stdout)["tables"]
    return tables


def _measure_here(
    device: torch.device, arguments: argparse.Namespace, where: str
) -> dict[str, list[dict[str, Any]]]:
    half = torch.float16 if device.type == "cuda" else torch.bfloat16
    dtypes, only = (torch.float32, half), arguments.only
    tables = {
        f"operators{where} (ms; ratio = ours / copy of the same traffic)": [
            row
            for shape, dtype in itertools.product(SHAPES, dtypes)
            for row in _operators(device, shape, dtype, 5 if arguments.quick else 15, only)
        ],
        f"256x256, channel base 16384{where} (ms; ratio = ours / the vendor's bare convolutions; own: as made here)": [
            row
            for batch in (1, 4)
            for rows in (_layer, _generator)
            for row in rows(device, batch, dtypes, 3 if arguments.quick else 9, only)
        ],
    }
    return {title: rows for title, rows in tables.items() if rows}


class Rotation:
    """Copies of a tensor that together exceed every cache, one after the other."""

    def __init__(self, tensor: Tensor) -> None:
        count = max(2, math.ceil(ROTATION / max(1, tensor.numel() * tensor.element_size())))
        self.tensors: Iterator[Tensor] = itertools.cycle([tensor.clone() for _ in range(min(count, 256))])

    def next(self) -> Tensor:
        return next(self.tensors)


def _timer(device: torch.device, repeats: int) -> Callable[..., float]:
    synchronize = torch.cuda.synchronize if device.type == "cuda" else None
    return lambda call, seconds=SECONDS: median_ms(call, repeats, synchronize, seconds)


def _timer_in_turn(device: torch.device, repeats: int) -> Callable[..., list[float]]:
    """Times calls in turn: their ratios are the figures, and machines change their speed within seconds."""
    synchronize = torch.cuda.synchronize if device.type == "cuda" else None
    return lambda *calls: medians_ms(calls, repeats, synchronize, 9 * SECONDS)


def _operators(
    device: torch.device, shape: tuple[int, int, int, int], dtype: torch.dtype, repeats: int, only: str
) -> list[dict[str, Any]]:
    batch, channels, height, width = shape
    timed = _timer(device, repeats)

    def image(*sizes: int) -> Tensor:
        return torch.randn(sizes, device=device).to(dtype).contiguous(memory_format=torch.channels_last)

    def vector(*sizes: int) -> Tensor:
        return torch.rand(sizes, device=device) + 0.5

    x = Rotation(image(*shape))
    wider = Rotation(image(batch, channels, height + 1, width + 1))
    bias, demodulation, styles = vector(channels), vector(batch, channels), vector(batch, channels)
    noise, rgb = torch.randn(1, 1, height, width, device=device), torch.randn(batch, 3, channels, device=device)
    taps = ops.setup_filter(BLUR, separable=True, device=device)
    blur = taps.flip(0) * 2

    learned = {"bias": bias.clone().requires_grad_(True), "demodulation": demodulation.clone().requires_grad_(True)}

    def forward_backward(function: Callable[[Tensor], Tensor], *names: str) -> Callable[[], None]:
        def call() -> None:
            input = x.next().detach().requires_grad_(True)
            torch.autograd.grad(function(input), (input, *(learned[name] for name in names)), gradient)

        gradient = image(*shape)
        return call

    # name -> (call, tensors of x's size read, and written)
    calls: dict[str, tuple[Callable[[], Any], int, int]] = {
        "bias_act": (lambda: ops.bias_act(x.next(), bias, act="lrelu"), 1, 1),
        "bias_act forward+backward": (
            forward_backward(lambda v: ops.bias_act(v, learned["bias"], act="lrelu"), "bias"), 3, 2,
        ),
        "epilogue": (
            lambda: ops.layer_epilogue(
                x.next(), None, (0, 0), demodulation, noise, bias, next_styles=styles, plain=False
            ),
            1,
            1,
        ),
        "epilogue, both results": (
            lambda: ops.layer_epilogue(x.next(), None, (0, 0), demodulation, noise, bias, next_styles=styles), 1, 2,
        ),
        "epilogue forward+backward": (  # the demodulation's derivative needs x once more
            forward_backward(lambda v: ops.layer_epilogue(v, None, (0, 0), noise=noise, **learned)[0], *learned), 4, 2,
        ),
        "epilogue to a picture": (
            lambda: ops.layer_epilogue(x.next(), None, (0, 0), demodulation, noise, bias, next_styles=styles, rgb=rgb),
            1,
            1,
        ),
        "blur + epilogue": (
            lambda: ops.layer_epilogue(
                wider.next(), blur, (1, 1), demodulation, noise, bias, next_styles=styles, plain=False
            ),
            1,
            1,
        ),
        "upfirdn2d, 4 taps": (lambda: ops.upfirdn2d(x.next(), taps, padding=[2, 1, 2, 1]), 1, 1),
    }  # fmt: skip
    copies: dict[int, Callable[[], None]] = {}
    rows = []
    for name, (call, read, written) in calls.items():
        if only not in name:
            continue
        halves = read + written
        if halves not in copies:
            copies[halves] = _copies(x, halves, device)
        gradients = torch.enable_grad() if "backward" in name else torch.no_grad()
        before = timed(copies[halves])  # beside ours, since machines change their speed from minute to minute
        with gradients:
            ours = timed(call)
            copy = (before + timed(copies[halves])) / 2
            with ops.backend("reference"):
                reference = timed(call)
        rows.append(
            {
                "operator": name, "shape": "x".join(map(str, shape)), "dtype": str(dtype).removeprefix("torch."),
                "ours": ours, "reference": reference, "copy": copy, "ratio": ours / copy,
                "faster": reference / ours,
            }
        )  # fmt: skip
    return rows


def _copies(x: Rotation, halves: int, device: torch.device) -> Callable[[], None]:
    """A call that moves `halves` times the bytes of an x: whole copies, and half of one for an odd number."""
    targets = Rotation(x.next())

    @torch.no_grad()
    def call() -> None:
        for _ in range(halves // 2):
            targets.next().copy_(x.next())
        if halves % 2:
            source, target = x.next(), targets.next()
            part = source.permute(0, 2, 3, 1).reshape(-1)
            target.permute(0, 2, 3, 1).reshape(-1)[: part.numel() // 2].copy_(part[: part.numel() // 2])

    return call


def _layer(
    device: torch.device, batch: int, dtypes: tuple[torch.dtype, ...], repeats: int, only: str
) -> list[dict[str, Any]]:
    """A whole layer: modulated convolution and epilogue, with a weight made ready."""
    what = f"modulated_layer {'x'.join(map(str, LAYER))}"
    if only not in what:
        return []
    channels, height, width = LAYER
    torch.manual_seed(0)
    layer = ModulatedConvolution(channels, channels, 512).to(device)
    scales = torch.rand(batch, channels, device=device) + 0.5
    noise = torch.randn(1, 1, height, width, device=device)
    timed, in_turn = _timer(device, repeats), _timer_in_turn(device, repeats)
    rows: list[dict[str, Any]] = []
    for dtype in dtypes:
        x = torch.randn(batch, channels, height, width, device=device).to(dtype)
        x = x.contiguous(memory_format=torch.channels_last)

        def call(x: Tensor = x) -> None:
            layer(x, scales, noise, scales, plain=False)

        with torch.no_grad():
            shapes = [(layer, (height, width))]
            ours, *bare = in_turn(call, *(_bare(shapes, batch, dtype, device, own) for own in (False, True)))
            with ops.backend("reference"):
                reference = timed(call)
        usual = rows[0]["reference"] if rows else reference
        rows.append(_generator_row(what, batch, dtype, ours, reference, bare, usual))
    return rows


def _generator(
    device: torch.device, batch: int, dtypes: tuple[torch.dtype, ...], repeats: int, only: str
) -> list[dict[str, Any]]:
    inference, training = (only in name for name in ("generator", "generator forward+backward"))
    if not training:  # which holds the other's name
        return []
    torch.manual_seed(0)
    generator = Generator(*GENERATOR).to(device).eval()
    styles = torch.randn(batch, generator.num_styles, generator.style_dim, device=device)
    noise = [torch.randn(1, 1, *shape, device=device) for shape in generator.noise_shapes]
    for convolution in generator.convolutions:
        torch.nn.init.constant_(convolution.noise_strength, 0.1)
    timed, in_turn = _timer(device, repeats), _timer_in_turn(device, repeats)
    rows: list[dict[str, Any]] = []
    for dtype in dtypes if inference else ():
        with torch.no_grad():
            shapes = list(zip(generator.convolutions, generator.noise_shapes, strict=True))
            ours, *bare = in_turn(
                lambda dtype=dtype: generator(styles, noise, dtype=dtype),
                *(_bare(shapes, batch, dtype, device, own) for own in (False, True)),
            )
            with ops.backend("reference"):
                reference = timed(lambda dtype=dtype: generator(styles, noise, dtype=dtype))
        # What those have who have nothing else; float32 comes first.
        usual = rows[0]["reference"] if rows else reference
        rows.append(_generator_row("generator", batch, dtype, ours, reference, bare, usual))
    target = torch.randn(batch, 3, generator.image_size, generator.image_size, device=device)

    def train() -> None:
        generator.zero_grad(set_to_none=True)
        (generator(styles, noise) * target).sum().backward()

    ours = timed(train)
    with ops.backend("reference"):
        reference = timed(train)
    what, bare = "generator forward+backward", [None, None]
    rows.append(_generator_row(what, batch, torch.float32, ours, reference, bare, reference))
    return rows


def _generator_row(
    what: str, batch: int, dtype: torch.dtype, ours: float, reference: float, bare: list[float | None], usual: float
) -> dict[str, Any]:
    ratios = [None if limit is None else ours / limit for limit in bare]
    return {
        "what": what, "batch": batch, "dtype": str(dtype).removeprefix("torch."), "ours": ours,
        "reference": reference, "bare convolutions": bare[0], "ratio": ratios[0], "own": bare[1],
        "ratio to own": ratios[1], "faster": reference / ours, "faster than float32's": usual / ours,
    }  # fmt: skip


def _bare(
    convolutions: list[tuple[ModulatedConvolution, tuple[int, int]]],  # with the size of what comes out
    batch: int, dtype: torch.dtype, device: torch.device,
    own: bool,  # as ours makes them, which may be in parts; else as the vendor does
) -> Callable[[], None]:  # fmt: skip
    """The convolutions alone, weights made ready, each on an input of its own."""
    calls = []
    for convolution, (height, width) in convolutions:
        up = convolution.up
        x = torch.randn(batch, convolution.weight.shape[1], height // up, width // up, device=device).to(dtype)
        memory_format = torch.contiguous_format
        if device.type == "cpu" or dtype == torch.float16:
            memory_format = torch.channels_last
        x = x.contiguous(memory_format=memory_format)
        weight = convolution.weight.detach().to(dtype).contiguous(memory_format=memory_format)
        ready = ops.pack_weight(weight, up, padding=1, flip_weight=up == 1, input_shape=tuple(x.shape), in_parts=own)
        if ready.parts is not None:
            calls.append(lambda x=x, r=ready.parts: ops.convolve_parts(x, r))
        elif ready.onednn is not None:
            calls.append(lambda x=x, r=ready.onednn, up=up: ops.convolve_prepacked(x, r[0], up, r[1]))
        elif up == 1:
            calls.append(lambda x=x, w=ready.oriented: functional.conv2d(x, w, padding=1))
        else:
            calls.append(lambda x=x, w=ready.oriented: functional.conv_transpose2d(x, w, stride=2))

    def call() -> None:
        for convolve in calls:
            convolve()

    return call
