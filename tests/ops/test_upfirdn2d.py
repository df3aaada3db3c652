"""upfirdn2d: both backends against scipy's one-dimensional upfirdn in float64, and against sums written out."""

import itertools

import numpy as np
import pytest
import scipy.signal
import torch

from speak import ops
from tests.tolerances import assert_close

DTYPES = (torch.float32, torch.float64, torch.bfloat16)


def scipy_axis(x: np.ndarray, taps: np.ndarray, up: int, down: int, before: int, after: int, axis: int) -> np.ndarray:
    """One axis: zero-stuffed, padded or cropped, convolved, every `down`th sample kept."""
    stuffed = scipy.signal.upfirdn([1.0], x, up=up, axis=axis)
    short = x.shape[axis] * up - stuffed.shape[axis]  # scipy leaves the last zeros out
    pads = [(0, 0)] * x.ndim
    pads[axis] = (max(before, 0), max(after, 0) + short)
    padded = np.moveaxis(np.pad(stuffed, pads), axis, -1)
    padded = padded[..., max(-before, 0) : padded.shape[-1] - max(-after, 0)]
    full = scipy.signal.upfirdn(taps, padded, axis=-1)
    return np.moveaxis(full[..., len(taps) - 1 : padded.shape[-1]][..., ::down], -1, axis)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("up, down", list(itertools.product((1, 2, 3), (1, 2, 3))))
@pytest.mark.parametrize("padding", [(3, 3), (2, 5), (-1, 4), (4, -2)])
def test_separable_filters_agree_with_scipy(
    dtype: torch.dtype, up: int, down: int, padding: tuple[int, int], backend: str
) -> None:
    x = torch.randn(2, 3, 9, 8).to(dtype)
    taps = torch.tensor([1.0, 3.0, -2.0, 0.5])
    expected = x.double().numpy()
    for axis in (2, 3):
        expected = scipy_axis(expected, taps.double().numpy(), up, down, *padding, axis)
    expected = torch.from_numpy(expected * 0.7)
    for layout in (torch.contiguous_format, torch.channels_last):
        y = ops.upfirdn2d(x.contiguous(memory_format=layout), taps, up, down, [*padding, *padding], gain=0.7)
        assert_close(y, expected, dtype)
        y = ops.upfirdn2d(
            x.contiguous(memory_format=layout), torch.outer(taps, taps), up, down, [*padding, *padding], gain=0.7
        )
        assert_close(y, expected, dtype)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("shape", [(3, 5), (1, 2), (6, 6), (1, 1), (9, 4)])
def test_filters_that_are_no_product_agree_with_a_plain_convolution(
    flip: bool, shape: tuple[int, int], backend: str
) -> None:
    torch.manual_seed(1)
    x, f = torch.randn(2, 4, 12, 11), torch.randn(shape)
    kernel = (f if flip else f.flip(0, 1)).double()
    padded = torch.nn.functional.pad(x.double(), [2, 3, 1, 0])
    expected = torch.nn.functional.conv2d(padded, kernel.expand(4, 1, *shape), groups=4)[:, :, ::2, ::3]
    for layout in (torch.contiguous_format, torch.channels_last):
        y = ops.upfirdn2d(x.contiguous(memory_format=layout), f, down=[3, 2], padding=[2, 3, 1, 0], flip_filter=flip)
        assert_close(y, expected, torch.float32)


def test_random_calls_agree_with_the_reference(compiled: None) -> None:
    torch.manual_seed(7)
    random = np.random.default_rng(7)
    done = 0
    while done < 300:
        batch, channels, height, width = random.integers(0 if done % 20 == 0 else 1, 6, 4) * [1, 3, 4, 4] + [0, 0, 1, 1]
        dtype = DTYPES[random.integers(3)]
        x = torch.randn(int(batch), max(1, int(channels)), int(height), int(width)).to(dtype)
        last, flat = x.contiguous(memory_format=torch.channels_last), x[:, :1, :, :1].expand_as(x)
        x = [x, last, x.transpose(2, 3), x.flip(3)[:, :, ::2], flat][random.integers(5)]
        f = torch.randn(*random.integers(1, 7, random.integers(1, 3)).tolist())
        up, down = random.integers(1, 5, 2).tolist(), random.integers(1, 5, 2).tolist()
        padding = random.integers(-3, 9, 4).tolist()
        arguments = (f, up, down, padding, bool(random.integers(2)), float(random.normal()))
        try:
            expected = ops.upfirdn2d_ref(x.double(), *arguments)
        except ValueError:
            with pytest.raises(ValueError):
                ops.upfirdn2d(x, *arguments)
            continue
        assert_close(ops.upfirdn2d(x, *arguments), expected, dtype)
        done += 1


def test_upsampling_keeps_a_constant_and_doubles_the_size(backend: str) -> None:
    f = ops.setup_filter([1, 3, 3, 1])
    y = ops.upsample2d(torch.full((1, 2, 8, 8), 3.0), f)
    assert y.shape == (1, 2, 16, 16) and torch.allclose(y[:, :, 2:-2, 2:-2], torch.tensor(3.0))
    z = ops.downsample2d(y, f)
    assert z.shape == (1, 2, 8, 8) and torch.allclose(z[:, :, 3:-3, 3:-3], torch.tensor(3.0))


def test_setup_filter_normalises_and_keeps_long_taps_separable() -> None:
    assert_close(ops.setup_filter([1, 3, 3, 1]).sum(), torch.tensor(1.0))
    assert ops.setup_filter([1, 3, 3, 1]).shape == (4, 4)
    assert ops.setup_filter([1] * 8).shape == (8,)
    assert ops.setup_filter(None).tolist() == [[1.0]]
    assert ops.setup_filter([1.0, 2.0], normalize=False, flip_filter=True, separable=True).tolist() == [2.0, 1.0]


