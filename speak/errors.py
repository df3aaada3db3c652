"""The one error that users see as a line of text rather than as a traceback."""


class SpeakError(Exception):
    """What went wrong with which file or option, and what to do about it, in one line.

    The command line prints it and exits with status 2; a library call raises it.
    """
