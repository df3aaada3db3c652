"""The one table of tolerances: how far a result may be from an independent one, by dtype. Never loosened by test."""

from __future__ import annotations

import torch
from torch import Tensor

# dtype -> relative to the largest magnitude of the expected tensor
TOLERANCE = {
    torch.float64: 1e-10,
    torch.float32: 1e-5,
    torch.bfloat16: 1.6e-2,
    torch.float16: 2e-3,
}


def assert_close(
    actual: Tensor,  # any shape
    expected: Tensor,  # the same shape; of any, usually higher, precision
    dtype: torch.dtype | None = None,  # whose tolerance holds; default: that of `actual`
) -> None:
    """Asserts equal shapes and max |actual - expected| <= tolerance(dtype) * max(1, max |expected|)."""
    assert actual.shape == expected.shape, f"{tuple(actual.shape)} is not {tuple(expected.shape)}"
    if actual.numel() == 0:
        return
    actual64, expected64 = actual.detach().double().cpu(), expected.detach().double().cpu()
    error = (actual64 - expected64).abs().max().item()
    bound = TOLERANCE[dtype or actual.dtype] * max(1.0, expected64.abs().max().item())
    assert error <= bound, f"off by {error:.3g}, allowed {bound:.3g}"
