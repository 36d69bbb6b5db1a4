"""Signals that end a process, where Python would lose them.

A handler that raises does so wherever the main thread is. Where that is a finaliser (`__del__`, a weak reference's
callback), Python prints "Exception ignored in" and goes on as if nothing had been asked.
"""

import signal
import sys
from types import FrameType

AGAIN_S = 0.05  # long enough for the finaliser to have returned


def keep_interrupts() -> None:
    """From here on, a SystemExit or KeyboardInterrupt lost in a finaliser is raised once more in the main thread.

    Takes SIGALRM. Call it from the main thread.
    """
    report = sys.unraisablehook

    def on_lost(lost: "sys.UnraisableHookArgs") -> None:
        if not isinstance(lost.exc_value, SystemExit | KeyboardInterrupt):
            report(lost)
            return
        again = lost.exc_value.with_traceback(None)

        def raise_again(_number: int, _frame: FrameType | None) -> None:
            raise again

        signal.signal(signal.SIGALRM, raise_again)
        signal.setitimer(signal.ITIMER_REAL, AGAIN_S)

    sys.unraisablehook = on_lost
