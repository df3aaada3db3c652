"""Bias, activation, gain and clamp in one operator: y = clamp(act(x + b) * gain).

The compiled kernels know activations of one bend (linear, relu, lrelu), which are all that StyleGAN2 trains with; the
others run on the reference. Closed under differentiation: the derivative is an operator whose derivative is itself.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from speak.ops import extension


@dataclasses.dataclass(frozen=True)
class Activation:
    """An activation: its function of (x, alpha) and the field's default alpha and gain."""

    function: Callable[[Tensor, float], Tensor]
    alpha: float = 0.0
    gain: float = 1.0


ACTIVATIONS = {
    "linear": Activation(lambda x, alpha: x),
    "relu": Activation(lambda x, alpha: functional.relu(x), gain=math.sqrt(2)),
    "lrelu": Activation(lambda x, alpha: functional.leaky_relu(x, alpha), alpha=0.2, gain=math.sqrt(2)),
    "tanh": Activation(lambda x, alpha: torch.tanh(x)),
    "sigmoid": Activation(lambda x, alpha: torch.sigmoid(x)),
    "elu": Activation(lambda x, alpha: functional.elu(x)),
    "selu": Activation(lambda x, alpha: functional.selu(x)),
    "softplus": Activation(lambda x, alpha: functional.softplus(x)),
    "swish": Activation(lambda x, alpha: torch.sigmoid(x) * x, gain=math.sqrt(2)),
}


def bias_act(
    x: Tensor,  # any shape of rank 1 or more
    b: Tensor | None = None,  # [x.shape[dim]]
    dim: int = 1,  # the dimension of x that b belongs to
    act: str = "linear",  # a key of ACTIVATIONS
    alpha: float | None = None,  # slope of lrelu below zero; default 0.2
    gain: float | None = None,  # default: the activation's own
    clamp: float | None = None,  # limits y to [-clamp, clamp]
) -> Tensor:
    """clamp(act(x + b) * gain), in x's shape and dtype; first and second derivatives by x and b.

    Compiled for linear, relu and lrelu. Raises ValueError for shapes, names or numbers that do not fit.
    """
    bend = activation_numbers(act, alpha, gain, clamp)
    dim = _checked_dim(x, b, dim)
    extension.check_devices(x, b=b)
    if not extension.use_compiled(x, "bias_act", _unsupported(act, bend)):
        return bias_act_ref(x, b, dim, act, alpha, gain, clamp)
    return torch.ops.speak.bias_act(x, as_vector(b, x), dim, *bend)


def bias_act_ref(
    x: Tensor, b: Tensor | None = None, dim: int = 1, act: str = "linear", alpha: float | None = None,
    gain: float | None = None, clamp: float | None = None,
) -> Tensor:  # fmt: skip
    """The specification of `bias_act` in plain PyTorch, with the same arguments."""
    _, gain, _ = activation_numbers(act, alpha, gain, clamp)
    dim = _checked_dim(x, b, dim)
    if b is not None:
        x = x + b.to(x.dtype).reshape([-1 if d == dim else 1 for d in range(x.ndim)])
    x = ACTIVATIONS[act].function(x, ACTIVATIONS[act].alpha if alpha is None else alpha)
    x = x * gain
    return x if clamp is None else x.clamp(-clamp, clamp)


def activation_numbers(
    act: str, alpha: float | None, gain: float | None, clamp: float | None
) -> tuple[float, float, float]:
    """(slope below zero, gain, clamp or -1) of an activation, defaults filled in; ValueError where they do not fit."""
    if act not in ACTIVATIONS:
        raise ValueError(f"unknown activation '{act}': choose from {', '.join(ACTIVATIONS)}")
    alpha = ACTIVATIONS[act].alpha if alpha is None else float(alpha)
    gain = ACTIVATIONS[act].gain if gain is None else float(gain)
    if not (math.isfinite(alpha) and math.isfinite(gain)):
        raise ValueError(f"alpha and gain must be finite, not {alpha} and {gain}")
    if clamp is not None and not clamp >= 0:
        raise ValueError(f"clamp must be zero or more, not {clamp}")
    slope = {"linear": 1.0, "relu": 0.0}.get(act, alpha)
    return slope, gain, -1.0 if clamp is None else float(clamp)


