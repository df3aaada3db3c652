import importlib.util
from pathlib import Path

import numpy as np
import pytest

from speak.config import PrepareConfig
from speak.errors import SpeakError
from speak.media.face import PasteBack, already_cropped, crop, crop_box, find_face, parse_box
from speak.media.face_detection import Box, BuiltInDetector, DlibDetector, Face, Landmarks, head_of_face
from speak.media.face_track import choose, chunks, every_frame, join

needs_dlib = pytest.mark.skipif(importlib.util.find_spec("dlib") is None, reason="the faces extra (dlib) is missing")


class Fixed:
    """A detector that finds what it is told."""

    name, tracks = "fixed", True

    def __init__(self, *boxes: Box) -> None:
        self.boxes = boxes

    def find(self, picture: np.ndarray) -> list[Face]:
        return [Face(box, 1.0) for box in self.boxes]


def drawn_portrait(width: int = 320, height: int = 240, x: int = 160, y: int = 110, size: int = 100) -> np.ndarray:
    """A simple head: skin-coloured oval with dark eyes, brows and mouth on a bluish ground; `size` brows to chin."""
    v, u = np.mgrid[0:height, 0:width].astype(float)
    u, v = (u - x) / size, (v - y) / size
    picture = np.empty((height, width, 3))
    picture[:] = (70, 90, 130)
    picture[(u / 0.85) ** 2 + ((v - 1.0) / 0.4) ** 2 < 1] = (60, 60, 70)  # shoulders
    head = (u / 0.5) ** 2 + (v / 0.68) ** 2 < 1
    picture[head] = (215, 165, 135)
    picture[head & (v < -0.45)] = (70, 45, 30)  # hair
    for side in (-1, 1):
        picture[((u - side * 0.18) / 0.085) ** 2 + ((v + 0.21) / 0.05) ** 2 < 1] = (50, 35, 30)
        picture[((u - side * 0.18) / 0.12) ** 2 + ((v + 0.33) / 0.025) ** 2 < 1] = (90, 60, 45)
    picture[(u / 0.08) ** 2 + ((v - 0.03) / 0.025) ** 2 < 1] = (150, 100, 85)  # nostrils
    picture[(u / 0.14) ** 2 + ((v - 0.2) / 0.035) ** 2 < 1] = (130, 60, 60)  # mouth
    return picture.astype(np.uint8)


def test_the_crop_is_the_rules_square_inside_the_picture() -> None:
    # by hand: w 60, h 100: dh = 0.1, dw = max(.1, (120 - 60) / 120) = .5: 120 x 120 about the middle (130, 150)
    assert crop_box(Box(100, 100, 60, 100), 1000, 1000) == (70, 90, 120, 120)
    assert crop_box(Box(100, 100, 100, 60), 1000, 1000) == (90, 70, 120, 120)
    assert crop_box(Box(0, 0, 60, 100), 1000, 1000) == (0, 0, 120, 120)  # moved inside, not made smaller
    assert crop_box(Box(950, 950, 60, 100), 1000, 1000) == (880, 880, 120, 120)
    assert crop_box(Box(10, 10, 300, 300), 400, 200) == (60, 0, 200, 200)
    assert already_cropped((0, 0, 230, 230), 256, 256) and not already_cropped((0, 0, 230, 230), 640, 256)


def test_a_given_box_is_used_and_checked() -> None:
    picture = np.zeros((200, 300, 3), np.uint8)
    found = find_face(picture, box=(100, 50, 50, 50), detector=Fixed())
    assert found.box == (95, 45, 60, 60) and found.how == "given box"
    assert parse_box("1,2,3.5,4") == (1, 2, 3.5, 4)
    for text in ("1,2,3", "a,b,c,d", "1,2,nan,4"):
        with pytest.raises(SpeakError, match="x,y,w,h"):
            parse_box(text)
    with pytest.raises(SpeakError, match="not inside its 300x200 pixels"):
        find_face(picture, box=(400, 50, 50, 50))


