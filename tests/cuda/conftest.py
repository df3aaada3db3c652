"""Fixtures: the machines, and memory in which nothing passes by luck."""

from collections.abc import Iterator

import pytest
import torch
from machines import Emulated, Gpu, emulated, guarded, why_no_gpu


@pytest.fixture(scope="session", params=["emulated"] if why_no_gpu() else ["emulated", "gpu"])
def any_machine(request: pytest.FixtureRequest) -> Emulated | Gpu:
    return Gpu() if request.param == "gpu" else emulated()


@pytest.fixture
def machine(any_machine: Emulated | Gpu) -> Iterator[Emulated | Gpu]:
    with guarded(any_machine):
        yield any_machine


@pytest.fixture
def gpu() -> Gpu:
    if why := why_no_gpu():
        pytest.skip(why)
    return Gpu()


@pytest.fixture(autouse=True)
def uninitialized_memory_is_nan() -> Iterator[None]:
    """So that an output that no thread writes cannot pass by luck."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)
