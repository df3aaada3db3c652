"""First and second derivatives, in float64 against differences, and between the backends in training's precision."""

import itertools
from collections.abc import Callable

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from speak import ops
from tests.tolerances import assert_close

FILTER = ops.setup_filter([1, 3, 2, 1], separable=True)


def double(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


def check(function: Callable, *inputs: torch.Tensor) -> None:
    assert gradcheck(function, inputs, fast_mode=True)
    assert gradgradcheck(function, inputs, fast_mode=True)


@pytest.mark.parametrize("act", ["linear", "relu", "lrelu", "tanh", "swish"])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_bias_act(act: str, layout: torch.memory_format) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, 4, 2, dtype=torch.float64).contiguous(memory_format=layout).requires_grad_()
    check(lambda x, b: ops.bias_act(x, b, act=act, clamp=1.5), x, double(3))
    check(lambda x, b: ops.bias_act(x, b, act=act, dim=2), x, double(4))


@pytest.mark.parametrize("up, down", list(itertools.product((1, 2, 3), (1, 2))))
@pytest.mark.parametrize("padding", [2, [3, -1, 1, 2]])
def test_upfirdn2d(up: int, down: int, padding: int | list[int], compiled: None) -> None:
    torch.manual_seed(0)
    for f in (FILTER, torch.randn(2, 3), None):
        check(lambda x, f=f: ops.upfirdn2d(x, f, up, down, padding, gain=1.3), double(1, 2, 5, 4))


@pytest.mark.parametrize("noise_batch", [1, 2])
@pytest.mark.parametrize("f", [None, FILTER])
def test_the_epilogue(noise_batch: int, f: torch.Tensor | None, compiled: None) -> None:
    torch.manual_seed(0)
    padding = (2, 1) if f is not None else (0, 0)

    def both(x, d, z, b, s):  # noqa: ANN001, ANN202
        return ops.layer_epilogue(x, f, padding, d, z, b, clamp=1.5, next_styles=s)

    inputs = (double(2, 3, 4, 3), double(2, 3), double(noise_batch, 1, 4, 3), double(3), double(2, 3))
    check(both, *inputs)
    check(lambda *i: both(*i)[0], *inputs[:4], inputs[4].detach())
    check(lambda *i: both(*i)[1], *inputs)


@pytest.mark.parametrize("up, down", [(1, 1), (2, 1), (1, 2)])
@pytest.mark.parametrize("demodulate", [True, False])
def test_modulated_conv2d(up: int, down: int, demodulate: bool, compiled: None) -> None:
    torch.manual_seed(0)
    check(
        lambda x, w, s, z: ops.modulated_conv2d(x, w, s, z, up, down, 1, FILTER, demodulate, flip_weight=up == 1),
        double(2, 2, 4, 4), double(2, 2, 3, 3), double(2, 2), double(1, 1, 4 * up // down, 4 * up // down),
    )  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("noise_batch", [1, 3])
def test_training_gradients_equal_the_reference_in_float64(
    dtype: torch.dtype, layout: torch.memory_format, noise_batch: int, compiled: None
) -> None:
    torch.manual_seed(0)
    x = (torch.randn(3, 40, 17, 23).to(dtype)).contiguous(memory_format=layout)
    operands = [torch.rand(3, 40) + 0.5, torch.randn(noise_batch, 1, 17, 23), torch.randn(40), torch.randn(3, 40)]
    gradients = [torch.randn(3, 40, 17, 23).to(dtype) for _ in range(2)]

    def run(function: Callable, kind: torch.dtype | None) -> tuple[torch.Tensor, ...]:
        inputs = [t.detach().to(kind or t.dtype).requires_grad_() for t in (x, *operands)]
        d, z, b, s = inputs[1:]
        # without a clamp and far from the bend, rounding of y cannot choose another side
        outputs = function(inputs[0], None, (0, 0), d, z, b, next_styles=s, act="linear")
        return torch.autograd.grad(outputs, inputs, [g.to(kind or g.dtype) for g in gradients])

    for actual, expected in zip(run(ops.layer_epilogue, None), run(ops.layer_epilogue_ref, torch.float64), strict=True):
        assert_close(actual, expected, dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("clamp", [0.7, 0.3])  # bfloat16 rounds the one down and the other up
def test_limited_values_take_no_gradient_and_the_others_all_of_it(
    dtype: torch.dtype, layout: torch.memory_format, clamp: float, backend: str
) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 24, 9, 7).to(dtype).contiguous(memory_format=layout).requires_grad_()
    steep = 2**0.5 * (0.2 + 0.8 * (x > 0).double())
    y = x.detach().double() * steep
    clear = (y.abs() - clamp).abs() > 0.02  # of the limit, whatever the rounding
    expected = steep * (y.abs() < clamp)
    assert 100 < (clear & (expected == 0)).sum() < clear.sum() - 100
    for result in (ops.bias_act(x, act="lrelu", clamp=clamp), ops.layer_epilogue(x, clamp=clamp)[0]):
        for differentiable in (False, True):
            (dx,) = torch.autograd.grad(result.sum(), x, create_graph=differentiable, retain_graph=True)
            assert_close(dx[clear], expected[clear], dtype)


def test_gradients_do_not_depend_on_the_number_of_threads(compiled: None) -> None:
    torch.manual_seed(0)
    x, b = torch.randn(2, 48, 64, 64).contiguous(memory_format=torch.channels_last), torch.randn(48)
    d, z, s = torch.rand(2, 48), torch.randn(1, 1, 64, 64), torch.rand(2, 48)
    results = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        inputs = [t.clone().requires_grad_() for t in (x, d, z, b, s)]
        y, scaled = ops.layer_epilogue(inputs[0], None, (0, 0), *inputs[1:4], next_styles=inputs[4])
        results.append(torch.autograd.grad(y.square().sum() + scaled.square().sum(), inputs))
        again = b.clone().requires_grad_()
        results[-1] += torch.autograd.grad(ops.bias_act(x, again, act="lrelu").square().sum(), again)
    assert all(torch.equal(one, two) for one, two in zip(*results, strict=True))


def test_unused_results_cost_no_gradient(compiled: None) -> None:
    x = double(1, 2, 3, 3)
    y, scaled = ops.layer_epilogue(x, next_styles=double(1, 2))
    assert_close(
        torch.autograd.grad(scaled.sum(), x, retain_graph=True)[0]
        + torch.autograd.grad(y.sum(), x, retain_graph=True)[0],
        torch.autograd.grad(scaled.sum() + y.sum(), x)[0],
    )
