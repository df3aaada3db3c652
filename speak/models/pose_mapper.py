"""Controls without a driving video: poses given as numbers, emotions given by name (METHOD, end of stage `irfd`).

Both are fitted to the codes of a trained IRFD and saved with it. Weights without them refuse those options in one line.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from speak.config import EMOTIONS, EYE_NAMES, POSE_CENTRE, POSE_NAMES, POSE_SPREAD, ModelConfig
from speak.errors import SpeakError

NEUTRAL = EMOTIONS.index("neutral")


def controls(model: ModelConfig) -> dict[str, nn.Module]:
    """A new mapper and new prototypes, not fitted, under the names that `IRFD` and `Speak` give them."""
    return {
        "pose_mapper": PoseMapper(model.pose.code_dim, model.pose_mapper_width),
        "emotion_prototypes": EmotionPrototypes(model.emotion.code_dim, model.emotion_levels),
    }


class PoseMapper(nn.Module):
    """MLP from (yaw, pitch, roll, x, y, scale) to f_P, and what each of EYE_NAMES adds to it (ours).

    `fitted` is saved with the weights. `eyes` is 0 where the data did not tell them.
    """

    def __init__(self, code_dim: int, width: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(len(POSE_NAMES), width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, code_dim)
        )
        self.eyes = nn.Parameter(torch.zeros(len(EYE_NAMES), code_dim))
        self.register_buffer("fitted", torch.tensor(False))
        self.register_buffer("centre", torch.tensor(POSE_CENTRE), persistent=False)
        self.register_buffer("spread", torch.tensor(POSE_SPREAD), persistent=False)

    def forward(
        self,
        pose: Tensor,  # [..., 6]: degrees, degrees, degrees, image widths
        eyes: Tensor | None = None,  # [..., 4], EYE_NAMES: blinks in [0, 1], gaze in [-1, 1]; None: open, straight
    ) -> Tensor:
        """f_P [..., code_dim]. For fitting; `Speak.pose_from_numbers` refuses weights that were not fitted."""
        weight = self.net[0].weight
        codes = self.net(((pose.to(weight.device) - self.centre) / self.spread).to(weight.dtype))
        return codes if eyes is None else codes + eyes.to(self.eyes) @ self.eyes

    def require_fitted(self) -> None:
        """Raises SpeakError when the weights carry no fitted mapper."""
        if not self.fitted:
            raise SpeakError(
                "these weights cannot take a pose in numbers: train stage irfd on data with poses, or give a pose video"
            )


class EmotionPrototypes(nn.Module):
    """Mean f_E of every emotion at every strength, [8, levels, D]; level l stands for strength (l + 1) / levels."""

    def __init__(self, code_dim: int, levels: int) -> None:
        super().__init__()
        self.register_buffer("codes", torch.zeros(len(EMOTIONS), levels, code_dim))
        self.register_buffer("known", torch.zeros(len(EMOTIONS), dtype=torch.bool))

    @torch.no_grad()
    def fit(
        self,
        codes: Tensor,  # f_E [M, D]
        labels: Tensor,  # [M], index into EMOTIONS; -1: no label
        levels: Tensor,  # [M], 0 ... levels - 1; -1: not stated, counted as the strongest
    ) -> None:
        """Takes the means. A level without samples goes on the line from neutral through the nearest level with some.

        Raises SpeakError when there is no neutral face: every strength is measured from it.
        """
        count = self.codes.shape[1]
        levels = torch.where(levels < 0, count - 1, levels)
        if not (labels == NEUTRAL).any():
            raise SpeakError("emotion prototypes need neutral faces: the corpus has none")
        neutral = codes[labels == NEUTRAL].mean(0)
        for label in range(len(EMOTIONS)):
            present = [level for level in range(count) if ((labels == label) & (levels == level)).any()]
            self.known[label] = bool(present)
            for level in range(count):
                if label == NEUTRAL or not present:
                    self.codes[label, level] = neutral
                    continue
                nearest = min(present, key=lambda other: abs(other - level))
                mean = codes[(labels == label) & (levels == nearest)].mean(0)
                self.codes[label, level] = neutral + (mean - neutral) * (level + 1) / (nearest + 1)

    def forward(
        self,
        strengths: dict[str, float],  # emotion -> strength, 0 (neutral) to 1 (the strongest level)
    ) -> Tensor:
        """f_E [D] of a mixture: neutral plus each emotion's way from it. Raises SpeakError for what is not known."""
        if not self.known.any():
            raise SpeakError(
                "these weights cannot take an emotion by name: train stage irfd on labelled data, "
                "or give an emotion video"
            )
        mixed = self.codes[NEUTRAL, 0].clone()
        levels = self.codes.shape[1]
        for emotion, strength in strengths.items():
            if emotion not in EMOTIONS:
                raise SpeakError(f"unknown emotion '{emotion}': choose from {', '.join(EMOTIONS)}")
            label = EMOTIONS.index(emotion)
            if not self.known[label]:
                raise SpeakError(f"these weights have never seen the emotion '{emotion}'")
            if not 0 <= strength <= 1:
                raise SpeakError(f"emotion strength {strength:g} of '{emotion}': give a number from 0 to 1")
            ladder = torch.cat([self.codes[NEUTRAL, :1], self.codes[label]])  # at strengths 0, 1 / levels, ..., 1
            below = min(int(strength * levels), levels - 1)
            mixed += torch.lerp(ladder[below], ladder[below + 1], strength * levels - below) - ladder[0]
        return mixed
