from pathlib import Path

import pytest
import torch

from speak.train.command import run_stage
from tests.small_training import small


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with two steps of every stage before `speak`."""
    out = tmp_path_factory.mktemp("run")
    for name in ("perceptual", "audio", "irfd", "syncnet"):
        run_stage(name, small(), "synthetic:3", out, torch.device("cpu"), steps=2, batch=4)
    return out
