"""Long audio in chunks: the whole clip's answer where it can be exact, a bounded difference where it cannot."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from speak.config import wav2vec2_preset
from speak.models.wav2vec2 import Wav2Vec2
from speak.models.wav2vec2_streaming import encode_long
from tests.tolerances import assert_close


def model(preset: str = "tiny", **changes) -> Wav2Vec2:
    torch.manual_seed(0)
    made = Wav2Vec2(dataclasses.replace(wav2vec2_preset(preset), **changes)).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.dim() == 1:
                parameter += 0.2 * torch.randn_like(parameter)
    return made


def clip(seconds: float) -> torch.Tensor:
    torch.manual_seed(1)
    samples = round(seconds * 16000)
    return torch.randn(samples) * torch.sin(torch.arange(samples) / 9000.0).square() * 0.2 + 0.01


def whole(net: Wav2Vec2, speech: torch.Tensor, frames: int) -> torch.Tensor:
    with torch.no_grad():
        return net(speech[None], frames)[0]


def streamed(net: Wav2Vec2, speech, frames: int, **options) -> torch.Tensor:
    return torch.cat(list(encode_long(net, speech, frames, **options)))


@pytest.mark.parametrize("chunk_seconds", [0.02, 0.1, 0.33, 1.0, 2.7, 100.0])
@pytest.mark.parametrize("changes", [
    {}, {"pre_norm": False}, {"normalise_input": True}, {"conv_norm": "group", "normalise_input": True},
    {"position_kernel": 9}, {"attention_window": 0}, {"attention_window": 500},
], ids=str)
def test_with_local_attention_every_chunk_size_gives_the_whole_clips_answer(changes, chunk_seconds):
    net, speech = model(**changes), clip(5.3)
    assert_close(streamed(net, speech, 159, chunk_seconds=chunk_seconds), whole(net, speech, 159))


@pytest.mark.parametrize("chunk_seconds", [0.5, 4.0])
def test_the_default_model_in_chunks_gives_the_whole_clips_answer(chunk_seconds):
    net, speech = model("default"), clip(12.01)
    assert_close(streamed(net, speech, 360, chunk_seconds=chunk_seconds), whole(net, speech, 360))


@pytest.mark.parametrize("seconds,frames", [(0.01, 1), (0.0334, 1), (0.06, 2), (0.5, 40), (1.0, 7), (2.0, 60)])
def test_short_clips_and_unusual_frame_counts_are_exact_too(seconds, frames):
    net, speech = model(), clip(seconds)
    assert_close(streamed(net, speech, frames, chunk_seconds=0.1), whole(net, speech, frames))


def test_blocks_of_any_sizes_give_the_same_answer():
    net, speech = model(normalise_input=True), clip(3.0)
    torch.manual_seed(2)
    cuts = torch.randint(1, len(speech), (40,)).sort().values.tolist()
    blocks = [speech[a:b] for a, b in zip([0, *cuts], [*cuts, len(speech)], strict=True)]
    expected = whole(net, speech, 90)
    assert_close(streamed(net, blocks, 90, samples=len(speech), chunk_seconds=0.4), expected)


def test_blocks_are_read_only_as_far_as_the_answer_needs_them():
    net, read = model(), []

    def blocks():
        for second in range(60):
            read.append(second)
            yield torch.zeros(16000)

    stream = encode_long(net, blocks(), 1800, samples=60 * 16000, chunk_seconds=1.0)
    next(stream)
    assert len(read) < 6


def test_a_generator_for_a_model_that_reads_twice_is_refused():
    net = model(normalise_input=True)
    with pytest.raises(ValueError, match="more than once"):
        next(encode_long(net, (block for block in [torch.zeros(16000)]), 30, samples=16000))


@pytest.mark.parametrize("announced", [15000, 17000])
def test_a_wrong_sample_count_is_an_error(announced):
    with pytest.raises(ValueError, match=str(announced)):
        streamed(model(), [torch.zeros(16000)], 30, samples=announced)
    with pytest.raises(ValueError, match="samples"):
        streamed(model(), [torch.zeros(16000)], 30)


def test_statistics_of_the_whole_clip_are_exact_so_that_one_chunk_is_the_whole_clip():
    net, speech = model("paper", layers=1), clip(3.0)
    assert_close(streamed(net, speech, 90, chunk_seconds=1.0, context_seconds=10.0), whole(net, speech, 90))


def test_base_in_overlapping_chunks_stays_near_the_whole_clip():
    """The remaining difference is printed: it is the attention that a chunk cannot see, of random weights, which
    attend to everything alike; statistics and positions are exact."""
    net, speech = model("paper", layers=2), clip(9.0)
    expected = whole(net, speech, 270)
    errors = []
    for context in (0.0, 1.0, 3.0):
        error = streamed(net, speech, 270, chunk_seconds=2.0, context_seconds=context) - expected
        errors.append((error.square().mean().sqrt() / expected.std()).item())
        print(f"wav2vec2-base shape, 2 layers, 9 s, chunks of 2 s with {context:.0f} s of context: difference "
              f"{errors[-1]:.2%} rms, {error.abs().max() / expected.std():.2%} at most")
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.05


def test_memory_does_not_grow_with_the_length_of_the_audio():
    program = """
import torch
from speak.config import wav2vec2_preset
from speak.models.wav2vec2 import Wav2Vec2
from speak.models.wav2vec2_streaming import encode_long
torch.set_num_threads(1)
torch.manual_seed(0)
net = Wav2Vec2(wav2vec2_preset("default")).eval()
def blocks(seconds):
    for second in range(seconds):
        yield torch.randn(16000) * 0.1
def peak():  # of this process alone, in MiB; getrusage would report its parent's
    return next(int(line.split()[1]) / 1024 for line in open("/proc/self/status") if line.startswith("VmHWM"))
peaks = [peak()]
for seconds in (40, 220):
    for block in encode_long(net, blocks(seconds), seconds * 30, samples=seconds * 16000, chunk_seconds=5.0):
        pass
    peaks.append(peak())
print(*peaks)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True,
                          cwd=Path(__file__).parent.parent.parent)
    assert done.returncode == 0, done.stderr
    idle, short, long = map(float, done.stdout.split())
    print(f"peak memory with 40 s of audio {short:.0f} MiB, with 220 s {long:.0f} MiB ({idle:.0f} before any)")
    assert long - short < 30  # the first layer alone makes 280 MiB of 180 s
