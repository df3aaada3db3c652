"""float16 with loss scaling, as older GPUs train, on a CPU: what float32 learns, overflows skipped, the norm kept."""

from pathlib import Path

import pytest
import torch

from speak.train.loop import Training
from speak.train.runs import StageFolder
from tests.small_training import small
from tests.train.test_stages import batch, build

CPU = torch.device("cpu")
SCALE = 2.0**10  # the first of 2^16 overflows here, as it does on GPUs


def begun(out: Path, dtype: torch.dtype, name: str = "irfd", scale: float = SCALE, **changes: object) -> Training:
    """A training whose loss scale has been found."""
    stage = build(name, out, **changes)
    (out / name).mkdir(parents=True, exist_ok=True)
    training = Training(stage, name, small(**changes), StageFolder(out, name), 100, CPU, dtype)
    for scaler in training.scalers:
        scaler.load_state_dict(scaler.state_dict() | {"scale": scale} if scaler.is_enabled() else {})
    return training


def weights(training: Training) -> dict[str, torch.Tensor]:
    networks = training.stage.networks.items()
    return {f"{key}.{name}": p.detach().clone() for key, network in networks for name, p in network.named_parameters()}


def norm(training: Training) -> float:
    gradients = [p.grad.flatten() for p in training.stage.phases[0].parameters if p.grad is not None]
    return float(torch.linalg.vector_norm(torch.cat(gradients)))


@pytest.mark.parametrize("name", ["judge", "irfd", "syncnet"])
def test_float16_learns_what_float32_learns(name: str, tmp_path: Path) -> None:
    samples, curves = batch(name), []
    for dtype in (torch.float32, torch.float16):
        rates = {f"{name}__learning_rate": 5e-4, "train__warm_up": 0}
        training = begun(tmp_path / str(dtype), dtype, name, **rates)
        curves.append([training.advance(samples) for _ in range(16)])
    exact, half = ([sum(found.values()) for found in curve] for curve in curves)
    assert half[0] == pytest.approx(exact[0], rel=0.01)
    # The last steps together: one alone goes up and down by a tenth, differently on every processor.
    exact_end, half_end = (sum(curve[-6:]) / 6 for curve in (exact, half))
    assert exact_end < 0.95 * exact[0]
    assert half[0] - half_end > 0.8 * (exact[0] - exact_end)


def test_a_gradient_that_overflows_is_passed_over_and_the_scale_halved(tmp_path: Path) -> None:
    training, samples = begun(tmp_path, torch.float16, scale=2.0**100), batch("irfd")
    before, scaler = weights(training), training.scalers[0]
    training.advance(samples)
    assert scaler.get_scale() == 2.0**99
    assert all(torch.equal(value, before[key]) for key, value in weights(training).items())
    scaler.load_state_dict(scaler.state_dict() | {"scale": SCALE})
    training.advance(samples)
    assert scaler.get_scale() == SCALE
    after = weights(training)
    assert sum(not torch.equal(value, before[key]) for key, value in after.items()) > len(before) / 2
    assert all(value.isfinite().all() for value in after.values())
    training.save()
    resumed = begun(tmp_path, torch.float16, scale=1.0)
    resumed.resume()
    assert resumed.scalers[0].get_scale() == SCALE and resumed.step == 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_the_gradient_of_a_step_is_cut_to_the_norm_asked_for(dtype: torch.dtype, tmp_path: Path) -> None:
    samples, norms = batch("irfd"), {}
    for clip in (0.0, 1e-3, 1e6):
        training = begun(tmp_path / str(clip), dtype, train__clip=clip)
        training.advance(samples)
        norms[clip] = norm(training)
    assert norms[1e-3] == pytest.approx(1e-3, rel=1e-3)
    assert norms[0.0] > 0.1 and norms[1e6] == pytest.approx(norms[0.0], rel=1e-6)
