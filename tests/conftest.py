"""What all tests share: two threads, and the backends that this machine has."""

import os
import signal

import pytest
import torch

from speak import ops

# A suite started in the background ignores SIGINT, and so would every process that its tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)
torch.set_num_threads(min(2, len(os.sched_getaffinity(0))))

COMPILED = pytest.param(
    "compiled",
    marks=pytest.mark.skipif(bool(ops.LIBRARY.missing), reason=f"no compiled library: {ops.LIBRARY.missing}"),
)


@pytest.fixture(params=["reference", COMPILED])
def backend(request: pytest.FixtureRequest):
    """Runs the test on the reference and on the compiled operators."""
    with ops.backend(request.param):
        yield request.param


@pytest.fixture
def compiled():
    """Runs the test on the compiled operators; skips where there are none."""
    if ops.LIBRARY.missing:
        pytest.skip(f"no compiled library: {ops.LIBRARY.missing}")
    with ops.backend("compiled"):
        yield
