"""speak: controllable talking heads from a photo, speech, head motion and emotion.

Importing this package is light: nothing heavy is imported, compiled or looked for until it is used.
"""

from speak.errors import SpeakError
from speak.version import __version__

__all__ = ["SpeakError", "__version__"]
