"""A pipe whose other end the parent holds: it ends with the parent however the parent ends, SIGKILL included.

Chosen over PR_SET_PDEATHSIG: that one exists on Linux only, fires when the *thread* that forked ends, and misses a
parent that died before the child asked for it. A pipe has none of these gaps.
"""

import contextlib
import os
import signal
import threading
import time

from onionrelay.base.limits import LIFELINE_GRACE


def hold_lifeline(fd: int, *, grace: float = LIFELINE_GRACE) -> None:
    """Make this process end when `fd` reaches its end: SIGTERM to itself, and a hard exit after `grace` seconds.

    It watches from a thread, so a busy or hung event loop cannot outlive the parent either.
    """
    threading.Thread(target=_watch, args=(fd, grace), name="lifeline", daemon=True).start()


def _watch(fd: int, grace: float) -> None:
    with contextlib.suppress(OSError):  # an fd that cannot be read is an end, too
        while os.read(fd, 64):
            pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(grace)
    os._exit(1)
