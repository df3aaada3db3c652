"""The stages: what they learn, what each of their switches does, what they make of earlier stages."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from speak import checkpoint, losses, ops
from speak.checkpoint import load_into
from speak.config import PRESETS, from_dict, preset
from speak.datasets.rendered import RenderedData, fresh
from speak.errors import SpeakError
from speak.models.codes import Codes
from speak.models.recompute import recompute_blocks
from speak.models.speak import Speak
from speak.train.command import STAGES, run_stage
from speak.train.controls import fit_controls
from speak.train.face_weight import face_weight
from speak.train.grow import load_or_grow
from speak.train.stage import noise_maps
from speak.train.warm_start import irfd_from_speak
from tests.small_training import batch, build, small
from tests.tolerances import assert_close

CPU = torch.device("cpu")


@pytest.mark.parametrize("name", ["judge", "audio", "irfd", "syncnet"])
def test_a_stage_learns_one_batch_by_heart(name: str, tmp_path: Path) -> None:
    stage, samples = build(name, tmp_path), batch(name)
    phase = stage.phases[0]
    optimizer = torch.optim.Adam(phase.parameters, lr=3e-3)
    values = []
    for _ in range(40):
        optimizer.zero_grad()
        total = losses.total_loss(phase.losses(samples, {}), phase.weights)
        total.backward()
        optimizer.step()
        values.append(float(total.detach()))
    assert values[-1] < 0.8 * values[0]


def test_the_whole_model_learns_one_batch_by_heart(trained: Path) -> None:
    changes = {"speak__weight_adversarial": 0.0, "speak__weight_sync": 0.0, "speak__weight_reading": 0.0,
               "speak__warm_generator": False}  # fmt: skip
    stage, samples = build("speak", trained, **changes), batch("speak")
    phase = stage.phases[0]
    optimizer = torch.optim.Adam(phase.parameters, lr=3e-3)  # at 1e-2, unclipped, what bends the photo goes astray
    values = []
    for _ in range(100):
        optimizer.zero_grad()
        found = phase.losses(samples, {})
        losses.total_loss(found, phase.weights).backward()
        optimizer.step()
        values.append(float(found["pixel"].detach()))
    assert values[-1] < 0.6 * values[0]


def test_without_editing_the_global_generator_begins_as_the_disentangling_one(trained: Path) -> None:
    model = build("speak", trained).networks["speak"].eval()
    irfd = build("irfd", trained).networks["irfd"].eval()
    load_into(irfd, checkpoint.load(trained / "irfd" / "weights.pt")["models"]["irfd"], "irfd")
    with torch.no_grad():
        codes = irfd.encode(batch("irfd").source)
        codes = Codes(codes.identity, codes.pose, torch.zeros_like(codes.emotion))
        levels, width = model.generator.synthesis.num_styles, model.generator.additions.weights[0].shape[1]
        edited = torch.zeros(len(codes.pose), levels, width)
        torch.testing.assert_close(model.generator(codes, edited, "none"), irfd.generator(codes, "none"))


def test_irfd_goes_on_from_the_weights_of_speak(trained: Path, tmp_path: Path) -> None:
    run_stage("speak", small(speak__weight_adversarial=0.0), "synthetic:3", trained, CPU, steps=1, batch=4)
    shipped = trained / "speak" / "weights.pt"
    model = build("speak", trained).networks["speak"].eval()
    load_into(model, checkpoint.load(shipped)["models"]["speak"], shipped)
    irfd = build("irfd", tmp_path).networks["irfd"].eval()
    irfd_from_speak(irfd, checkpoint.load(shipped)["models"]["speak"], shipped)
    with torch.no_grad():
        codes = irfd.encode(batch("irfd").source)
        codes = Codes(codes.identity, codes.pose, torch.zeros_like(codes.emotion))
        levels, width = model.generator.synthesis.num_styles, model.generator.additions.weights[0].shape[1]
        edited = torch.zeros(len(codes.pose), levels, width)
        model.generator.additions.biases[0].zero_()
        torch.testing.assert_close(model.generator(codes, edited, "none"), irfd.generator(codes, "none"))
    # And speak, begun as those weights beside another irfd, takes its encoders from that irfd.
    alone = {"speak__weight_adversarial": 0.0, "speak__weight_sync": 0.0, "speak__weight_perceptual": 0.0,
             "speak__weight_reading": 0.0}  # fmt: skip
    run_stage("irfd", small(train__seed=5), "synthetic:3", tmp_path, CPU, steps=1, batch=4)
    run_stage("speak", small(**alone), "synthetic:3", tmp_path, CPU, steps=1, batch=4, init=str(shipped))
    begun, other = (checkpoint.load(tmp_path / stage / "weights.pt")["models"][stage] for stage in ("speak", "irfd"))
    assert torch.equal(begun["pose_encoder.linear.weight"], other["pose_encoder.linear.weight"])
    torch.testing.assert_close(begun["editing.blocks.0.linear.weight"], model.editing.blocks[0].linear.weight,
                               rtol=0, atol=0.01)  # fmt: skip
    with pytest.raises(SpeakError, match="holds stage speak, not judge"):
        run_stage("judge", small(), "synthetic:3", tmp_path, CPU, steps=1, batch=4, init=str(shipped))


def test_encoders_begin_as_the_perceptual_net_where_there_is_one(trained: Path, tmp_path: Path) -> None:
    state = checkpoint.load(trained / "perceptual" / "weights.pt")["models"]["judge"]
    taken, new = (build("irfd", run).networks["irfd"].pose_encoder.trunk.conv1.weight for run in (trained, tmp_path))
    assert torch.equal(taken, state["trunk.conv1.weight"]) and not torch.equal(taken, new)


def test_what_syncnet_sees_mouths_with_begins_as_the_perceptual_net(trained: Path, tmp_path: Path) -> None:
    known = build("syncnet", trained).networks["syncnet"].video
    state = checkpoint.load(trained / "perceptual" / "weights.pt")["models"]["judge"]
    assert torch.equal(known.layer4[1].conv2.weight, state["trunk.layer4.1.conv2.weight"])
    still = torch.randn(1, 3, 32, 64)
    wanted = torch.nn.functional.conv2d(still, state["trunk.conv1.weight"], stride=2, padding=3)
    torch.testing.assert_close(known.conv1(still.repeat(1, 5, 1, 1)), wanted)
    new = build("syncnet", tmp_path).networks["syncnet"].video
    assert not torch.equal(new.layer4[1].conv2.weight, known.layer4[1].conv2.weight)


def test_features_and_readings_of_generated_frames_come_from_one_pass(trained: Path) -> None:
    stage = build("speak", trained)
    net = stage.phases[0].losses.__self__.features.net
    passes = []
    net.trunk.conv1.register_forward_hook(lambda *_: passes.append(1))
    found = stage.phases[0].losses(batch("speak"), {})
    assert len(passes) == 2 and found["reading"] > 0 and found["perceptual"] > 0  # generated frames, true frames


def test_probes_are_asked_for_what_the_pictures_that_encoders_read_show(trained: Path) -> None:
    samples = batch("irfd")
    asked = {}
    for source in ("own", "other"):
        stage = build("irfd", trained, irfd__weight_probe=0.1, irfd__pose_source=source)
        step, probes = stage.phases[0].losses.__self__, stage.networks["irfd"].probes
        found = step.exchange(samples, again=False)
        probes.register_forward_hook(lambda _, given, read: asked.update(given=given, read=read))
        step._probe(samples, found)
        wanted = (found.source, found.target) if source == "own" else (found.target, found.source)
        assert torch.equal(asked["read"]["emotion_from_pose"][1], torch.cat([codes.emotion for codes in wanted]))


@pytest.mark.parametrize("source", ["own", "other"])
@pytest.mark.parametrize("factor, own", [("identity", "identity_frame"), ("emotion", "emotion_frames")])
def test_stage_speak_reads_a_code_from_the_frames_that_the_setting_names(
    factor: str, own: str, source: str, trained: Path
) -> None:
    stage, samples = build("speak", trained, **{f"speak__{factor}_source": source}), batch("speak")
    step = stage.phases[0].losses.__self__
    place = ("identity", "pose", "emotion").index(factor)
    other = f"{own}_other"
    encode = getattr(stage.networks["speak"].eval(), f"encode_{factor}")
    with torch.no_grad():
        for as_in_use, read in ((False, own if source == "own" else other), (True, own)):
            wanted = encode(getattr(samples, read))
            wanted = wanted.mean(1, keepdim=True) if factor == "emotion" else wanted
            assert_close(step.codes(samples, own=as_in_use)[place], wanted)
        setattr(samples, other, None)  # a corpus has no such pictures
        assert_close(step.codes(samples)[place], wanted)


@pytest.mark.parametrize("name", ["identity", "classification", "pose", "emotion", "self", "cross", "angles"])
def test_every_loss_of_irfd_can_be_switched_off(name: str, tmp_path: Path) -> None:
    stage = build("irfd", tmp_path, **{f"irfd__weight_{name}": 0.0})
    found = stage.phases[0].losses(batch("irfd"), {})
    assert name not in found and len(found) == 6
    losses.total_loss(found, stage.phases[0].weights).backward()


def test_irfd_without_self_and_cross_has_nothing_to_compare_before_the_code_losses_join_in(trained: Path) -> None:
    bare = {"irfd__weight_self": 0.0, "irfd__weight_cross": 0.0, "irfd__code_losses_from": 0.5}
    found = build("irfd", trained, **bare).phases[0].losses(batch("irfd"), {"progress": 0.0})
    assert found["classification"] > 0 and found["pose"] == 0
    read = build("irfd", trained, **bare, irfd__weight_reading=0.1).phases[0].losses(batch("irfd"), {"progress": 0.0})
    assert read["reading"] > 0


def test_the_perceptual_net_of_irfd_is_asked_once_there_are_pictures(trained: Path) -> None:
    late = {"irfd__weight_perceptual": 0.1, "irfd__weight_reading": 0.1, "irfd__perceptual_from": 0.5}
    stage = build("irfd", trained, **late)
    before, after = (stage.phases[0].losses(batch("irfd"), {"progress": share}) for share in (0.49, 0.5))
    assert before["perceptual"] == before["reading"] == 0
    assert after["perceptual"] > 0 and after["reading"] > 0
    losses.total_loss(before, stage.phases[0].weights).backward()


SPEAK_LOSSES = ["adversarial", "sync", "perceptual", "reading", "pixel", "unaided", "bent"]


@pytest.mark.parametrize("name", SPEAK_LOSSES)
def test_every_loss_of_speak_can_be_switched_off(name: str, trained: Path) -> None:
    stage = build("speak", trained, **{f"speak__weight_{name}": 0.0})
    memory: dict = {}
    found = stage.phases[0].losses(batch("speak"), memory)
    assert set(found) == set(SPEAK_LOSSES) - {name}
    assert len(stage.phases) == (1 if name == "adversarial" else 2)


def test_optional_losses_work(trained: Path) -> None:
    pair = build("irfd", trained, irfd__weight_probe=0.1, irfd__weight_perceptual=0.1, irfd__weight_adversarial=0.1,
                 irfd__weight_reading=0.1, irfd__discriminator_r1=1.0)  # fmt: skip
    window = build("speak", trained, speak__weight_path_length=0.1, speak__discriminator_r1=1.0,
                   speak__weight_feature_matching=1.0)  # fmt: skip
    for stage, name in ((pair, "irfd"), (window, "speak")):
        memory: dict = {}
        samples = batch(name)
        for phase in stage.phases:
            found = phase.losses(samples, memory)
            losses.total_loss(found, phase.weights).backward()
            assert all(torch.isfinite(value) for value in found.values())
    assert window.networks["path_length"].mean > 0


def test_features_of_d_are_matched_without_the_gan_term_too(trained: Path) -> None:
    stage = build("speak", trained, speak__weight_adversarial=0.0, speak__weight_feature_matching=1.0)
    assert [phase.name for phase in stage.phases] == ["speak", "discriminator"]
    memory: dict[str, Any] = {}
    found = stage.phases[0].losses(batch("speak"), memory)
    assert found["feature_matching"] > 0 and "adversarial" not in found
    found["feature_matching"].backward()
    model, discriminator = stage.networks["speak"], stage.networks["discriminator"]
    assert all(weight.grad is not None for weight in model.generator.additions.parameters())
    assert "discriminator" in stage.phases[1].losses(batch("speak"), memory)
    assert discriminator.scales[0].logits.weight.grad is None  # the features are below the logits


def test_irfd_ends_with_poses_in_numbers_and_emotions_by_name(trained: Path) -> None:
    content = checkpoint.load(trained / "irfd" / "weights.pt")
    weights = content["models"]["irfd"]
    assert bool(weights["pose_mapper.fitted"]) and int(weights["emotion_prototypes.known"].sum()) > 3
    assert from_dict(content["config"]) == small()


def test_the_weights_of_a_run_make_a_model(trained: Path, tmp_path: Path) -> None:
    for stage in ("perceptual", "audio", "irfd", "syncnet"):
        (tmp_path / stage).mkdir()
        (tmp_path / stage / "weights.pt").write_bytes((trained / stage / "weights.pt").read_bytes())
    run_stage("speak", small(), "synthetic:3", tmp_path, CPU, steps=2, batch=4)
    content = checkpoint.load(tmp_path / "speak" / "weights.pt")
    model = Speak(from_dict(content["config"]))
    checkpoint.load_into(model, content["models"]["speak"], "weights")
    assert model.pose_from_numbers(torch.zeros(6)).shape == (8,)
    rows = [json.loads(line) for line in (tmp_path / "speak" / "log.jsonl").read_text().splitlines()]
    assert rows[-1]["held_out_db"] > 0 and list((tmp_path / "speak" / "pictures").glob("*.png"))


def test_a_wider_generator_begins_with_the_same_pictures_and_its_new_channels_learn(
    trained: Path, tmp_path: Path,
) -> None:
    content = checkpoint.load(trained / "irfd" / "weights.pt")
    narrow, wide = (build("irfd", tmp_path, **more)
                    for more in ({}, {"model__generator__channel_base": 256, "model__generator__channel_max": 16}))
    for stage in (narrow, wide):
        load_or_grow(stage.networks["irfd"], content["models"]["irfd"], "weights")
        stage.networks["irfd"].eval()
    one, other = (stage.networks["irfd"] for stage in (narrow, wide))
    assert other.generator.synthesis.convolutions[-1].weight.shape[:2] == (16, 16)
    codes = one.encode(batch("irfd", 2).source)
    pictures = [model.generate(codes, "none") for model in (one, other)]
    torch.testing.assert_close(*pictures, rtol=1e-4, atol=1e-5)
    pictures[1].square().sum().backward()
    new = other.generator.synthesis.convolutions[-1].weight.grad[:8, 8:]
    assert new.abs().sum() > 0
    with pytest.raises(SpeakError, match="synthesis"):  # never narrower
        load_or_grow(one, other.state_dict(), "weights")


def test_a_larger_picture_begins_as_the_smaller_one_enlarged(trained: Path, tmp_path: Path) -> None:
    content = checkpoint.load(trained / "irfd" / "weights.pt")
    small_stage, large = build("irfd", tmp_path), build("irfd", tmp_path, model__image_size=32)
    for stage in (small_stage, large):
        load_or_grow(stage.networks["irfd"], content["models"]["irfd"], "weights")
        stage.networks["irfd"].eval()
    samples = batch("irfd", 2)
    with torch.no_grad():
        codes = small_stage.networks["irfd"].encode(samples.source)
        one, other = (stage.networks["irfd"].generate(codes, "none") for stage in (small_stage, large))
    assert other.shape[-1] == 32
    enlarged = torch.nn.functional.avg_pool2d(other, 2)[:, :, 2:-2, 2:-2]
    assert (enlarged - one[:, :, 2:-2, 2:-2]).abs().mean() < 0.1 * (one - one.mean()).abs().mean()
    with pytest.raises(SpeakError, match="does not fit"):
        load_or_grow(build("irfd", tmp_path, model__pose__code_dim=6).networks["irfd"], content["models"]["irfd"], "w")


def test_weights_without_a_thumbnail_begin_as_what_they_were(tmp_path: Path) -> None:
    before = build("irfd", tmp_path, model__identity__thumbnail=0).networks["irfd"].eval()
    speak = Speak(small(model__identity__thumbnail=0))
    for kind in ("irfd", "speak"):
        after = build("irfd", tmp_path).networks["irfd"].eval()
        assert after.identity_encoder.thumbnail.weight.abs().max() > 0
        if kind == "irfd":
            load_or_grow(after, before.state_dict(), "weights")
        else:
            irfd_from_speak(after, speak.state_dict(), "weights")
        older = before if kind == "irfd" else speak.eval()
        frames = batch("irfd").source
        with torch.no_grad():
            assert_close(after.identity_encoder(frames), older.identity_encoder(frames))


def test_an_encoder_that_gets_a_grid_begins_as_what_it_was(tmp_path: Path) -> None:
    before = build("irfd", tmp_path, model__identity__grid=1).networks["irfd"].eval()
    after = build("irfd", tmp_path, model__identity__grid=2).networks["irfd"].eval()
    load_or_grow(after, before.state_dict(), "weights")
    frames = batch("irfd").source
    with torch.no_grad():
        assert_close(after.identity_encoder(frames), before.identity_encoder(frames))
    with pytest.raises(SpeakError, match="another shape"):  # a grid is not grown from another grid
        load_or_grow(build("irfd", tmp_path, model__identity__grid=4).networks["irfd"], after.state_dict(), "weights")


def test_noise_depends_on_the_sample_and_not_on_the_batch() -> None:
    shapes = [(4, 4), (8, 8)]
    both, one = noise_maps(torch.tensor([5, 9]), shapes, 2), noise_maps(torch.tensor([9]), shapes)
    assert [tuple(part.shape) for part in both] == [(4, 1, 4, 4), (4, 1, 8, 8)]
    for wide, narrow in zip(both, one, strict=True):
        assert torch.equal(wide[1], narrow[0]) and torch.equal(wide[3], narrow[0])
        assert not torch.equal(wide[0], wide[1])


def test_eyes_and_mouth_count_more_and_the_mean_stays_one() -> None:
    labels = RenderedData("judge", size=64).batch(range(2)).labels
    weight = face_weight(labels.landmarks, 64, 4.0)
    assert torch.allclose(weight.mean((1, 2, 3)), torch.ones(2))
    for picture, points in zip(weight[:, 0], labels.landmarks, strict=True):
        x, y = points[48:68].mean(0).round().long().tolist()
        assert picture[y, x] > 3 * picture[2, 2]
    more = face_weight(labels.landmarks, 64, 4.0, mouth=3.0)
    for before, after, points in zip(weight[:, 0], more[:, 0], labels.landmarks, strict=True):
        (x, y), (a, b) = (points[part].mean(0).round().long().tolist() for part in (slice(48, 68), slice(36, 42)))
        assert 12 < after[y, x] / after[2, 2] < 13.1  # 1 + 4 * 3
        assert_close(after[b, a] / after[2, 2], before[b, a] / before[2, 2])
    assert face_weight(labels.landmarks, 64, 0.0) is None and face_weight(None, 64, 4.0) is None
    unknown = face_weight(torch.full((1, 68, 2), float("nan")), 64, 4.0)
    assert torch.equal(unknown, torch.ones(1, 1, 64, 64))


@pytest.mark.parametrize("name", list(PRESETS))
def test_every_preset_names_a_stage_configuration(name: str) -> None:
    config = preset(name)
    for stage in STAGES:
        settings = getattr(config, stage)
        assert settings.steps > 0 and settings.batch > 0 and sum(losses.loss_weights(settings).values()) > 0


def test_syncnet_is_held_to_shifts_that_an_untrained_net_does_not_find(tmp_path: Path) -> None:
    stage = build("syncnet", tmp_path)
    clips = RenderedData("syncnet", 3, "val", 16, fresh(small().rendered, frames=60, matched=1.0, sentence_seconds=3.0))
    with torch.no_grad():
        figures = stage.validate([clips.batch(range(6))])
    assert figures["within_a_frame_percent"] < 50 and figures["contrastive"] > 0
    with torch.no_grad():
        assert "confidence" not in stage.validate([batch("syncnet")])  # five frames: no shift to look for


@pytest.mark.parametrize("off", [{}, {"irfd__weight_perceptual": 1.0}])
def test_irfd_with_nothing_to_learn_yet_waits_for_its_losses(off: dict, trained: Path) -> None:
    names = ("self", "cross", "classification", "angles")
    bare = {f"irfd__weight_{name}": 0.0 for name in names} | {"irfd__code_losses_from": 0.5} | off
    stage = build("irfd", trained, **bare, irfd__perceptual_from=0.5)
    losses.total_loss(stage.phases[0].losses(batch("irfd"), {"progress": 0.0}), stage.phases[0].weights).backward()


def test_poses_that_are_known_of_some_people_only_teach_by_those(tmp_path: Path) -> None:
    stage, samples = build("irfd", tmp_path), batch("irfd")
    samples.source_labels.pose[0] = float("nan")
    found = stage.phases[0].losses(samples, {})
    losses.total_loss(found, stage.phases[0].weights).backward()
    assert found["angles"] > 0
    assert all(p.grad is None or p.grad.isfinite().all() for p in stage.phases[0].parameters)
    irfd = stage.networks["irfd"]
    fit_controls(irfd, [samples])
    assert irfd.pose_mapper.fitted and all(p.isfinite().all() for p in irfd.pose_mapper.parameters())


def test_what_eyes_add_to_the_pose_code_is_fitted_with_the_mapper(tmp_path: Path) -> None:
    irfd, samples = build("irfd", tmp_path).networks["irfd"], [batch("irfd") for _ in range(4)]
    told = {}  # E_p that reads nothing but the gaze, as its first number
    for sample in samples:
        for frames, labels in ((sample.source, sample.source_labels), (sample.target, sample.target_labels)):
            labels.eyes = torch.rand(len(frames), 4)
            told[frames.data_ptr()] = F.pad(labels.eyes[:, 2:3], (0, irfd.pose_mapper.eyes.shape[1] - 1))
    irfd.pose_encoder.forward = lambda frames, again=False: told[frames.data_ptr()]
    fit_controls(irfd, samples)
    eyes = irfd.pose_mapper.eyes.detach()
    assert 0.7 < eyes[2, 0] < 1.3 and eyes[[0, 1, 3]].abs().max() < 0.3 and eyes[:, 1:].abs().max() < 0.1


@pytest.mark.parametrize("backend", ["reference", "auto"])
def test_second_derivatives_go_through_blocks_that_are_computed_again(backend: str, trained: Path) -> None:
    found = []
    for again in (False, True):
        torch.manual_seed(0)
        stage = build("speak", trained, speak__weight_path_length=0.1)
        if again:
            recompute_blocks(stage.networks["speak"])
        with ops.backend(backend):
            torch.manual_seed(1)
            loss = stage.phases[0].losses(batch("speak"), {})["path_length"]
            loss.backward()
        found.append([p.grad for p in stage.phases[0].parameters])
    for one, two in zip(*found, strict=True):
        assert (one is None) == (two is None)
        if one is not None:
            assert_close(two, one)
