"""Inputs and a small untrained model, made once for all tests of this folder."""

from pathlib import Path

import pytest

from speak.generation import TalkingHead, load
from tests.animate.inputs import save_model, untrained, write_inputs


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_inputs(tmp_path_factory.mktemp("inputs"))


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("weights") / "tiny.pt", untrained())


@pytest.fixture(scope="session")
def head(weights: Path) -> TalkingHead:
    return load(weights, "cpu", "float32")
