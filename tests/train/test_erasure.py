"""What is erased from codes is gone for every linear probe, and nothing else is."""

from pathlib import Path

import numpy as np
import torch

from speak import checkpoint
from speak.config import preset
from speak.train.command import run_stage
from speak.train.controls import erase_pose
from speak.train.erasure import erasing_projection
from tests.small_training import small
from tests.tolerances import assert_close
from tests.train.test_stages import batch, build


def explained(codes: torch.Tensor, concept: torch.Tensor) -> float:
    """R2 of the best linear probe, by numpy's least squares."""
    x = np.column_stack([codes.double().numpy(), np.ones(len(codes))])
    y = concept.double().numpy()
    left = y - x @ np.linalg.lstsq(x, y, rcond=1e-5)[0]  # below: rounding
    return 1 - float(left.var(0).sum() / y.var(0).sum())


def test_no_linear_probe_reads_what_was_erased_and_other_directions_stay() -> None:
    torch.manual_seed(0)
    concept, other = torch.randn(500, 2), torch.randn(500, 3)
    other = other - concept @ torch.linalg.lstsq(concept, other).solution  # nothing in common, not by chance either
    other = other - other.mean(0)
    mixed = torch.cat([concept, concept[:, :1] ** 2, other], 1)
    codes = mixed @ torch.randn(6, 10) + 0.01 * torch.randn(500, 10) + 3
    projection, shift = erasing_projection(codes, concept)
    erased = codes.double() @ projection.T + shift
    assert explained(codes, concept) > 0.9 and abs(explained(erased, concept)) < 1e-6
    assert explained(erased, other) > 0.99
    assert_close(erased.mean(0), codes.double().mean(0), dtype=torch.float32)
    assert int((torch.linalg.svdvals(projection - torch.eye(10)) > 1e-6).sum()) == 2
    assert_close(projection @ projection, projection, dtype=torch.float32)


def test_finished_encoders_have_no_linear_trace_of_the_pose_but_in_f_p(tmp_path: Path) -> None:
    samples = [batch("irfd", 32, rendered__kept=64)] * 8
    of_pose = []
    for erase in (False, True):
        irfd = build("irfd", tmp_path).networks["irfd"].eval()
        if erase:
            erase_pose(irfd, samples)
        frames, poses = samples[0].source, samples[0].source_labels.pose
        frames, poses = torch.cat([frames, samples[0].target]), torch.cat([poses, samples[0].target_labels.pose])
        with torch.no_grad():
            raw = {name: getattr(irfd, f"{name}_encoder").raw(frames) for name in ("identity", "emotion", "pose")}
        found = {name: explained(codes, poses) for name, codes in raw.items()}
        of_pose.append(found["pose"])
        for name in ("identity", "emotion"):
            assert abs(found[name]) < 1e-3 if erase else found[name] > 0.02, (name, erase)
    assert of_pose[0] == of_pose[1] > 0.05


def test_stage_irfd_ends_with_it_and_paper_does_not(tmp_path: Path) -> None:
    weights = []
    for erase in (False, True):
        out = tmp_path / str(erase)
        run_stage("irfd", small(irfd__erase_pose=erase), "synthetic:3", out, torch.device("cpu"), steps=1, batch=4)
        weights.append(checkpoint.load(out / "irfd" / "weights.pt")["models"]["irfd"])
    key = "identity_encoder.linear.weight"
    assert not torch.equal(weights[0][key], weights[1][key])
    assert torch.equal(weights[0]["pose_encoder.linear.weight"], weights[1]["pose_encoder.linear.weight"])
    assert not preset("paper").irfd.erase_pose
