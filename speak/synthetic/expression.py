"""What a rendered face does: emotions as muscle actions, blended with the speaking mouth, blinks and gaze.

Actions follow the Facial Action Coding System (Ekman and Friesen 1978) in kind, exaggerated as cartoons are.
"""

from __future__ import annotations

import torch
from torch import Tensor

from speak.config import EMOTIONS

# Strength of an emotion at MEAD's levels 1, 2 and 3.
LEVEL_STRENGTH = (0.45, 0.72, 1.0)


ACTIONS = (
    "brow_inner", "brow_outer", "brow_lower", "brow_squeeze", "brow_odd", "lid_wide", "lid_droop", "lid_sad",
    "squint", "cheek", "nose", "lip_raise", "smile", "frown", "smirk", "press", "jaw", "stretch", "pout", "bare",
    "oval",
)  # fmt: skip

_EMOTION_ACTIONS: dict[str, dict[str, float]] = {
    "angry": dict(brow_lower=1.0, brow_squeeze=1.0, brow_outer=0.45, lid_wide=0.35, squint=0.45, nose=0.45,
                  frown=0.75, press=0.35, bare=0.30, lip_raise=0.15, cheek=0.1),
    "contempt": dict(smirk=1.0, brow_odd=1.0, lid_droop=0.55, squint=0.2, brow_lower=0.15, cheek=0.12),
    "disgusted": dict(nose=1.0, lip_raise=1.0, brow_lower=0.75, brow_squeeze=0.35, squint=0.85, cheek=0.55, frown=0.7,
                      lid_droop=0.25, pout=0.35),
    "fear": dict(brow_inner=1.0, brow_outer=0.45, brow_squeeze=0.8, lid_wide=1.0, stretch=1.0, frown=0.55, jaw=0.30,
                 bare=0.55),
    "happy": dict(smile=1.0, cheek=1.0, squint=0.55, jaw=0.30, brow_outer=0.25, brow_inner=0.2),
    "neutral": {},
    "sad": dict(brow_inner=1.0, brow_outer=-0.75, brow_squeeze=0.55, lid_droop=0.42, lid_sad=1.0, frown=1.0, pout=0.7),
    "surprised": dict(brow_inner=1.0, brow_outer=1.15, lid_wide=0.95, jaw=0.85, oval=1.0),
}  # fmt: skip

# These two are told by small signs, so that their weakest level shows more of them: by how much a trace is enlarged.
_EARLY = {"contempt": 1.0, "disgusted": 0.6}


def actions_of(emotion_weights: Tensor) -> dict[str, Tensor]:  # [B, 8] strengths in the order of EMOTIONS
    """The strength of each muscle action, [B], for any blend of emotions."""
    table = torch.tensor([[_EMOTION_ACTIONS[emotion].get(action, 0.0) for action in ACTIONS] for emotion in EMOTIONS],
                         dtype=emotion_weights.dtype, device=emotion_weights.device)
    early = torch.tensor([_EARLY.get(emotion, 0.0) for emotion in EMOTIONS], dtype=emotion_weights.dtype,
                         device=emotion_weights.device)
    shown = emotion_weights * (1 + early * (1 - emotion_weights) ** 2)  # a whole emotion stays what it is
    total = (shown.unsqueeze(-1) * table).sum(1)
    return dict(zip(ACTIONS, total.unbind(1), strict=True))


