"""The three codes f_I, f_P, f_E of SPEAK Sec. 3.1: held together, normalised, exchanged between two frames."""

from __future__ import annotations

import dataclasses
import math

import torch
import torch.distributed
import torch.nn.functional as F
from torch import Tensor, nn

FACTORS = ("identity", "pose", "emotion")  # a factor's number is its index here


def at_least_float32(tensor: Tensor) -> Tensor:
    """Half precisions widened, because codes and losses live in float32; float64 stays."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


@dataclasses.dataclass(frozen=True)
class Codes:
    """f_I, f_P and f_E of a batch of frames, in float32."""

    identity: Tensor  # [B, D_I], unit length
    pose: Tensor  # [B, D_P], about zero mean and unit variance over faces
    emotion: Tensor  # [B, D_E], likewise

    def fused(self, *factors: str) -> Tensor:
        """The named codes (default: all three) side by side, [B, sum of D], every number of mean square about 1.

        f_I has unit length, so its numbers are 1 / sqrt(D_I): unscaled, the wider code would start as the quieter one.
        """
        louder = self.identity * math.sqrt(self.identity.shape[-1])
        scaled = {"identity": louder, "pose": self.pose, "emotion": self.emotion}
        return torch.cat([scaled[factor] for factor in factors or FACTORS], dim=-1)

    def detach(self) -> Codes:
        return Codes(self.identity.detach(), self.pose.detach(), self.emotion.detach())

    def __getitem__(self, index: slice | Tensor) -> Codes:
        """The codes of some of the frames."""
        return Codes(self.identity[index], self.pose[index], self.emotion[index])


def concatenated(*parts: Codes) -> Codes:
    """The codes of several batches as one batch."""
    return Codes(*(torch.cat([getattr(part, factor) for part in parts]) for factor in FACTORS))


def draw_factors(
    count: int,
    generator: torch.Generator,
) -> Tensor:
    """The factor to exchange, drawn for every sample: [count] of indices into FACTORS, each with probability 1/3."""
    return torch.randint(len(FACTORS), (count,), generator=generator)


def exchange(
    source: Codes,
    target: Codes,
    factors: Tensor,  # [B], indices into FACTORS
) -> tuple[Codes, Codes]:
    """SPEAK Sec. 3.1: (A, B), where A is `source` with one factor from `target`, and B the other way round."""
    a, b = {}, {}
    for number, factor in enumerate(FACTORS):
        own, other = getattr(source, factor), getattr(target, factor)
        swap = (factors == number).to(own.device)[:, None]
        a[factor] = torch.where(swap, other, own)
        b[factor] = torch.where(swap, own, other)
    return Codes(**a), Codes(**b)


class UnitLength(nn.Module):
    """Codes divided by their length: f_I, so that the margin of SPEAK Eq. 1 is not met by scaling."""

    def forward(
        self,
        codes: Tensor,  # [B, D]
        again: bool = False,
    ) -> Tensor:
        return F.normalize(codes, dim=-1)


class CodeNorm(nn.Module):
    """Batch norm without scale and shift: f_P and f_E, so that SPEAK Eq. 3-4 are not met by shrinking codes.

    In training the statistics are those of the whole batch over all processes, and gradients pass through them: a code
    that is the same for every face is impossible. In evaluation the running statistics serve, so a batch of one is as
    good as any. `again=True` encodes with the last training batch's statistics: generated frames are measured with the
    rule that their originals set, and do not move it.
    """

    def __init__(self, dim: int, momentum: float = 0.1, eps: float = 1e-5) -> None:
        super().__init__()
        self.momentum, self.eps = momentum, eps
        for name, value, persistent in (("running", 0, True), ("batch", 0, False)):
            self.register_buffer(f"{name}_mean", torch.full((dim,), float(value)), persistent=persistent)
            self.register_buffer(f"{name}_var", torch.ones(dim), persistent=persistent)

    def forward(
        self,
        codes: Tensor,  # [B, D]
        again: bool = False,
    ) -> Tensor:
        """Normalised codes [B, D]."""
        if not self.training:
            mean, var = self.running_mean, self.running_var
        elif again:
            mean, var = self.batch_mean, self.batch_var
        else:
            if codes.shape[0] * _processes() < 2:  # one face has no variance
                return (codes - self.running_mean) * (self.running_var + self.eps).rsqrt()
            total = _sum_over_processes(torch.tensor(float(codes.shape[0]), device=codes.device, dtype=codes.dtype))
            mean = _sum_over_processes(codes.sum(0)) / total
            var = _sum_over_processes((codes - mean).square().sum(0)) / total
            with torch.no_grad():
                self.batch_mean.copy_(mean)
                self.batch_var.copy_(var)
                self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
                self.running_var.lerp_((var * total / (total - 1)).to(self.running_var.dtype), self.momentum)
        return (codes - mean) * (var + self.eps).rsqrt()


class _AllReduceSum(torch.autograd.Function):
    """Sum over processes, whose gradient is the sum of the gradients."""

    @staticmethod
    def forward(ctx: object, values: Tensor) -> Tensor:
        values = values.clone()
        torch.distributed.all_reduce(values)
        return values

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        gradient = gradient.clone()
        torch.distributed.all_reduce(gradient)
        return gradient


def _processes() -> int:
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_world_size()
    return 1


def _sum_over_processes(values: Tensor) -> Tensor:
    return _AllReduceSum.apply(values) if _processes() > 1 else values
