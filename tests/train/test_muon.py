"""Muon against torch's own, against Adam, against a singular value decomposition."""

import pytest
import torch

from speak.train.muon import _SIZE, Muon, is_matrix, orthogonalised


def layers() -> torch.nn.Sequential:
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 12, 3), torch.nn.ReLU(), torch.nn.GroupNorm(2, 12), torch.nn.Conv1d(12, 4, 5),
        torch.nn.Flatten(), torch.nn.Linear(8, 5),
    )  # fmt: skip


@pytest.mark.parametrize("shape", [(5, 40), (40, 5), (16, 16), (1, 9)])
def test_orthogonalised_keeps_the_directions_and_levels_the_singular_values(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(3)) * 1e3
    left, _, right = torch.linalg.svd(matrix.double(), full_matrices=False)
    inside = left.T @ orthogonalised(matrix).double() @ right.T
    assert 0.65 < inside.diagonal().min() and inside.diagonal().max() < 1.25
    assert (inside - inside.diagonal().diag()).abs().max() < 1e-4


def test_a_matrix_of_few_directions_or_of_nothing_gives_finite_numbers() -> None:
    ramp = torch.arange(1.0, 9.0)
    assert torch.linalg.svdvals(orthogonalised(torch.outer(ramp, ramp)))[0] == pytest.approx(1, abs=0.35)
    assert torch.equal(orthogonalised(torch.zeros(3, 7)), torch.zeros(3, 7))


def test_steps_of_matrices_are_those_of_torch_and_of_all_else_those_of_adam() -> None:
    ours, theirs = layers(), layers()
    matrices = [p for p in theirs.parameters() if is_matrix(p)]
    flat = [torch.nn.Parameter(p.detach().flatten(1).clone()) for p in matrices]
    rest = [p for p in theirs.parameters() if not is_matrix(p)]
    assert len(matrices) == 2 and len(rest) == 6
    rate = 3e-3
    muon = torch.optim.Muon(flat, rate * _SIZE / 0.2, weight_decay=0.0, adjust_lr_fn="match_rms_adamw")
    adam = torch.optim.Adam(rest, rate, (0.9, 0.99), 1e-8)
    optimizer = Muon(ours.parameters(), rate)
    before = [p.detach().clone() for p in ours.parameters()]
    for step in range(4):
        for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
            p.grad = torch.randn(p.shape, generator=torch.Generator().manual_seed(step))
            q.grad = p.grad.clone()
        for p, q in zip(flat, matrices, strict=True):
            p.grad = q.grad.flatten(1)
        for one in (optimizer, muon, adam):
            one.step()
    with torch.no_grad():
        for p, q in zip(flat, matrices, strict=True):
            q.copy_(p.reshape(q.shape))
    for p, q, start in zip(ours.parameters(), theirs.parameters(), before, strict=True):
        moved = (p - start).norm()
        # torch orthogonalises in bfloat16
        assert (p - q).norm() < moved * (0.02 if is_matrix(p) else 1e-5)


def test_it_goes_on_from_its_state_as_if_it_had_not_stopped() -> None:
    runs = []
    for stop in (False, True):
        network = layers()
        optimizer = Muon([{"params": list(network.parameters()), "share": 1.0}], 1e-2)
        for step in range(4):
            if stop and step == 2:
                state = optimizer.state_dict()
                optimizer = Muon([{"params": list(network.parameters()), "share": 1.0}], 1e-2)
                optimizer.load_state_dict(state)
            for p in network.parameters():
                p.grad = torch.randn(p.shape, generator=torch.Generator().manual_seed(step))
            optimizer.step()
        runs.append([p.detach() for p in network.parameters()])
    assert all(torch.equal(p, q) for p, q in zip(*runs, strict=True))
