"""Muon (Jordan et al. 2024): the momentum of a weight matrix is orthogonalised, all its directions move alike.

Ours, in stages `audio`, `irfd` and `speak`: what Adam learns in the first minutes it learns in half of them (the
figures are in examples/default_weights.py). Preset `paper` has Adam.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

# x <- (a + b x x^T + c (x x^T)^2) x brings singular values near 1 from far below in five rounds (Jordan's constants).
_ROUNDS = ((3.4445, -4.7750, 2.0315),) * 5
_SIZE = 0.6  # root mean square of a matrix' step, in learning rates: the best of 0.3, 0.6 and 1 (default_weights.py)


class Muon(torch.optim.Optimizer):
    """Orthogonalised momentum for weights of linear and of 2-D convolution layers, Adam for all other parameters.

    Args:
        params: parameters or groups of them.
        lr: learning rate, for Adam's parameters as usual.
        betas, eps: Adam's.
        momentum: of the matrices' gradients (Nesterov's).
    """

    def __init__(
        self, params: Iterable[Any], lr: float, betas: tuple[float, float] = (0.9, 0.99), eps: float = 1e-8,
        momentum: float = 0.95,
    ) -> None:  # fmt: skip
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:
        """One step along the gradients; a parameter without one stays."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    move = _matrix_step if is_matrix(parameter) else _adam_step
                    move(parameter, self.state[parameter], group)


def is_matrix(parameter: Tensor) -> bool:
    """Whether it is a linear layer's weight [out, in] or a convolution's [out, in, h, w], with more than one row."""
    return parameter.ndim in (2, 4) and len(parameter) > 1 and parameter[0].numel() > 1


def orthogonalised(
    matrix: Tensor,  # [m, n]
) -> Tensor:
    """The matrix with all its singular values near 1 (0.7 to 1.2; those below a thousandth of the norm less).

    The iteration runs on x x^T, which is small where one side is: m x m products but for the first and the last.
    """
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / x.norm().clamp(min=1e-30)
    gram = x @ x.T
    product = None
    for a, b, c in _ROUNDS:
        step = torch.addmm(gram, gram, gram, beta=b, alpha=c)
        step.diagonal().add_(a)
        product = step if product is None else step @ product
        gram = step @ step @ gram
    x = product @ x
    return x.T if tall else x


def _matrix_step(parameter: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
    gradient = parameter.grad
    if not state:
        state["momentum"] = torch.zeros_like(parameter)
    average = state["momentum"].lerp_(gradient, 1 - group["momentum"])
    ahead = gradient.lerp(average, group["momentum"])
    step = orthogonalised(ahead.reshape(len(parameter), -1).float())
    size = _SIZE * max(step.shape) ** 0.5  # an orthogonal [m, n] has root mean square max(m, n)^-0.5
    parameter.add_(step.reshape(parameter.shape), alpha=-group["lr"] * size)


def _adam_step(parameter: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
    gradient, (beta1, beta2) = parameter.grad, group["betas"]
    if not state:
        state.update(step=0, mean=torch.zeros_like(parameter), square=torch.zeros_like(parameter))
    state["step"] += 1
    mean = state["mean"].lerp_(gradient, 1 - beta1)
    square = state["square"].lerp_(gradient.square(), 1 - beta2)
    scale = (square / (1 - beta2 ** state["step"])).sqrt_().add_(group["eps"])
    parameter.addcdiv_(mean, scale, value=-group["lr"] / (1 - beta1 ** state["step"]))