def test_several_faces_want_a_choice_from_left_to_right() -> None:
    picture = np.zeros((200, 400, 3), np.uint8)
    two = Fixed(Box(300, 50, 60, 60), Box(50, 50, 60, 60))
    with pytest.raises(SpeakError, match="2 faces.*--face N"):
        find_face(picture, detector=two)
    assert find_face(picture, face=1, detector=two).box == (44, 44, 72, 72)
    assert find_face(picture, face=2, detector=two).box == (294, 44, 72, 72)
    with pytest.raises(SpeakError, match="no face 3, fixed finds 2"):
        find_face(picture, face=3, detector=two)
    small_beside = Fixed(Box(300, 50, 20, 20), Box(50, 50, 60, 60))
    assert find_face(picture, detector=small_beside).box == (44, 44, 72, 72)


def test_no_face_is_an_error_unless_the_picture_is_square() -> None:
    with pytest.raises(SpeakError, match="--box"):
        find_face(np.zeros((200, 300, 3), np.uint8), detector=Fixed())
    found = find_face(np.zeros((200, 200, 3), np.uint8), detector=Fixed())
    assert found.how == "whole picture" and found.box == (0, 0, 200, 200)


def test_the_built_in_detector_finds_a_drawn_head_and_nothing_in_noise_or_sky() -> None:
    detector = BuiltInDetector()
    for x, y, size in ((160, 110, 100), (90, 100, 70), (200, 120, 120)):
        faces = detector.find(drawn_portrait(x=x, y=y, size=size))
        assert len(faces) == 1
        assert faces[0].box.iou(head_of_face(Box(x - size / 2, y - size / 2, size, size))) > 0.4
    random = np.random.default_rng(0)
    assert not detector.find(random.integers(0, 255, (240, 320, 3), np.uint8))
    sky = np.linspace((90, 140, 220), (200, 220, 250), 240)[:, None].repeat(320, 1).astype(np.uint8)
    assert not detector.find(sky)
    assert not detector.find(np.full((3, 5, 3), 90, np.uint8))


def test_a_gap_in_a_track_is_filled_and_the_largest_track_chosen() -> None:
    def at(time: float, x: float, side: float = 50) -> list[Face]:
        return [] if 0.4 < time < 0.9 else [Face(Box(x, 10, side, side), 1)]

    times = [step / 10 for step in range(20)]
    tracks = join((time, at(time, 10 + 20 * time) + [Face(Box(200, 10, 30, 30), 1)]) for time in times)
    assert len(tracks) == 2
    track = choose(tracks)
    assert track is not None and len(track.boxes) == 16
    first, boxes = every_frame(track, 60, 30)
    assert first == 0 and boxes.shape == (60, 4)
    assert np.allclose(boxes[:58, 0], 10 + 20 * np.arange(58) / 30, atol=0.1)  # the gap too
    assert choose(tracks, 2).boxes[0].x == 200 and choose(tracks, 3) is None and choose([]) is None


def test_chunks_follow_the_rule() -> None:
    config = PrepareConfig(longest_chunk=100, shortest_chunk=30, shortest_clip=10, smallest_face=20)
    still = np.tile([100.0, 100, 40, 40], (230, 1))
    kept, dropped = chunks(0, still, 640, 480, config)
    assert [(chunk.first, chunk.stop) for chunk in kept] == [(0, 100), (100, 200), (200, 230)] and not dropped
    jump = still[:80].copy()
    jump[50:, 0] += 300  # IoU 0
    kept, dropped = chunks(7, jump, 640, 480, config)
    assert [(chunk.first, chunk.stop) for chunk in kept] == [(7, 57), (57, 87)]
    assert kept[0].box == (96, 96, 48, 48) and kept[1].box[0] == 396
    kept, dropped = chunks(0, jump[:60], 640, 480, config)
    assert len(kept) == 1 and "only 10 frames" in dropped[0]
    assert len(chunks(0, still[:12], 640, 480, config)[0]) == 1  # a clip that stays whole may be short
    kept, dropped = chunks(0, still * [1, 1, 0.4, 0.4], 640, 480, config)
    assert not kept and "16 pixels" in dropped[0]
    moving = np.stack([100 + np.arange(60.0), np.full(60, 50.0), np.full(60, 100.0), np.full(60, 100.0)], 1)
    assert chunks(0, moving, 640, 480, config)[0][0].box[2] == round(159 * 1.2)  # the union of the track


