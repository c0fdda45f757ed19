"""Entry points, each for `python -m scripts.<name>`."""

import signal
import sys


if sys.argv[0] == "-m":  # what Python puts there until it has found the command's module
    # Ctrl-C while a command is still importing: an end, no traceback.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
