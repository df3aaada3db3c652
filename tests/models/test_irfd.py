"""IRFD at preset tiny: what one exchange computes, and where its gradients go."""

import dataclasses

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from speak import losses
from speak.config import EMOTIONS, Config, preset, with_changes
from speak.models.codes import FACTORS, Codes
from speak.models.irfd import IRFD, Encoder, Exchange, Probes
from speak.models.resnet import resize_for_reading
from tests.tolerances import assert_close

TINY = preset("tiny")


@pytest.fixture(scope="module")
def irfd() -> IRFD:
    torch.manual_seed(0)
    return IRFD(TINY)


@pytest.fixture(scope="module")
def frames() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    return torch.rand(3, 3, 64, 64) * 2 - 1, torch.rand(3, 3, 64, 64) * 2 - 1


@pytest.fixture(scope="module")
def outcome(irfd: IRFD, frames: tuple[torch.Tensor, torch.Tensor]) -> Exchange:
    return irfd(*frames, torch.tensor([0, 1, 2]), noise="none")


def test_every_picture_and_code_has_its_shape_and_is_finite(outcome: Exchange) -> None:
    for picture in (outcome.self_source, outcome.self_target, outcome.picture_a, outcome.picture_b):
        assert picture.shape == (3, 3, 64, 64) and picture.isfinite().all()
        assert 0.05 < picture.std() < 2  # about the range of frames from the first step on
    for codes in (outcome.source, outcome.target, outcome.again_a, outcome.again_b):
        for factor in FACTORS:
            code = getattr(codes, factor)
            assert code.shape == (3, getattr(TINY.model, factor).code_dim) and code.isfinite().all()
        assert_close(codes.identity.norm(dim=1), torch.ones(3))
    assert outcome.emotion_logits.shape == (6, len(EMOTIONS))


def test_exchanged_pictures_are_generated_from_the_exchanged_codes(irfd: IRFD, outcome: Exchange) -> None:
    assert torch.equal(outcome.codes_a.identity[0], outcome.target.identity[0])
    assert torch.equal(outcome.codes_a.pose[0], outcome.source.pose[0])
    assert_close(irfd.generate(outcome.codes_a, "none"), outcome.picture_a)
    assert_close(irfd.generate(outcome.target, "none"), outcome.self_target)
    assert (outcome.picture_a - outcome.self_source).flatten(1).abs().amax(1).min() > 1e-3


@pytest.mark.parametrize("mode", ["frozen", "live"])
def test_encoding_again_gives_one_value_and_frozen_leaves_the_encoders_alone(irfd: IRFD, mode: str) -> None:
    torch.manual_seed(2)
    statistics = irfd.pose_encoder.norm.running_mean.clone()
    generated = (torch.rand(3, 3, 64, 64) * 2 - 1).requires_grad_()
    codes = irfd.encode_again(generated, frozen=mode == "frozen")
    irfd.zero_grad()
    sum(getattr(codes, factor).square().flatten()[:5].sum() for factor in FACTORS).backward()
    assert generated.grad.abs().max() > 0
    moved = irfd.identity_encoder.trunk.conv1.weight.grad is not None
    assert moved == (mode == "live")
    assert torch.equal(irfd.pose_encoder.norm.running_mean, statistics)
    with torch.no_grad():
        assert_close(irfd.encode_again(generated, frozen=True).pose, irfd.encode_again(generated, frozen=False).pose)


def test_generated_pictures_pull_on_the_codes_they_were_made_from(irfd: IRFD, frames: tuple) -> None:
    irfd.zero_grad()
    outcome = irfd(*frames, torch.tensor([0, 1, 2]), noise="none", again="no", self_pictures=False)
    outcome.picture_a.square().mean().backward()
    assert outcome.again_a is None and outcome.self_source is None
    for name in ("identity_encoder", "pose_encoder", "emotion_encoder", "generator"):
        for key, parameter in getattr(irfd, name).named_parameters():
            if "noise_strength" not in key:
                assert parameter.grad is not None and parameter.grad.isfinite().all(), f"{name}.{key}"
        assert any(p.grad is not None and p.grad.abs().max() > 0 for p in getattr(irfd, name).parameters())


def test_pose_and_emotion_may_be_read_from_frames_of_their_own(irfd: IRFD, frames: tuple) -> None:
    source, target = frames
    irfd.eval()
    mixed = irfd.encode(source, pose_frames=target)
    assert_close(mixed.pose, irfd.encode(target).pose)
    assert_close(mixed.emotion, irfd.encode(source).emotion)
    irfd.train()


def test_encoders_read_frames_at_their_own_size_and_codes_stay_float32_in_autocast() -> None:
    torch.manual_seed(0)
    encoder = Encoder(TINY.model.pose, unit_length=False).eval()
    small = torch.rand(2, 3, 64, 64)
    large = small.repeat_interleave(4, 2).repeat_interleave(4, 3)  # the same picture at 256x256
    assert_close(encoder(large), encoder(small))
    with torch.autocast("cpu", torch.bfloat16):
        codes = encoder(small)
    assert codes.dtype == torch.float32
    assert_close(codes, encoder(small), dtype=torch.bfloat16)