def test_pasting_a_crop_back_gives_the_picture_again() -> None:
    picture = drawn_portrait()
    box = crop_box(Box(110, 40, 100, 130), 320, 240)
    paste = PasteBack(picture, box)
    again = paste(crop(picture, box, box[2]))
    assert np.abs(again.astype(int) - picture).max() <= 1
    coarse = paste(crop(picture, box, 128))
    x, y, w, h = box
    outside = np.ones(picture.shape[:2], bool)
    outside[y : y + h, x : x + w] = False
    assert np.array_equal(coarse[outside], picture[outside])
    assert np.abs(coarse.astype(int) - picture).mean() < 1.5


def test_a_face_of_another_colour_is_matched_and_leaves_no_seam() -> None:
    picture = drawn_portrait()
    box = (100, 40, 120, 120)
    darker = np.clip(crop(picture, box, 120) * 0.8 + np.array([20, 0, -10]), 0, 255).astype(np.uint8)
    made = PasteBack(picture, box)(darker)
    assert np.abs(made.astype(int) - picture)[60:140, 120:200].mean() < 4  # the middle has its colours again
    across = np.abs(np.diff(made[:, 95:230].astype(int), axis=1)).max(2)
    before = np.abs(np.diff(picture[:, 95:230].astype(int), axis=1)).max(2)
    assert (across - before)[:, [4, 5, 124, 125]].max() <= 3  # at the border no step that was not there


def test_a_crop_at_the_pictures_edge_does_not_fade_there() -> None:
    picture = np.full((100, 100, 3), 50, np.uint8)
    face = np.full((64, 64, 3), 50, np.uint8)
    face[0, 0] = 255
    made = PasteBack(picture, (0, 0, 64, 64))(face)
    assert made[0, 0].max() > 200


@needs_dlib
def test_the_68_landmarks_come_from_the_users_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import dlib

    # a predictor trained on the spot: 68 points on a grid within the face's box, which is brows to chin
    def points(x: int, y: int, size: int) -> list:
        return [dlib.point(x + number % 10 * size // 10, y + number // 10 * size // 7) for number in range(68)]

    random = np.random.default_rng(0)
    pictures, truth = [], []
    for _ in range(6):
        x, y = (int(value) for value in random.integers(40, 120, 2))
        pictures.append(drawn_portrait(width=240, height=240, x=x + 40, y=y + 40, size=80))
        parts = dlib.full_object_detection(dlib.rectangle(x, y, x + 80, y + 80), dlib.points(points(x, y, 80)))
        truth.append([parts])
    options = dlib.shape_predictor_training_options()
    options.cascade_depth, options.num_trees_per_cascade_level, options.tree_depth = 2, 5, 2
    options.oversampling_amount, options.feature_pool_size = 2, 50
    dlib.train_shape_predictor(pictures, truth, options).save(str(tmp_path / "p.dat"))
    monkeypatch.setenv("SPEAK_LANDMARKS", str(tmp_path / "p.dat"))
    landmarks = Landmarks()
    monkeypatch.setattr(landmarks, "_detector", Fixed(head_of_face(Box(60, 70, 80, 80))))
    found = landmarks.find(drawn_portrait(width=240, height=240, x=100, y=110, size=80))
    expected = np.array([(point.x, point.y) for point in points(60, 70, 80)])
    assert found is not None and found.shape == (68, 2) and np.abs(found - expected).max() < 6
    monkeypatch.setattr(landmarks, "_detector", Fixed())
    assert landmarks.find(pictures[0]) is None


@needs_dlib
def test_dlib_boxes_are_widened_to_the_head_and_the_landmark_file_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert DlibDetector().find(np.zeros((100, 100, 3), np.uint8)) == []
    head = head_of_face(Box(100, 100, 100, 100))
    assert (head.x, head.y, head.w) == (90, 65, 120) and abs(head.h - 145) < 1e-9
    monkeypatch.delenv("SPEAK_LANDMARKS", raising=False)
    with pytest.raises(SpeakError, match="SPEAK_LANDMARKS"):
        Landmarks()
    (tmp_path / "no.dat").write_text("not a predictor")
    with pytest.raises(SpeakError, match="is not a shape predictor"):
        Landmarks(tmp_path / "no.dat")
