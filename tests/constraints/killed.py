"""A process that is ended from outside, as one that runs out of memory."""

import os
import signal


os.kill(os.getpid(), signal.SIGKILL)