def decode_expression(
    person: dict[str, Tensor],  # of decode_identity
    emotion_weights: Tensor,  # [B, 8], rows sum to 1 at most
    mouth: Tensor,  # [B, 6] in [0, 1], MOUTH_NAMES of phones.py
    eyes: Tensor,  # [B, 4], EYE_NAMES
) -> dict[str, Tensor]:
    """Where lips, lids and brows are: offsets and openings in head units, each [B]."""
    act = actions_of(emotion_weights)
    opened, wide, rounded, press, tuck, tongue = mouth.clamp(0, 1).unbind(1)
    blink_left, blink_right, gaze_x, gaze_y = eyes.unbind(1)
    face: dict[str, Tensor] = {}

    # The mouth: speech first, the emotion takes what speech leaves.
    closing = (1 - press) * (1 - 0.85 * tuck)
    jaw = 1 - (1 - opened) * (1 - 0.75 * act["jaw"] * closing * (1 - 0.55 * rounded))
    face["jaw"] = 0.235 * jaw
    half = 1 + 0.17 * wide + 0.24 * act["smile"] + 0.17 * act["stretch"] + 0.06 * act["smirk"] - 0.10 * act["pout"]
    half = half - 0.05 * act["press"] - 0.06 * act["jaw"] * (1 - act["smile"]) - 0.24 * act["oval"]
    face["mouth_half"] = person["mouth_half"] * half * (1 - 0.44 * rounded) * (1 - 0.07 * jaw)
    face["smile_left"] = 0.105 * act["smile"] * (1 - 0.5 * rounded) - 0.085 * act["frown"] + person["rest_mouth"]
    face["smile_right"] = face["smile_left"] + 0.120 * act["smirk"]
    face["mouth_x"] = 0.035 * act["smirk"]
    show = act["bare"] * (1 - press) * (1 - rounded * 0.7)
    gap = 0.268 * jaw * closing + 0.045 * show * (1 - jaw)
    gap = gap + 0.035 * tuck + 0.025 * tongue * (1 - opened)
    sneer = act["lip_raise"] * (1 - press) * (1 - rounded)
    upward = 0.10 + 0.24 * act["oval"] + 0.10 * rounded
    face["gap_up"] = gap * upward + 0.025 * sneer + 0.012 * tuck + 0.015 * show
    face["gap_low"] = gap * (0.90 - 0.14 * act["oval"] - 0.10 * rounded) + 0.02 * show
    thin = (1 - 0.55 * torch.maximum(press * 0.85, act["press"] * 0.55)) * (1 - 0.20 * act["smile"]) * (1 - 0.18 * jaw)
    face["upper_thick"] = person["upper_thick"] * thin * (1 + 0.25 * rounded) * (1 - 0.30 * act["bare"])
    face["lower_thick"] = person["lower_thick"] * thin * (1 + 0.20 * rounded) * (1 - 0.62 * tuck)
    face["lower_thick"] = face["lower_thick"] * (1 + 0.35 * act["pout"] - 0.15 * act["stretch"])
    face["protrude"] = 0.085 * rounded + 0.045 * act["pout"] - 0.02 * press - 0.02 * wide
    face["lip_lift"] = 0.040 * act["lip_raise"] + 0.022 * act["pout"] + 0.012 * act["smile"]
    face["tuck"], face["tongue"] = tuck, tongue
    face["rounded"] = 1 - (1 - rounded) * (1 - 0.45 * act["oval"])
    face["square"] = act["bare"] + 0.5 * act["stretch"]
    face["chin_up"] = act["pout"] * (1 - jaw)

    # Lids: 1 is the person's open eye.
    wide_open = 1 + 0.36 * act["lid_wide"] - 0.36 * act["lid_droop"] - 0.12 * act["squint"] - 0.05 * act["smile"]
    look = 0.10 * gaze_y
    face["lid_left"] = (wide_open + look - 0.12 * act["smirk"]).clamp(min=0.2)
    face["lid_right"] = (wide_open + look - 0.12 * act["smirk"]).clamp(min=0.2)
    face["blink_left"], face["blink_right"] = blink_left.clamp(0, 1), blink_right.clamp(0, 1)
    face["lower_lid"] = 1 + 0.18 * act["lid_wide"] - 0.80 * act["squint"] * 0.85 - 0.05 * gaze_y
    face["lid_sad"] = act["lid_sad"]
    face["gaze_x"], face["gaze_y"] = gaze_x.clamp(-1, 1), gaze_y.clamp(-1, 1)

    # Brows: offsets of the inner and outer ends, left and right of the image.
    down = -0.115 * act["brow_lower"] * (1 - 0.4 * person["lifelike"])  # there is less room above adults' eyes
    down = down - person["rest_frown"]
    face["brow_inner_left"] = 0.120 * act["brow_inner"] + down - 0.02 * act["brow_squeeze"] - 0.035 * act["brow_odd"]
    face["brow_inner_right"] = face["brow_inner_left"] + 0.125 * act["brow_odd"]
    face["brow_outer_left"] = 0.105 * act["brow_outer"] + 0.25 * down - 0.03 * act["brow_odd"]
    face["brow_outer_right"] = face["brow_outer_left"] + 0.150 * act["brow_odd"]
    face["brow_in"] = 0.040 * act["brow_squeeze"]
    face["brow_flat"] = act["brow_lower"] + 0.8 * (act["brow_inner"] - act["brow_outer"]).clamp(min=0)
    face["forehead_lines"] = 0.55 * (act["brow_inner"] + act["brow_outer"].clamp(min=0)) + 0.2 * act["brow_odd"]
    face["frown_lines"] = act["brow_squeeze"] * (0.4 + 0.6 * act["brow_lower"])

    for name in ("brow_inner", "brow_outer", "smile"):  # a figurine's face does more than anybody's can
        for side in ("left", "right"):
            face[f"{name}_{side}"] = face[f"{name}_{side}"] * (1 - 0.25 * person["lifelike"])

    face["cheek"] = act["cheek"]
    face["squint_bag"] = act["squint"] + 0.5 * person["rest_folds"]
    face["nose_wrinkle"] = act["nose"]
    face["fold"] = act["smile"] + 0.9 * act["lip_raise"] + 0.35 * act["frown"] + 0.3 * act["bare"]
    face["fold"] = (face["fold"] + 0.6 * person["rest_folds"]).clamp(0, 1.2)
    face["fold_right"] = 0.5 * act["smirk"]
    return face
