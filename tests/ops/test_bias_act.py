"""bias_act: both backends against activations written out in float64."""

import math

import numpy as np
import pytest
import torch

from speak import ops
from tests.tolerances import assert_close

DTYPES = (torch.float32, torch.float64, torch.bfloat16)

# Written out in numpy, from the activations' definitions.
FORMULAS = {
    "linear": lambda t: t,
    "relu": lambda t: np.where(t > 0, t, 0) * math.sqrt(2),
    "lrelu": lambda t: np.where(t > 0, t, 0.2 * t) * math.sqrt(2),
    "tanh": np.tanh,
    "sigmoid": lambda t: 1 / (1 + np.exp(-t)),
    "elu": lambda t: np.where(t > 0, t, np.expm1(t)),
    "selu": lambda t: 1.0507009873554805 * np.where(t > 0, t, 1.6732632423543772 * np.expm1(t)),
    "softplus": lambda t: np.log1p(np.exp(t)),
    "swish": lambda t: t / (1 + np.exp(-t)) * math.sqrt(2),
}


def images(dtype: torch.dtype) -> list[torch.Tensor]:
    torch.manual_seed(0)
    x = torch.randn(3, 37, 5, 7).to(dtype)
    return [
        x,
        x.contiguous(memory_format=torch.channels_last),
        x.transpose(2, 3),
        x[:, ::2, 1:, :-1],
        x[:1, :, :1, :1].expand(3, 37, 5, 7),
    ]


@pytest.mark.parametrize("act", FORMULAS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_activation_follows_its_formula(act: str, dtype: torch.dtype) -> None:
    x, b = torch.randn(4, 6).to(dtype), torch.randn(6)
    expected = torch.from_numpy(FORMULAS[act](x.double().numpy() + b.double().numpy()))
    assert_close(ops.bias_act_ref(x, b, act=act), expected, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("act", ["linear", "relu", "lrelu"])
@pytest.mark.parametrize("clamp", [None, 0.7])
def test_all_memory_layouts_give_the_same(act: str, dtype: torch.dtype, clamp: float | None, backend: str) -> None:
    for x in images(dtype):
        b = torch.randn(x.shape[1])
        t = FORMULAS[act](x.double().numpy() + b.double().numpy()[:, None, None])
        expected = torch.from_numpy(t if clamp is None else np.clip(t, -clamp, clamp))
        assert_close(ops.bias_act(x, b, act=act, clamp=clamp), expected, dtype)


@pytest.mark.parametrize(
    "shape, dim", [((5,), 0), ((2, 9), 1), ((4, 3, 2), 0), ((2, 3, 4, 5, 6), 3), ((2, 3, 4, 5), -1)]
)
def test_the_bias_belongs_to_any_dimension(shape: tuple[int, ...], dim: int, backend: str) -> None:
    x, b = torch.randn(shape, dtype=torch.float64), torch.randn(shape[dim], dtype=torch.float64)
    expected = np.moveaxis(np.moveaxis(x.numpy(), dim, -1) + b.numpy(), -1, dim)
    assert_close(ops.bias_act(x, b, dim=dim), torch.from_numpy(expected))


def test_channels_last_stays_channels_last(compiled: None) -> None:
    x = torch.randn(2, 8, 4, 4).contiguous(memory_format=torch.channels_last)
    for b in (torch.randn(8), None):
        assert ops.bias_act(x, b, act="lrelu").is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("channels", [37, 1100])  # a pixel's vector is shorter, and longer, than what is made at once
def test_results_larger_than_the_caches_are_whole(
    layout: torch.memory_format, channels: int, compiled: None
) -> None:
    """They are written past the caches: every one is there when the operator returns, for whoever reads it."""
    torch.manual_seed(5)
    height = 5_000_000 // (channels * 61)
    found = []
    for call in (ops.bias_act, ops.bias_act_ref):
        torch.manual_seed(6)
        x = torch.randn(1, channels, height, 61).contiguous(memory_format=layout).requires_grad_(True)
        b = torch.randn(channels, requires_grad=True)
        assert x.numel() * x.element_size() > 16 << 20
        y = call(x, b, act="lrelu", clamp=1.5)
        y.backward(torch.randn(x.shape).contiguous(memory_format=layout))
        found.append((y, x.grad, b.grad))
    for result, expected in zip(*found, strict=True):
        assert_close(result, expected)


def test_nan_and_infinity_pass_through(backend: str) -> None:
    x = torch.tensor([[float("nan"), float("inf"), -float("inf"), 1.0]]).repeat(3, 5)
    for dtype in DTYPES:
        y = ops.bias_act(x.to(dtype), act="lrelu")
        assert y.isnan().sum() == 15 and y[0, 1] == float("inf") and y[0, 2] == -float("inf")
        assert ops.bias_act(x.to(dtype), act="lrelu", clamp=2).isnan().sum() == 15
        y = ops.bias_act(x.to(dtype), act="relu")
        assert y.isnan().sum() == 15 and y[0, 1] == float("inf") and y[0, 2] == 0


def test_an_empty_batch_gives_an_empty_batch(backend: str) -> None:
    x = torch.randn(0, 4, 3, 3, requires_grad=True)
    b = torch.randn(4, requires_grad=True)
    y = ops.bias_act(x, b, act="lrelu")
    y.sum().backward()
    assert y.shape == (0, 4, 3, 3) and torch.equal(b.grad, torch.zeros(4))


@pytest.mark.parametrize(
    "x, keywords, words",
    [
        (torch.randn(2, 3), {"b": torch.randn(4)}, "does not fit"),
        (torch.randn(2, 3), {"b": torch.randn(3), "dim": 2}, "no dimension 2"),
        (torch.randn(2, 3), {"b": torch.randn(3, 1)}, "does not fit"),
        (torch.randn(2, 3), {"act": "gelu"}, "unknown activation 'gelu'"),
        (torch.randn(2, 3), {"gain": float("nan")}, "finite"),
        (torch.randn(2, 3), {"act": "lrelu", "alpha": float("inf")}, "finite"),
        (torch.randn(2, 3), {"clamp": -1}, "zero or more"),
        (torch.ones(2, 3, dtype=torch.int64), {}, "floating point"),
        (torch.tensor(1.0), {}, "at least one dimension"),
    ],
)
def test_what_does_not_fit_is_refused_in_words(x: torch.Tensor, keywords: dict, words: str, backend: str) -> None:
    with pytest.raises(ValueError, match=words):
        ops.bias_act(x, **keywords)


def test_the_kernel_itself_refuses_what_the_front_would(compiled: None) -> None:
    x = torch.randn(2, 3, 4, 4)
    for arguments, words in [
        ((x, torch.randn(4), 1, 0.2, 1.0, -1.0), "size 3"),
        ((x, torch.randn(3), 5, 0.2, 1.0, -1.0), "no dimension"),
        ((x, torch.randn(3).double(), 1, 0.2, 1.0, -1.0), "float32"),
        ((x, torch.randn(3), 1, 0.2, float("nan"), -1.0), "finite"),
        ((x, torch.randn(3), 1, 2.0, 1.0, -1.0), "slope"),
        ((x.half(), torch.randn(3), 1, 0.2, 1.0, -1.0), "compiled for"),
    ]:
        with pytest.raises(RuntimeError, match=words):
            torch.ops.speak.bias_act(*arguments)
