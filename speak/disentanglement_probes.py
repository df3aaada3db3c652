"""Linear probes: what a linear map, fitted on some people, reads of each factor from a code of others.

METHOD, "What shows that it works", 3. Probes are ridge regressions in closed form, in float64; a class is the largest
of eight (or twenty) regressed indicators. The penalty is chosen on a part of the frames that fit.
"""

from __future__ import annotations

import dataclasses

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from speak.clip_generation import measuring
from speak.config import EMOTIONS, POSE_NAMES, DisentanglementConfig
from speak.datasets.rendered import RenderedData, fresh
from speak.datasets.stage_batches import FrameLabels
from speak.metrics import effective_rank
from speak.models.irfd import ENCODERS, IRFD
from speak.models.speak import Speak

PENALTIES = tuple(10.0**power for power in range(-6, 3))  # relative to the number of frames that fit
FIT_SHARE = 2 / 3

# what is read: R2 of a number, accuracy of a class
NUMBERS = (*POSE_NAMES, "mouth_opening")
ANGLES = ("yaw", "pitch", "roll")


@dataclasses.dataclass(frozen=True)
class ProbedCode:
    """What can be read from one code: R2 on frames not fitted (1 all, 0 or less nothing), accuracy of classes."""

    r2: dict[str, float]  # by name of NUMBERS
    pose: float  # mean R2 of yaw, pitch and roll
    emotion: float  # accuracy, chance 1/8
    identity: float  # accuracy among `people`, chance 1/people
    effective_rank: float
    width: int  # numbers of the code


@dataclasses.dataclass(frozen=True)
class _Encoded:
    """Codes of single frames by factor, and what is true of the frames."""

    codes: dict[str, Tensor]  # [N, D]
    labels: FrameLabels


def probe(
    model: IRFD | Speak,
    seed: int = 0,  # of the rendered people
    split: str = "test",
    size: int | None = None,  # pixels of a frame's side; default the model's own
    amounts: DisentanglementConfig | None = None,
    control: IRFD | Speak | None = None,  # another model, looked at with the same frames
    progress: bool = True,
) -> list[dict[str, ProbedCode]]:
    """Probes of f_I, f_P and f_E of `model`, then of `control` where there is one: code's factor -> what is in it."""
    amounts = amounts or DisentanglementConfig()
    models = [model] if control is None else [model, control]
    size = size or model.generator.synthesis.resolutions[-1]
    device, people = next(model.parameters()).device, amounts.people
    frames_of = {
        "frames of many people": (amounts.probe_frames, fresh(lifelike=amounts.lifelike)),
        f"frames of {people} people": (people * amounts.person_frames,
                                       fresh(identities=people, lifelike=amounts.lifelike)),
    }
    encoded = []
    for what, (count, config) in frames_of.items():
        data = RenderedData("judge", seed, split, size, config, device)
        encoded.append(_encode(models, data, count, amounts.batch, what if progress else None))
    many, few = encoded
    return [{factor: _probed(a, b, factor) for factor in ENCODERS} for a, b in zip(many, few, strict=True)]


def linear_probe(
    fit_codes: Tensor,  # [N, D]
    fit_targets: Tensor,  # [N, K]
    test_codes: Tensor,  # [M, D]
) -> Tensor:
    """Ridge regression of the targets, [M, K] in float64. The last fifth of the fitting rows chooses the penalty."""
    part = len(fit_codes) * 4 // 5
    trial = _ridge(fit_codes[:part], fit_targets[:part], fit_codes[part:], PENALTIES)
    scale = fit_targets.double().var(0).clamp(min=1e-12)
    errors = [((guess - fit_targets[part:]).square() / scale).mean() for guess in trial]
    return _ridge(fit_codes, fit_targets, test_codes, (PENALTIES[int(torch.stack(errors).argmin())],))[0]


def r2(
    read: Tensor,  # [M, K]
    truth: Tensor,  # [M, K]
) -> Tensor:
    """Share of each target's variance that was read, [K]; negative where the mean would have been better."""
    error = (truth.double() - read).square().sum(0)
    return 1 - error / (truth.double() - truth.double().mean(0)).square().sum(0)


def read_class(
    fit_codes: Tensor,  # [N, D]
    fit_labels: Tensor,  # [N] int64
    test_codes: Tensor,  # [M, D]
    test_labels: Tensor,  # [M]
    classes: int,
) -> float:
    """Accuracy of the linear probe of a class."""
    read = linear_probe(fit_codes, F.one_hot(fit_labels, classes).double(), test_codes)
    return (read.argmax(1) == test_labels).double().mean().item()


def _ridge(codes: Tensor, targets: Tensor, test_codes: Tensor, penalties: tuple[float, ...]) -> list[Tensor]:
    codes, targets, test_codes = codes.double(), targets.double(), test_codes.double()
    mean, spread = codes.mean(0), codes.std(0).clamp(min=1e-9)
    codes, test_codes = (codes - mean) / spread, (test_codes - mean) / spread
    middle = targets.mean(0)
    values, vectors = torch.linalg.eigh(codes.T @ codes)
    products, seen = vectors.T @ (codes.T @ (targets - middle)), test_codes @ vectors
    return [seen @ (products / (values + penalty * len(codes))[:, None]) + middle for penalty in penalties]


def _encode(
    models: list[IRFD | Speak], data: RenderedData, count: int, batch: int, what: str | None
) -> list[_Encoded]:
    """`count` frames seen by every model."""
    codes: list[dict[str, list[Tensor]]] = [{factor: [] for factor in ENCODERS} for _ in models]
    labels = []
    with measuring(*models):
        for first in tqdm(range(0, count, batch), desc=what, disable=what is None, leave=False):
            seen = data.batch(range(first, min(first + batch, count)))
            for model, found in zip(models, codes, strict=True):
                for factor, encoder in ENCODERS.items():
                    found[factor].append(getattr(model, encoder)(seen.frames).cpu())
            labels.append(seen.labels)
    names = [field.name for field in dataclasses.fields(FrameLabels)]
    joined = FrameLabels(*(torch.cat([getattr(part, name) for part in labels]).cpu() for name in names))
    return [_Encoded({factor: torch.cat(parts) for factor, parts in found.items()}, joined) for found in codes]


def _probed(many: _Encoded, few: _Encoded, factor: str) -> ProbedCode:
    labels, codes = many.labels, many.codes[factor]
    fit = torch.arange(len(codes)) < round(FIT_SHARE * len(codes))
    test = ~fit & ~torch.isin(labels.identity, labels.identity[fit])  # other people only
    numbers = torch.cat([labels.pose, labels.mouth_opening[:, None]], 1)
    found = dict(zip(NUMBERS, r2(linear_probe(codes[fit], numbers[fit], codes[test]), numbers[test]).tolist(),
                     strict=True))  # fmt: skip
    emotion = read_class(codes[fit], labels.emotion[fit], codes[test], labels.emotion[test], len(EMOTIONS))
    # samples 2k and 2k + 1 are one person; other frames of the same twenty people fit and test
    split = round(FIT_SHARE * len(few.codes[factor]))
    people = few.labels.identity.unique(return_inverse=True)[1]
    faces = few.codes[factor]
    identity = read_class(faces[:split], people[:split], faces[split:], people[split:], int(people.max()) + 1)
    pose = sum(found[name] for name in ANGLES) / len(ANGLES)
    return ProbedCode(found, pose, emotion, identity, effective_rank(codes), codes.shape[1])
