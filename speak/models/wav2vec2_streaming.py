"""wav2vec 2.0 over long audio in bounded memory: the encoder E_a in chunks, whole clips' answers.

Every stage turns a stream of blocks into a stream of blocks and keeps only the neighbours that its next output needs.
With local attention each layer is a stage, and the answer is that of the whole clip. With attention over the whole
clip the transformer runs on overlapping chunks instead, which differs from the whole clip by what lies outside
`context_seconds`. Statistics of the whole clip (input normalisation, GroupNorm) are exact in both: passes of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial

import torch
from torch import Tensor

from speak.config import FRAME_RATE, SAMPLE_RATE
from speak.models.wav2vec2 import INPUT_EPSILON, Wav2Vec2, attention_mask, source_positions

Stage = Callable[[Tensor, slice], Tensor]  # (window [1, n, D], the positions to compute) -> [1, m, D]


@torch.no_grad()
def encode_long(
    model: Wav2Vec2,
    speech: Tensor | Iterable[Tensor],  # [S] at 16 kHz, or its blocks [n] of any sizes (see below)
    frames: int,  # N, video frames of the whole clip
    samples: int | None = None,  # S, needed with blocks
    chunk_seconds: float = 10.0,
    context_seconds: float = 5.0,  # seen to each side of a chunk where attention spans the whole clip
) -> Iterator[Tensor]:  # [n, D] blocks, N vectors altogether, on the model's device
    """Content vectors f_a(1:N) of a clip of any length, a block at a time: `model(speech[None], frames)` in pieces.

    Blocks are read as they are needed. Models with `normalise_input` or group norm read the clip more than once: give
    such a model a tensor, a list, or an object that starts anew at each iteration, not a generator.
    Exact for models with local attention. Raises ValueError where `samples` is missing or not what the blocks hold.
    """
    if isinstance(speech, Tensor):
        speech, samples = speech.split(SAMPLE_RATE), speech.shape[0]
    if samples is None:
        raise ValueError("encode_long: blocks of speech need `samples`, the length of the whole clip")
    grouped = model.config.conv_norm == "group"
    if (grouped or model.config.normalise_input) and iter(speech) is speech:
        raise ValueError("encode_long: this model reads the clip more than once; give it a tensor, a list of blocks or "
                         "an object whose iteration starts anew")
    parameter = next(model.parameters())
    chunk = max(1, round(chunk_seconds * SAMPLE_RATE / model.hop))  # feature vectors at a time

    mean, scale = 0.0, 1.0
    if model.config.normalise_input:
        moments = _moments(block[None] for block in _counted(speech, samples, parameter))
        mean, scale = moments[0].to(parameter), (moments[1] + INPUT_EPSILON).rsqrt().to(parameter)

    def normalised() -> Iterator[Tensor]:
        yield from ((block - mean) * scale for block in _counted(speech, samples, parameter))
        yield parameter.new_zeros(max(0, model.receptive_field - samples))

    statistics = None
    if grouped:
        first = model.feature_extractor[0].conv
        size, hop = first.kernel_size[0], first.stride[0]
        windows = _windows(normalised(), size, hop, chunk * (model.hop // hop))
        moments = _moments(first(window[None, None])[0] for window in windows)
        statistics = moments[0].to(parameter), moments[1].to(parameter)

    windows = _windows(normalised(), model.receptive_field, model.hop, chunk)
    stream = (model.extract_features(window[None], statistics) for window in windows)
    stream = map(model.project, _interpolated(stream, model.feature_count(samples), frames))
    window = model.config.attention_window
    if window is None:
        context = round(context_seconds * FRAME_RATE)
        yield from (block[0] for block in _sliding(stream, context, context, partial(_transform, model)))
        return
    kernel = model.config.position_kernel
    stream = _sliding(stream, kernel // 2, (kernel - 1) // 2, lambda block, keep: model.embed_positions(block)[:, keep])
    for layer in model.layers:
        stream = _sliding(stream, window, window, partial(_layer, layer, window))
    yield from ((model.norm(block) if model.config.pre_norm else block)[0] for block in stream)


def _transform(model: Wav2Vec2, block: Tensor, keep: slice) -> Tensor:
    return model.transform(block)[-1][:, keep]


def _layer(layer: torch.nn.Module, window: int, block: Tensor, keep: slice) -> Tensor:
    return layer(block, attention_mask(block.shape[1], window, None, block.device, keep), keep)


def _counted(speech: Iterable[Tensor], samples: int, like: Tensor) -> Iterator[Tensor]:
    """The blocks on the model's device and in its dtype; ValueError unless they hold `samples` altogether."""
    count = 0
    for block in speech:
        count += block.shape[0]
        if count > samples:
            raise ValueError(f"encode_long: the blocks hold more than the {samples} samples announced")
        yield block.to(like)
    if count != samples:
        raise ValueError(f"encode_long: the blocks hold {count} samples, not the {samples} announced")


