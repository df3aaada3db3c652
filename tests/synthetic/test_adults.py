"""People with the proportions of adults: what real faces show, where figurines differ."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from speak.synthetic.identity import RESTING
from tests.synthetic.heads import people, polygon, show, with_traits


def test_adults_open_mouths_are_warm_and_dark_at_the_corners() -> None:
    """As real ones are. From grey teeth, corner to corner, grey mouths of real people are learnt."""
    identity, scene = people(12, seed=6, lifelike=1.0)
    identity = with_traits(identity, beard=0.0, moustache=0.0, age=0.2)
    scene.light[:] = torch.tensor([0.1, 0.4, 0.9, 1, 1, 1])
    rendered = show(identity, scene, mouth=torch.tensor([[0.52, 0.55, 0, 0, 0, 0]]).repeat(12, 1), size=256)
    middle, corners = [], []
    for frame, marks in zip((rendered.frames + 1) / 2, rendered.landmarks, strict=True):
        inside = polygon(marks[60:68], 256, -0.5)
        assert (frame[0] > 1.1 * frame[2])[inside].all()
        off = np.abs((np.arange(256) - float(marks[48, 0])) / float(marks[54, 0] - marks[48, 0]) - 0.5)[None]
        for found, where in ((middle, off < 0.15), (corners, off > 0.36)):
            found.append(float(frame.mean(0)[inside & where].max()))
    assert np.mean(corners) < 0.7 * np.mean(middle)


def test_adults_have_the_proportions_that_anthropometry_gives() -> None:
    """Means of adults, women's and men's together, in round centimetres, as shares of the width of the face."""
    identity, scene = people(64, seed=12, lifelike=1.0)
    means = {"eye": (36, 39, 3.1), "between the eyes": (39, 42, 3.2), "nose": (31, 35, 3.3), "mouth": (48, 54, 5.2),
             "upper lip": (51, 62, 0.8), "lower lip": (66, 57, 0.95)}  # the red of them
    for lifelike in (0.0, 1.0):
        marks = show(with_traits(identity, lifelike=lifelike), scene, size=256).landmarks
        face = marks[:, 1:16, 0].amax(1) - marks[:, 1:16, 0].amin(1)  # cheekbone to cheekbone: 13.4 cm
        off = {name: float(((marks[:, last] - marks[:, first]).norm(dim=1) / face).mean()) * 13.4 / centimetres
               for name, (first, last, centimetres) in means.items()}
        height = float(((marks[:, 8, 1] - marks[:, 36:48, 1].mean(1)) / face).mean()) * 13.4 / 11.6  # eyes to chin
        if lifelike:
            assert all(0.93 < ratio < 1.07 for ratio in (*off.values(), height)), (off, height)
        else:
            assert off["eye"] > 1.2, off  # a figurine's eyes are large


def test_adults_faces_at_rest_differ_by_eyes_brows_mouth_and_folds_and_figurines_do_not() -> None:
    identity, scene = people(6, seed=13)
    identity = with_traits(identity, glasses=0.0, beard=0.0, moustache=0.0, hair_style=0.0, age=0.3)
    low, high = {}, {}
    for name in RESTING:
        for found, value in ((low, 0.0), (high, 1.0)):
            assert torch.equal(show(with_traits(identity, **{name: value}), scene).frames, show(identity, scene).frames)
            found[name] = show(with_traits(identity, lifelike=1.0, **{name: value}), scene, size=256)

    def rise(name: str, *points: int) -> Tensor:  # pixels, upwards, of the eyes' corners' height
        marks = [found[name].landmarks[..., 1] for found in (low, high)]
        before, after = (at[:, [36, 39, 42, 45]].mean(1) - at[:, list(points)].mean(1) for at in marks)
        return after - before

    assert (rise("rest_eyes", 37, 38, 43, 44) - rise("rest_eyes", 40, 41, 46, 47) > 1).all()
    assert (rise("rest_brows", *range(17, 27)) > 3).all()
    assert (rise("rest_frown", 21, 22) < -2).all() and (rise("rest_frown", 17, 26).abs() < 1.5).all()
    assert (rise("rest_mouth", 48, 54) - rise("rest_mouth", 51, 57) > 2).all()
    for name, points in (("rest_folds", (31, 48)), ("rest_folds", (35, 54)), ("eye_shade", (36, 37, 38, 39, 40, 41))):
        for one, other, marks in zip(low[name].frames, high[name].frames, low[name].landmarks, strict=True):
            marks = marks[list(points)]
            (left, top), (right, bottom) = (marks.amin(0) - 3).long().tolist(), (marks.amax(0) + 4).long().tolist()
            where = (..., slice(top, bottom), slice(left, right))
            assert one[where].mean() > other[where].mean() + 0.004, name
