"""The codes: normalisation against torch's own, exchange by hand, statistics over processes."""

import multiprocessing
from pathlib import Path

import torch
import torch.distributed
import torch.nn.functional as F

from speak.models.codes import FACTORS, CodeNorm, Codes, UnitLength, draw_factors, exchange
from tests.tolerances import assert_close


def codes_of(count: int, seed: int) -> Codes:
    generator = torch.Generator().manual_seed(seed)
    return Codes(*(torch.randn(count, width, generator=generator) for width in (5, 3, 4)))


def test_training_normalises_as_a_batch_norm_without_scale_and_so_do_its_gradients() -> None:
    torch.manual_seed(0)
    norm = CodeNorm(4).double()
    raw = (torch.randn(6, 4, dtype=torch.float64) * 5 + 2).requires_grad_()
    copy = raw.detach().clone().requires_grad_()
    mean, var = torch.zeros(4, dtype=torch.float64), torch.ones(4, dtype=torch.float64)
    weight = torch.randn(6, 4, dtype=torch.float64)
    codes, expected = norm(raw), F.batch_norm(copy, mean, var, training=True)
    (codes * weight).sum().backward()
    (expected * weight).sum().backward()
    assert_close(codes, expected)
    assert_close(raw.grad, copy.grad)
    assert_close(norm.running_mean, mean)
    assert_close(norm.running_var, var)


def test_in_evaluation_a_face_has_the_same_code_alone_and_in_a_batch() -> None:
    torch.manual_seed(0)
    norm = CodeNorm(4)
    for _ in range(5):
        norm(torch.randn(8, 4) * 3 + 1)
    norm.eval()
    raw = torch.randn(5, 4)
    assert_close(norm(raw)[2:3], norm(raw[2:3]))
    assert_close(norm(raw), F.batch_norm(raw, norm.running_mean, norm.running_var))


def test_a_training_batch_of_one_face_stays_finite_and_moves_nothing() -> None:
    norm = CodeNorm(3)
    norm(torch.randn(8, 3) * 2)
    before = norm.running_var.clone()
    raw = torch.randn(1, 3)
    assert_close(norm(raw), F.batch_norm(raw, norm.running_mean, norm.running_var))
    assert torch.equal(norm.running_var, before)


def test_generated_frames_are_measured_by_the_rule_of_their_originals() -> None:
    torch.manual_seed(0)
    norm = CodeNorm(4)
    raw = torch.randn(8, 4) * 3 + 1
    codes, running = norm(raw), norm.running_mean.clone()
    assert_close(norm(raw * 0.5, again=True), (raw * 0.5 - raw.mean(0)) / (raw.var(0, correction=0) + 1e-5).sqrt())
    assert_close(norm(raw, again=True), codes)
    assert torch.equal(norm.running_mean, running)


def test_shrinking_or_merging_codes_does_not_shrink_what_comes_out() -> None:
    raw = torch.randn(16, 4, dtype=torch.float64) * 1e-2 + 7
    variance = raw.var(0, correction=0)
    assert_close(CodeNorm(4).double()(raw).var(0, correction=0), variance / (variance + 1e-5))
    lengths = UnitLength()(torch.randn(5, 8) * 1e-3).norm(dim=1)
    assert_close(lengths, torch.ones(5))


def test_exchange_swaps_just_the_factor_drawn_for_each_sample() -> None:
    source, target = codes_of(3, 1), codes_of(3, 2)
    a, b = exchange(source, target, torch.tensor([0, 1, 2]))
    for sample, swapped in enumerate(FACTORS):
        for factor in FACTORS:
            first, second = (source, target) if factor != swapped else (target, source)
            assert torch.equal(getattr(a, factor)[sample], getattr(first, factor)[sample])
            assert torch.equal(getattr(b, factor)[sample], getattr(second, factor)[sample])


def test_factors_come_from_the_seed_and_each_is_as_likely() -> None:
    drawn = draw_factors(3000, torch.Generator().manual_seed(5))
    assert torch.equal(drawn, draw_factors(3000, torch.Generator().manual_seed(5)))
    assert torch.bincount(drawn, minlength=3).min() > 900 and len(drawn.unique()) == 3


def test_a_fused_identity_is_as_loud_as_the_other_codes() -> None:
    identity = F.normalize(torch.randn(4, 256), dim=1)
    codes = Codes(identity, torch.ones(4, 3), torch.zeros(4, 2))
    fused = codes.fused()
    assert_close(fused[:, :256].square().mean(1), torch.ones(4))
    assert torch.equal(fused[:, 256:], torch.cat([codes.pose, codes.emotion], 1))
    assert torch.equal(codes.fused("emotion", "pose"), torch.cat([codes.emotion, codes.pose], 1))


def _normalise_half(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    raw, weight = _batch()
    mine = slice(rank * 3, rank * 3 + 3)
    raw = raw[mine].requires_grad_()
    norm = CodeNorm(4).double()
    codes = norm(raw)
    (codes * weight[mine]).sum().backward()
    torch.save((codes.detach(), raw.grad, norm.running_var), f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


def _batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return tuple(torch.randn(6, 4, dtype=torch.float64, generator=generator) * 2 + 1 for _ in range(2))


def test_two_processes_normalise_as_one_with_the_whole_batch(tmp_path: Path) -> None:
    raw, weight = _batch()
    raw.requires_grad_()
    norm = CodeNorm(4).double()
    codes = norm(raw)
    (codes * weight).sum().backward()
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_normalise_half, args=(rank, str(tmp_path))) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    halves = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    assert_close(torch.cat([half[0] for half in halves]), codes)
    assert_close(torch.cat([half[1] for half in halves]), raw.grad)
    assert_close(halves[1][2], norm.running_var)
