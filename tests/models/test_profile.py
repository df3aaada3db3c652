"""The cost table of `doctor`, and what the presets promise."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from speak.config import PRESETS, Config, preset, with_changes
from speak.models.irfd import IRFD
from speak.models.profile import Cost, describe, describe_config, table
from speak.models.speak import Speak

SHIPPED_PARAMETERS = 12_000_000  # of preset default
SHIPPED_BYTES = 36 * 2**20  # the model, the judge and SyncNet together, in float16
WHOLE = ("E_i", "E_p", "E_e", "E_a", "editing", "G_g")


@pytest.fixture(scope="module")
def costs() -> dict[str, dict[str, Cost]]:
    return {name: {cost.part.split(" ")[0]: cost for cost in describe(name)} for name in PRESETS}


def parameters(costs: dict[str, Cost], *parts: str) -> int:
    return sum(costs[part].parameters for part in parts)


def test_the_default_whole_is_small_enough_to_ship(costs: dict[str, dict[str, Cost]]) -> None:
    default = describe("default")
    whole = sum(cost.parameters for cost in default if cost.part.startswith(WHOLE))
    measuring = sum(cost.parameters for cost in default if cost.part.startswith(("SyncNet", "judge")))
    with FakeTensorMode():
        assert whole <= sum(p.numel() for p in Speak(preset("default")).parameters()) <= SHIPPED_PARAMETERS
    assert 2 * (whole + measuring) < SHIPPED_BYTES


def test_the_paper_preset_has_the_published_parts(costs: dict[str, dict[str, Cost]]) -> None:
    paper = costs["paper"]
    resnet50 = 25_557_032 - 2048 * 1000 - 1000  # without its classifier
    for part in ("E_i", "E_p", "E_e"):
        assert paper[part].parameters == resnet50 + (2048 + 1) * 512
    assert 94.3e6 < paper["E_a"].parameters < 94.5e6  # wav2vec2-base
    assert paper["perceptual"].parameters == 20_024_384  # VGG-19


def test_multiply_adds_are_the_published_ones_of_resnet_50_at_224() -> None:
    config = with_changes(preset("paper"), {"model.identity.image_size": 224})
    cost = describe_config(config)[0]
    assert cost.multiply_adds == pytest.approx(4.09e9, rel=0.01)


def test_memory_and_work_grow_with_the_picture_and_not_with_the_batch(costs: dict[str, dict[str, Cost]]) -> None:
    tiny, default = costs["tiny"]["E_p"], costs["default"]["E_p"]
    assert default.parameters == tiny.parameters
    assert default.multiply_adds == pytest.approx(4 * tiny.multiply_adds, rel=0.01)  # 128x128 against 64x64
    assert default.activation_bytes == pytest.approx(4 * tiny.activation_bytes, rel=0.05)
    assert tiny.weight_bytes >= 4 * tiny.parameters


def test_the_table_has_a_row_a_part() -> None:
    rows = table(describe("tiny"))
    assert len({tuple(row) for row in rows}) == 1  # the same headings
    assert [row["part"].split(" ")[0] for row in rows[:6]] == list(WHOLE)
    assert rows[1]["parameters"] == "0.71 M" and rows[1]["per"] == "frame"


@pytest.mark.parametrize("name", PRESETS)
def test_the_shapes_of_every_preset_fit_together(name: str) -> None:
    config: Config = preset(name)
    size = config.model.image_size
    with FakeTensorMode():
        model, irfd = Speak(config), IRFD(config)
        pictures = torch.empty(1, 2, 3, size, size)
        frames = model(pictures[:, 0], pictures, pictures, torch.empty(1, 6000), seeds=[0])
        assert frames.shape == (1, 2, 3, size, size)
        frames.sum().backward()
        found = irfd(pictures[0], pictures[0], torch.empty(2, dtype=torch.long), noise="none")
        assert found.picture_a.shape == (2, 3, size, size)
        total = found.picture_a.sum() + found.again_a.pose.sum() + found.emotion_logits.sum()
        if irfd.pose_reader is not None:
            total = total + irfd.pose_reader(found.source.pose).sum()
        total.backward()
    for module in (model, irfd):
        without = {key for key, parameter in module.named_parameters() if parameter.grad is None}
        assert not {key for key in without if not key.startswith("pose_mapper") and "noise" not in key}