def vector_dtype(x: Tensor) -> torch.dtype:
    """What kernels compute in and hold small operands in: float32, beside float64 data float64."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def as_vector(v: Tensor | None, x: Tensor) -> Tensor | None:
    """A small operand in the type that kernels compute in."""
    return None if v is None else v.to(vector_dtype(x))


def has_one_bend(act: str, bend: tuple[float, float, float]) -> bool:
    """Whether the kernels know this activation: its derivative must be seen from its result's sign."""
    slope, gain, _ = bend
    return act in ("linear", "relu", "lrelu") and 0 <= slope <= 1 and gain > 0


def _unsupported(act: str, bend: tuple[float, float, float]) -> str | None:
    return None if has_one_bend(act, bend) else f"activation {act} with these numbers is not compiled"


def _checked_dim(x: Tensor, b: Tensor | None, dim: int) -> int:
    if not x.is_floating_point():
        raise ValueError(f"x must be floating point, not {x.dtype}")
    if x.ndim == 0:
        raise ValueError("x must have at least one dimension")
    if b is None:  # any would do; around this one channels-last images stay as they are
        return 1 if x.ndim == 4 else 0
    if not -x.ndim <= dim < x.ndim:
        raise ValueError(f"x of shape {tuple(x.shape)} has no dimension {dim}")
    if b.shape != (x.shape[dim],):
        raise ValueError(f"b of shape {tuple(b.shape)} does not fit dimension {dim} of x {tuple(x.shape)}")
    return dim % x.ndim


def _setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
    x, b, *ctx.numbers = inputs
    ctx.save_for_backward(output)
    ctx.with_bias = b is not None


def _backward(ctx: Any, dy: Tensor) -> tuple:
    (y,) = ctx.saved_tensors
    with_bias = ctx.with_bias and ctx.needs_input_grad[1]
    dx, db = torch.ops.speak.bias_act_backward(dy, y, *ctx.numbers, with_bias)
    return dx, db if with_bias else None, None, None, None, None


def _setup_context_of_backward(ctx: Any, inputs: tuple, output: tuple[Tensor, Tensor]) -> None:
    _, y, *ctx.numbers, ctx.with_bias = inputs
    ctx.save_for_backward(y)
    ctx.set_materialize_grads(False)


def _backward_of_backward(ctx: Any, ddx: Tensor | None, ddb: Tensor | None) -> tuple:
    """dx and db are linear in dy, and y's sign does not move: the derivative by dy is the same masked product."""
    (y,) = ctx.saved_tensors
    dim = ctx.numbers[0]
    if ddb is not None and ctx.with_bias:
        spread = ddb.to(y.dtype).reshape([-1 if d == dim else 1 for d in range(y.ndim)]).expand_as(y)
        ddx = spread if ddx is None else ddx + spread
    ddy = None if ddx is None else torch.ops.speak.bias_act_backward(ddx, y, *ctx.numbers, False)[0]
    return ddy, None, None, None, None, None, None


def dense(x: Tensor) -> Tensor:
    """x as the kernels hold it: planar or channels-last, else a planar copy."""
    if x.is_contiguous() or (x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last)):
        return x
    return x.contiguous()


def _dense_around(x: Tensor, dim: int) -> Tensor:
    return dense(x) if dim == 1 else x.contiguous()


if not extension.LIBRARY.missing:

    @torch.library.register_fake("speak::bias_act")
    def _(x: Tensor, b: Tensor | None, dim: int, slope: float, gain: float, clamp: float) -> Tensor:
        return torch.empty_like(_dense_around(x, dim))

    @torch.library.register_fake("speak::bias_act_backward")
    def _(dy, y, dim, slope, gain, clamp, with_bias):  # noqa: ANN001, ANN202
        db = y.new_empty([y.shape[dim] if with_bias else 0], dtype=vector_dtype(y))
        return torch.empty_like(_dense_around(y, dim)), db

    torch.library.register_autograd("speak::bias_act", _backward, setup_context=_setup_context)
    torch.library.register_autograd(
        "speak::bias_act_backward", _backward_of_backward, setup_context=_setup_context_of_backward
    )
