"""Pictures of rendered people as numbers, and what they are put together from: looks, moods, performances."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from speak.synthetic.performance import Performance
from speak.synthetic.scene import Scene


@dataclasses.dataclass
class Pictures:
    """P pictures as numbers: what `render` wants, and the labels that are known before."""

    person: Tensor  # [P] int64
    emotion: Tensor  # [P] int64
    level: Tensor  # [P] int64
    identity: Tensor  # [P, K]
    pose: Tensor  # [P, 6]
    emotion_weights: Tensor  # [P, 8]
    mouth: Tensor  # [P, 6]
    eyes: Tensor  # [P, 4]
    light: Tensor  # [P, 6]
    background: Tensor  # [P, 14]

    def __len__(self) -> int:
        return len(self.person)

    def __getitem__(self, rows: slice) -> Pictures:
        return Pictures(*(getattr(self, field.name)[rows] for field in dataclasses.fields(self)))

    @staticmethod
    def joined(parts: Sequence[Pictures]) -> Pictures:
        return Pictures(
            *(torch.cat([getattr(part, field.name) for part in parts]) for field in dataclasses.fields(Pictures))
        )


@dataclasses.dataclass
class Look:
    """Somebody somewhere: what goes with the identity when factors are exchanged (the mouth does, too)."""

    number: int
    identity: Tensor  # [K]
    mouth: Tensor  # [1, 6]
    eyes: Tensor  # [1, 4], drawn with the rest, but they go with the pose
    scene: Scene


@dataclasses.dataclass
class Mood:
    """An emotion at a level."""

    emotion: int
    level: int
    weights: Tensor  # [1, 8]


def picture_of(
    look: Look,
    mood: Mood,
    pose: Tensor,  # [1, 6]
    eyes: Tensor,  # [1, 4]
) -> Pictures:
    """One picture: somebody in a mood and a pose, who looks somewhere."""
    return Pictures(
        torch.tensor([look.number]), torch.tensor([mood.emotion]), torch.tensor([mood.level]), look.identity[None],
        pose, mood.weights, look.mouth, eyes, look.scene.light, look.scene.background,
    )  # fmt: skip


def in_mood(
    pictures: Pictures,
    mood: Mood,
    weights: Tensor,  # [P, 8]
) -> Pictures:
    """The same people in another mood."""
    emotion, level = (torch.full((len(pictures),), value) for value in (mood.emotion, mood.level))
    return dataclasses.replace(pictures, emotion=emotion, level=level, emotion_weights=weights)


def pictures_of(
    performance: Performance,
    number: int,  # the person's
    frames: Tensor,  # [P] int64
) -> Pictures:
    """Some frames of a performance."""
    count = len(frames)
    return Pictures(
        torch.full((count,), number), torch.full((count,), performance.emotion),
        torch.full((count,), performance.level), performance.person.identity.expand(count, -1),
        performance.pose[frames], performance.emotion_weights[frames], performance.mouth[frames],
        performance.eyes[frames], performance.scene.light.expand(count, -1),
        performance.scene.background.expand(count, -1),
    )  # fmt: skip
