"""speak: controllable talking heads from a photo, speech, head motion and emotion.

Importing this package is light: nothing heavy is imported, compiled or looked for until it is used.

    model = speak.load()
    for frame in model.animate("id.png", "speech.wav", "pose.mp4", "happy:0.7"):
        ...  # uint8 [H, W, 3], 30 a second
"""

from __future__ import annotations

import typing

from speak.errors import SpeakError
from speak.version import __version__

if typing.TYPE_CHECKING:
    from pathlib import Path

    from speak.generation import TalkingHead

__all__ = ["SpeakError", "__version__", "load"]


def load(weights: str | Path | None = None, device: str | None = None, dtype: str = "auto") -> TalkingHead:
    """A model ready to animate photos: of a checkpoint, default the weights that come with speak.

    Args:
        weights: a checkpoint of stage `speak`, or one that `animate --save-adapted` wrote.
        device: cpu or cuda; None: cuda where there is one.
        dtype: auto (bfloat16 where the device computes in it), float32, bfloat16 or float16.
    Raises:
        SpeakError: no such weights, unreadable, of another stage, a device that is not here.
    """
    from speak.generation import load as load_head

    return load_head(weights, device, dtype)