def _windows(blocks: Iterable[Tensor], size: int, hop: int, count: int) -> Iterator[Tensor]:
    """Regroups samples into windows that hold `count` convolution outputs of `size` samples every `hop` (last: rest).

    Each output of the clip is in exactly one window; windows overlap by `size` - `hop` samples.
    """
    buffer: list[Tensor] = []
    held = 0
    full = (count - 1) * hop + size
    for block in blocks:
        buffer.append(block)
        held += block.shape[0]
        if held < full:
            continue
        rest = torch.cat(buffer)
        while rest.shape[0] >= full:
            yield rest[:full]
            rest = rest[count * hop:]
        buffer, held = [rest.clone()], rest.shape[0]
    if held >= size:
        yield torch.cat(buffer)


def _moments(blocks: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean and variance [C], float64, over all columns of the blocks [C, n]; joined pairwise: nothing cancels."""
    count, mean, squares = 0, torch.zeros(()), torch.zeros(())
    for block in blocks:
        block = block.double()
        more, block_mean = block.shape[1], block.mean(1)
        block_squares = (block - block_mean[:, None]).square().sum(1)
        shift = block_mean - mean.to(block_mean)
        total = count + more
        squares = squares.to(block_mean) + block_squares + shift.square() * (count * more / total)
        mean = mean.to(block_mean) + shift * (more / total)
        count = total
    return mean, squares / max(count, 1)


def _interpolated(blocks: Iterable[Tensor], count: int, frames: int) -> Iterator[Tensor]:
    """Streams `interpolate`: blocks [1, n, C] of `count` feature vectors in, blocks of `frames` vectors out."""
    start = end = done = 0  # vectors held are start to end; frames out so far
    buffer = None
    for block in blocks:
        buffer = block if buffer is None else torch.cat((buffer, block), dim=1)
        end += block.shape[1]
        # Frame t needs vectors t (L - 1) // (N - 1) and the next.
        ready = frames if end >= count else min(frames, -(-(end - 1) * (frames - 1) // (count - 1)))
        if ready <= done:
            continue
        left, fraction = source_positions(torch.arange(done, ready, device=block.device), count, frames)
        right = (left + 1).clamp(max=count - 1)
        yield torch.lerp(buffer[:, left - start], buffer[:, right - start], fraction[:, None].to(block))
        done = ready
        keep = min(max(done * (count - 1) // max(frames - 1, 1), start), end)
        buffer, start = buffer[:, keep - start:].clone(), keep


def _sliding(blocks: Iterable[Tensor], before: int, after: int, stage: Stage) -> Iterator[Tensor]:
    """Streams a stage whose output t sees inputs t - `before` to t + `after`: blocks [1, n, D] in and out."""
    start = end = done = 0  # inputs held are start to end; outputs so far
    buffer = None
    for block in _with_end(blocks):
        if block is not None:
            buffer = block if buffer is None else torch.cat((buffer, block), dim=1)
            end += block.shape[1]
        ready = end if block is None else end - after
        if buffer is None or ready <= done:
            continue
        yield stage(buffer, slice(done - start, ready - start))
        done = ready
        keep = max(start, done - before)
        buffer, start = buffer[:, keep - start:].clone(), keep


def _with_end(blocks: Iterable[Tensor]) -> Iterator[Tensor | None]:
    yield from blocks
    yield None
