"""The configuration: defaults, presets, changes from the command line, and the way into a checkpoint and back."""

import dataclasses
import json
from fractions import Fraction

import pytest

from speak import config
from speak.config import (
    PRESETS,
    Config,
    from_dict,
    parse_settings,
    preset,
    sample_of_frame,
    to_dict,
    with_changes,
)
from speak.errors import SpeakError


def test_frames_start_at_the_nearest_sample() -> None:
    for frame in [*range(100), 30 * 3600]:
        exact = Fraction(frame * 16000, 30)
        assert abs(sample_of_frame(frame) - exact) <= Fraction(1, 2)
    assert sample_of_frame(30 * 3600) == 16000 * 3600


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_survives_the_way_through_a_checkpoint_and_json(name: str) -> None:
    wanted = preset(name)
    assert wanted.preset == name
    assert from_dict(to_dict(wanted)) == wanted
    assert from_dict(json.loads(json.dumps(to_dict(wanted)))) == wanted


def test_a_preset_differs_from_the_defaults_only_where_its_table_says() -> None:
    def flat(values: dict, prefix: str = "") -> dict:
        found = {}
        for key, value in values.items():
            found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
        return found

    defaults = flat(to_dict(Config()))
    for name, changes in PRESETS.items():
        differing = {key for key, value in flat(to_dict(preset(name))).items() if value != defaults[key]}
        assert differing - {"preset"} <= set(changes), name


def test_no_preset_repeats_a_default() -> None:
    for name, changes in PRESETS.items():
        for key, value in changes.items():
            assert with_changes(Config(), {key: value}) != Config(), f"{name}: {key} is {value} already"


def test_settings_of_the_command_line_are_read_as_the_fields_types() -> None:
    settings = parse_settings([
        "irfd.weight_identity=0", "irfd.detach_targets=no", "model.pose.code_dim=16", "model.pose.norm=batch",
        "model.perceptual.layers=layer1,layer4", "model.audio.attention_window=none",
    ])  # fmt: skip
    changed = with_changes(preset("default"), settings)
    assert changed.irfd.weight_identity == 0.0 and changed.irfd.detach_targets is False
    assert changed.model.pose == dataclasses.replace(preset("default").model.pose, code_dim=16, norm="batch")
    assert changed.model.perceptual.layers == ("layer1", "layer4")
    assert changed.model.audio.attention_window is None
    assert changed.model.identity == preset("default").model.identity


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("irfd.weight_idenity=0", "unknown configuration key 'irfd.weight_idenity'"),
        ("irfd=0", "is a group: set one of its fields"),
        ("irfd.margin.alpha=1", "'margin' has no fields"),
        ("irfd.margin=wide", "wants float, not 'wide'"),
        ("model.pose.code_dim=2.5", "wants int, not '2.5'"),
        ("irfd.detach_targets=perhaps", "wants bool"),
        ("irfd.margin", "write it as key=value"),
    ],
)
def test_a_setting_that_does_not_fit_is_one_line_that_says_why(setting: str, message: str) -> None:
    with pytest.raises(SpeakError) as caught:
        with_changes(preset("tiny"), parse_settings([setting]))
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_an_unknown_preset_or_key_of_a_checkpoint_is_refused() -> None:
    with pytest.raises(SpeakError, match="choose from default, paper, tiny"):
        preset("papre")
    with pytest.raises(SpeakError, match="unknown configuration key 'widht' in EncoderConfig"):
        from_dict({"model": {"pose": {"widht": 3}}})


def test_the_preset_of_the_paper_says_what_the_paper_says() -> None:
    paper = preset("paper")
    assert paper.model.image_size == 256
    assert {encoder.depth for encoder in (paper.model.identity, paper.model.pose, paper.model.emotion)} == {50}
    assert (paper.model.audio.width, paper.model.audio.layers) == (768, 12)
    assert len(config.EMOTIONS) == 8 and list(config.EMOTIONS) == sorted(config.EMOTIONS)
