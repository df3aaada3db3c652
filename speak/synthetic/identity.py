"""Who a rendered person is: some fifty numbers in [0, 1], how people are drawn, what the numbers mean.

The unit of length is about half the height of a head without hair; y is up, z points out of the face. People are
figurines (large eyes, round heads, small shoulders) up to people with the proportions of adults, by `lifelike`:
about the means of anthropometry in round figures, a unit being 11.3 cm. Adults' faces at rest differ as well, so that
what a narrow eye or a low brow means is told by the person: the last numbers but `lifelike` say how.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from speak.synthetic.shapes import ramp

IDENTITY_NAMES = (
    "head_width", "head_height", "forehead", "cheekbones", "cheeks", "jaw_width", "jaw_corner", "chin_width",
    "chin_length", "chin_forward", "neck_width", "skin_tone", "skin_warmth", "blush", "freckles", "eye_size",
    "eye_height", "eye_spacing", "eye_tilt", "eye_fold", "eye_colour", "brow_thickness", "brow_height", "brow_arch",
    "brow_tilt", "nose_length", "nose_width", "nose_bridge", "nose_tip", "mouth_width", "mouth_height", "upper_lip",
    "lower_lip", "lip_colour", "ear_size", "ear_angle", "hair_style", "hair_line", "hair_volume", "hair_length",
    "hair_wave", "hair_colour", "hair_grey", "hair_side", "age", "glasses", "glasses_shape", "beard", "moustache",
    "makeup", "clothing", "clothing_hue", "clothing_tone", "fullness",
    "rest_eyes", "rest_brows", "rest_frown", "rest_mouth", "rest_folds", "eye_shade", "lifelike",
)  # fmt: skip
RESTING = IDENTITY_NAMES[-7:-1]

HAIR_STYLES = (
    "bald", "cropped", "short", "swept", "quiff", "curly", "afro", "fringe", "bob", "long", "long_fringe", "bun",
    "tied_back", "wavy",
)  # fmt: skip
HANGING_STYLES = ("bob", "long", "long_fringe", "wavy")
CLOTHING_STYLES = ("crew", "vneck", "shirt", "turtleneck", "hoodie", "jacket")

_SKIN = ((253, 220, 198), (246, 204, 174), (236, 186, 150), (220, 166, 126), (188, 130, 92), (148, 96, 66),
         (112, 70, 48), (86, 52, 37))  # fmt: skip
_HAIR = ((24, 20, 21), (42, 29, 24), (70, 44, 30), (102, 65, 40), (132, 66, 34), (184, 92, 42), (160, 120, 72),
         (206, 164, 100), (232, 204, 150))  # fmt: skip
_IRIS = ((64, 38, 24), (96, 58, 30), (128, 88, 42), (104, 116, 56), (72, 126, 92), (96, 134, 150), (74, 130, 190),
         (110, 168, 214))  # fmt: skip
_CLOTHES = ((198, 62, 62), (226, 122, 60), (232, 184, 82), (106, 158, 92), (62, 142, 140), (70, 120, 186),
            (74, 84, 150), (134, 92, 160), (204, 108, 144), (198, 62, 62))  # fmt: skip


def column(identity: Tensor, name: str) -> Tensor:  # [..., K] -> [...]
    """One of the numbers of `IDENTITY_NAMES`."""
    return identity[..., IDENTITY_NAMES.index(name)]


def choice(number: Tensor, count: int) -> Tensor:
    """A number in [0, 1] as one of `count` equal bins, int64."""
    return (number * count).long().clamp(0, count - 1)


def sample_identity(count: int, generator: torch.Generator) -> Tensor:
    """`count` people, [count, len(IDENTITY_NAMES)] in [0, 1].

    Numbers are drawn so that looks hang together: build, jaw, brows, beard and make-up lean to one of two sides, age
    greys the hair, dark skin seldom comes with fair hair and eyes. Every look stays possible. All are figurines:
    who is to have human proportions gets a higher `lifelike`, and what is RESTING, afterwards. The generator lives on
    the CPU, so that a seed means the same people everywhere.
    """
    def uniform() -> Tensor:
        return torch.rand(count, generator=generator)

    number = {name: (uniform() + uniform()) / 2 * 1.3 - 0.15 for name in IDENTITY_NAMES
              if name not in (*RESTING, "lifelike")}  # a tent, ends not rare
    man = (uniform() < 0.5).float()
    lean = (man * 2 - 1) * (0.4 + 0.6 * uniform())  # -1 .. 1
    old = uniform() ** 1.6
    number["age"] = old
    tone = uniform() ** 1.35
    number["skin_tone"] = tone
    number["hair_colour"] = (uniform() ** 0.9 * (1.0 - 0.75 * (tone * 1.4).clamp(max=1.0))).clamp(0, 1)
    number["eye_colour"] = (uniform() ** (0.6 + 2.5 * tone)) * (1 - 0.5 * tone * (uniform() < 0.85).float())
    number["hair_grey"] = ((old - 0.55) * 2.4 + 0.3 * (uniform() - 0.5)).clamp(0, 1)
    for name, push in (("jaw_width", 0.22), ("jaw_corner", 0.2), ("brow_thickness", 0.26), ("neck_width", 0.24),
                       ("nose_width", 0.1), ("chin_width", 0.2), ("eye_size", -0.16), ("upper_lip", -0.14),
                       ("lower_lip", -0.1), ("brow_arch", -0.2), ("head_width", 0.06), ("brow_height", -0.1)):
        number[name] = number[name] + push * lean
    style = uniform()
    men = torch.tensor([HAIR_STYLES.index(name) for name in
                        ("bald", "cropped", "cropped", "short", "short", "swept", "swept", "quiff", "quiff", "curly",
                         "afro", "fringe", "wavy", "tied_back")])
    women = torch.tensor([HAIR_STYLES.index(name) for name in
                          ("short", "swept", "curly", "afro", "fringe", "bob", "bob", "long", "long", "long_fringe",
                           "bun", "bun", "tied_back", "wavy", "wavy")])
    picked = torch.where(man > 0, men[choice(style, len(men))], women[choice(style, len(women))])
    number["hair_style"] = (picked + 0.15 + 0.7 * uniform()) / len(HAIR_STYLES)
    for name in ("hair_side", "glasses", "glasses_shape", "clothing", "clothing_hue", "clothing_tone", "freckles"):
        number[name] = uniform()
    number["beard"] = torch.where(man > 0, uniform(), torch.zeros(count))
    number["moustache"] = torch.where(man > 0, uniform() * 0.55 + number["beard"] * 0.45, torch.zeros(count))
    number["makeup"] = torch.where(man > 0, torch.zeros(count), uniform())
    number["lifelike"] = torch.zeros(count)
    number |= {name: torch.full((count,), 0.5) for name in RESTING}
    return torch.stack([number[name].clamp(0, 1) for name in IDENTITY_NAMES], 1)


def _linear(colour: Tensor) -> Tensor:
    """Colours of 0..255 as light, gamma 2."""
    return (colour / 255) ** 2


def decode_identity(identity: Tensor) -> dict[str, Tensor]:  # [B, K] in [0, 1]
    """What the numbers mean: lengths in head units, angles in radians, colours as linear light; each [B] or [B, 3]."""
    def of(name: str, low: float = 0.0, high: float = 1.0) -> Tensor:
        return low + (high - low) * column(identity, name)

    lifelike = of("lifelike")

    def between(figurine: float, human: float) -> Tensor:
        return figurine + (human - figurine) * lifelike

    def proportion(name: str, figurine: tuple[float, float], human: tuple[float, float]) -> Tensor:
        return torch.lerp(of(name, *figurine), of(name, *human), lifelike)

    values = {name: column(identity, name) for name in IDENTITY_NAMES}
    values["man"] = (values["jaw_width"] + values["brow_thickness"] + values["neck_width"]) / 3

    skin = ramp(_SKIN, of("skin_tone"))
    warmth = of("skin_warmth", -1, 1).unsqueeze(1)
    skin = skin * (1 + warmth * torch.tensor([0.02, -0.004, -0.045], device=identity.device))
    values["skin"] = _linear(skin.clamp(0, 255))
    hair = ramp(_HAIR, of("hair_colour"))
    grey = ramp(((140, 136, 134), (196, 194, 192)), of("hair_grey"))
    values["hair"] = _linear(torch.lerp(hair, grey, (of("hair_grey") * 1.1).clamp(0, 0.95).unsqueeze(1)))
    values["brow_colour"] = _linear(torch.lerp(hair, grey, 0.6 * of("hair_grey").unsqueeze(1)) * 0.62)
    values["iris"] = _linear(ramp(_IRIS, of("eye_colour")))
    redness = torch.lerp(*torch.tensor([[0.90, 0.66, 0.64], [0.90, 0.60, 0.61]], device=identity.device),
                         lifelike.unsqueeze(1))
    flesh = torch.sqrt(values["skin"]) * redness
    paint = ramp(((0.66, 0.20, 0.24), (0.80, 0.26, 0.30), (0.62, 0.16, 0.34), (0.84, 0.40, 0.42)), of("lip_colour"))
    made_up = ((of("makeup") - 0.45) * 2).clamp(0, 0.9).unsqueeze(1)
    values["lip_skin"] = torch.lerp(flesh, paint, made_up) ** 2
    cloth = ramp(_CLOTHES, of("clothing_hue"))
    dull = ramp(((34, 36, 44), (58, 62, 74), (120, 122, 128), (236, 232, 226)), of("clothing_hue"))
    plain = (choice(of("clothing_tone") * 0.999, 5) < 2).float().unsqueeze(1)
    shade = (0.55 + 0.5 * ((of("clothing_tone") * 7) % 1)).unsqueeze(1)
    values["cloth"] = _linear(torch.lerp(cloth * shade, dull, plain))
    other = ramp(_CLOTHES, (of("clothing_hue") + 0.37) % 1)
    values["cloth_under"] = _linear(other * 0.3 + 165)

    values["hair_kind"] = choice(of("hair_style"), len(HAIR_STYLES))
    hanging = torch.tensor([name in HANGING_STYLES for name in HAIR_STYLES], device=identity.device)
    values["hair_hangs"] = hanging[values["hair_kind"]].to(identity.dtype)
    values["clothing_kind"] = choice(of("clothing"), len(CLOTHING_STYLES))
    values["eye_x"] = proportion("eye_spacing", (0.312, 0.360), (0.258, 0.298))
    values["eye_half"] = proportion("eye_size", (0.178, 0.232), (0.122, 0.150))
    values["eye_open"] = of("eye_height", 0.80, 1.12) * (between(0.62, 0.46) * values["eye_half"])
    values["eye_open"] = values["eye_open"] * (1 + of("rest_eyes", -0.28, 0.28) * lifelike)
    values["iris_radius"] = between(0.565, 0.40) * values["eye_half"]
    values["eye_slant"] = of("eye_tilt", -0.06, 0.14)
    values["nose_y"] = proportion("nose_length", (-0.27, -0.38), (-0.30, -0.40))
    values["nose_wide"] = (0.85 + 0.4 * values["nose_width"]) * between(1.0, 0.90)
    values["mouth_y"] = values["nose_y"] - of("mouth_height", 0.235, 0.275)
    values["mouth_half"] = proportion("mouth_width", (0.235, 0.315), (0.198, 0.260))
    values["upper_thick"] = proportion("upper_lip", (0.040, 0.085), (0.060, 0.106))
    values["lower_thick"] = proportion("lower_lip", (0.060, 0.115), (0.056, 0.104))
    values["brow_y"] = proportion("brow_height", (0.245, 0.325), (0.120, 0.200))
    values["brow_y"] = values["brow_y"] + of("rest_brows", -0.04, 0.04) * lifelike
    values["brow_half"] = torch.lerp(values["eye_half"] * 1.26, of("eye_size", 0.195, 0.230), lifelike)
    values["brow_thick"] = of("brow_thickness", 0.022, 0.060)
    values["brow_bend"] = of("brow_arch", 0.01, 0.075)
    values["brow_turn"] = of("brow_tilt", -0.055, 0.020)
    values["glasses_on"] = (of("glasses") > 0.74).float()
    values["glasses_form"] = choice(of("glasses_shape"), 4)
    full = ((of("beard") - 0.72) / 0.28).clamp(0, 1)
    values["beard_full"] = (full > 0).float() * (0.35 + 0.65 * full)
    values["stubble"] = ((of("beard") - 0.30) / 0.25).clamp(0, 1) * (1 - (full > 0).float() * 0.5)
    values["moustache_full"] = ((of("moustache") - 0.66) / 0.1).clamp(0, 1)
    values["wrinkle"] = ((of("age") - 0.35) / 0.65).clamp(0, 1)
    values["eye_paint"] = ((of("makeup") - 0.35) / 0.65).clamp(0, 1)
    values["lash"] = (0.25 + 0.75 * (of("makeup") * 2.2).clamp(0, 1)) * (1 - 0.35 * values["man"]) + 0.25 * lifelike
    for name, most in (("rest_frown", 0.035), ("rest_mouth", 0.035)):
        values[name] = of(name, -most, most) * lifelike
    values["rest_folds"] = of("rest_folds") * lifelike
    values["eye_shade"] = of("eye_shade", 0.3, 1.2) * lifelike
    values["quarter_turn"] = torch.full_like(values["age"], math.pi / 2)
    return values