def test_each_loss_of_eq_8_moves_what_it_is_for(irfd: IRFD, frames: tuple) -> None:
    def moved(loss: torch.Tensor) -> set[str]:
        gradients = torch.autograd.grad(loss, list(irfd.parameters()), retain_graph=True, allow_unused=True)
        parts = {}
        for (name, _), gradient in zip(irfd.named_parameters(), gradients, strict=True):
            assert gradient is None or gradient.isfinite().all(), name
            reached = gradient is not None and bool(gradient.abs().max() > 0)
            parts[name.split(".")[0]] = parts.get(name.split(".")[0], False) or reached
        return {name for name, reached in parts.items() if reached}

    source, target = frames
    found = irfd(source, target, torch.tensor([0, 1, 2]), noise="none")
    a, b, again_a, again_b = found.codes_a, found.codes_b, found.again_a, found.again_b
    everything = {"identity_encoder", "pose_encoder", "emotion_encoder", "generator"}
    different = torch.tensor([False, False, False])
    identity = losses.identity_loss(again_a.identity, a.identity, b.identity, different, margin=0.05)
    assert moved(identity) == everything
    assert moved(losses.classification_loss(found.emotion_logits, torch.arange(6))) == {"emotion_encoder", "classifier"}
    assert moved(losses.pose_loss(again_a.pose, a.pose.detach(), again_b.pose, b.pose.detach())) == everything
    assert moved(losses.emotion_loss(again_a.emotion, a.emotion.detach(), again_b.emotion, b.emotion)) == everything
    assert moved(losses.self_loss(found.self_source, source, found.self_target, target)) == everything


def test_probes_learn_to_read_while_the_codes_learn_to_hide() -> None:
    torch.manual_seed(0)
    probes = Probes(TINY)
    sizes = [getattr(TINY.model, factor).code_dim for factor in FACTORS]
    identity, pose, emotion = (torch.randn(4, size) for size in sizes)
    codes = Codes(torch.nn.functional.normalize(identity, dim=1).requires_grad_(), pose, emotion)
    found = probes(codes)
    assert len(found) == 6
    read, true = found["pose_from_identity"]
    assert read.shape == true.shape == (4, sizes[1]) and not true.requires_grad
    first = probes.nets["pose_from_identity"][0]
    loss = (read - true).square().mean()
    to_code, to_weight = torch.autograd.grad(loss, [codes.identity, first.weight])

    @torch.no_grad()
    def error(identity: torch.Tensor) -> torch.Tensor:
        fused = Codes(identity, codes.pose, codes.emotion).fused("identity")
        return (probes.nets["pose_from_identity"](fused) - true).square().mean()

    assert error(codes.identity - 1e-3 * to_code) > loss  # a step down the code's gradient makes reading harder
    with torch.no_grad():
        first.weight -= 1e-3 * to_weight
    assert error(codes.identity) < loss  # and one down the probe's gradient easier


def test_probes_are_built_only_where_they_weigh_something() -> None:
    def keys(config: Config) -> set[str]:
        with FakeTensorMode():
            return {key.split(".")[0] for key in IRFD(config).state_dict()}

    assert "probes" not in keys(TINY)
    assert "probes" in keys(with_changes(TINY, {"irfd.weight_probe": "0.1"}))


def test_a_thumbnail_hands_on_the_colours_of_each_part_of_a_frame() -> None:
    encoder = Encoder(TINY.model.identity, unit_length=True).eval()
    side = TINY.model.identity.thumbnail
    torch.manual_seed(0)
    colours = torch.rand(2, 3, side, side) * 2 - 1
    frames = colours.repeat_interleave(9, 2).repeat_interleave(7, 3)  # of any size
    with torch.no_grad():
        encoder.linear.weight.zero_()
        encoder.linear.bias.zero_()
        codes = encoder(frames)
    expected = 2 * colours.flatten(1).double() @ encoder.thumbnail.weight.double().T
    assert_close(codes, expected / expected.norm(dim=1, keepdim=True), dtype=torch.float32)
    assert preset("paper").model.identity.thumbnail == 0


def test_an_encoder_with_a_grid_hands_on_where_features_are() -> None:
    plain = dataclasses.replace(TINY.model.identity, thumbnail=0)
    torch.manual_seed(0)
    encoder = Encoder(dataclasses.replace(plain, grid=2), unit_length=True).eval()
    frames = torch.randn(2, 3, 128, 128)
    with torch.no_grad():
        features = encoder.trunk(resize_for_reading(frames, plain.image_size))
        half = features.shape[-1] // 2
        quarters = [features[..., y : y + half, x : x + half] for y in (0, half) for x in (0, half)]
        numbers = torch.stack([part.double().mean((2, 3)) for part in quarters], -1).flatten(1)
        expected = numbers @ encoder.linear.weight.double().T + encoder.linear.bias.double()
        assert_close(encoder(frames), expected / expected.norm(dim=1, keepdim=True), dtype=torch.float32)
    assert preset("paper").model.identity.grid == 1