@pytest.mark.parametrize(
    "x, f, keywords, words",
    [
        (torch.randn(2, 3, 4), torch.ones(2), {}, "N, C, H, W"),
        (torch.randn(1, 1, 4, 4), torch.ones(5), {}, "at least as large as the filter"),
        (torch.randn(1, 1, 4, 4), torch.ones(2, 2, 2), {}, "f must be"),
        (torch.randn(1, 1, 4, 4), torch.ones(2).half(), {}, "f must be"),
        (torch.randn(1, 1, 4, 4), torch.ones(0), {}, "f must be"),
        (torch.randn(1, 1, 4, 4), torch.ones(2), {"gain": float("inf")}, "finite"),
        (torch.randn(1, 1, 4, 4), torch.ones(2), {"up": 0}, "up must be"),
        (torch.randn(1, 1, 4, 4), torch.ones(2), {"down": [1, 2, 3]}, "down must be"),
        (torch.randn(1, 1, 4, 4), torch.ones(2), {"padding": [1, 2, 3]}, "padding must be"),
        (torch.randn(1, 1, 4, 4), torch.ones(2), {"padding": -4}, "at least as large"),
        (torch.randn(1, 1, 0, 4), torch.ones(2), {"padding": 4}, "at least as large"),
    ],
)
def test_what_does_not_fit_is_refused_in_words(
    x: torch.Tensor, f: torch.Tensor, keywords: dict, words: str, backend: str
) -> None:
    with pytest.raises(ValueError, match=words):
        ops.upfirdn2d(x, f, **keywords)


def test_the_kernel_itself_refuses_what_the_front_would(compiled: None) -> None:
    x, f = torch.randn(1, 1, 4, 4), torch.ones(3)
    good = (1, 1, 1, 1, 0, 0, 0, 0, False, 1.0)
    for arguments, words in [
        ((x[0], f, *good), "N, C, H, W"),
        ((x, torch.ones(7), *good), "as large as the filter"),
        ((x, f.double(), *good), "float32"),
        ((x, f, 0, *good[1:]), "at least 1"),
        ((x, f, *good[:4], 2**62, *good[5:]), "sensible"),
        ((x, f, *good[:-1], float("nan")), "finite"),
    ]:
        with pytest.raises(RuntimeError, match=words):
            torch.ops.speak.upfirdn2d(*arguments)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "channels, height, width, padding",
    [
        *((*size, padding) for size in ((16, 9, 8), (48, 6, 37), (512, 7, 41))
          for padding in ((1, 1), (2, 1), (5, 6), (-1, 0), (0, -2))),
        (16, 4, 1, (5, 6)), (16, 1, 4, (5, 6)), (16, 1, 1, (2, 1)),
    ],
)  # fmt: skip
def test_many_channels_side_by_side_agree_with_scipy(
    channels: int, height: int, width: int, padding: tuple[int, int], dtype: torch.dtype, backend: str
) -> None:
    taps = torch.tensor([1.0, 3.0, -2.0, 0.5])
    x = torch.randn(2, channels, height, width).to(dtype).contiguous(memory_format=torch.channels_last)
    expected = x.double().numpy()
    for axis in (2, 3):
        expected = scipy_axis(expected, taps.double().numpy(), 1, 1, *padding, axis)
    assert_close(ops.upfirdn2d(x, taps, padding=[*padding, *padding]), torch.from_numpy(expected), dtype)


@pytest.mark.parametrize("row", range(7))
def test_an_infinity_reaches_as_far_as_the_filter_and_no_further(row: int, backend: str) -> None:
    x = torch.zeros(1, 16, 7, 6).contiguous(memory_format=torch.channels_last)
    x[:, :, row, 2] = float("inf")
    reached = ~ops.upfirdn2d(x, torch.ones(4), padding=[5, 5, 5, 5]).isfinite()
    expected = torch.zeros(1, 16, 14, 13, dtype=torch.bool)
    expected[:, :, row + 2 : row + 6, 4:8] = True  # results row + 5 - 3 to row + 5 cover it
    assert torch.equal(reached, expected)


def test_bfloat16_results_are_rounded_as_torch_rounds(compiled: None) -> None:
    """Every bfloat16 up to 1e38, times 9/4: ties go to the even one. A NaN that rounding would carry over stays one."""
    bits = torch.arange(-32768, 32768, dtype=torch.int32).to(torch.int16)
    x = bits.view(torch.bfloat16)
    x = torch.where(x.float().abs() < 1e38, x, 0).reshape(1, 16, 64, 64).contiguous(memory_format=torch.channels_last)
    one = ops.setup_filter([0, 1.5, 0, 0], normalize=False, separable=True)  # its products are exact in float32
    y = ops.upfirdn2d(x, one, padding=[2, 1, 2, 1], flip_filter=True)
    expected = ops.upfirdn2d_ref(x.float(), one, padding=[2, 1, 2, 1], flip_filter=True).bfloat16()
    assert torch.equal(y, expected) and (y != 0).float().mean() > 0.9
    full = torch.full((16,), 0x7FFFFFFF, dtype=torch.int32).view(torch.float32)  # a NaN of all ones
    blur = ops.setup_filter([1, 3, 3, 1], separable=True)
    assert ops.layer_epilogue(x, blur, (2, 1), bias=full)[0].isnan().all()
