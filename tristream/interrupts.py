"""Ctrl-C, remembered: libraries may swallow or convert a KeyboardInterrupt, but not this record."""

from __future__ import annotations

import _thread
import os
import signal
import sys
import threading
from types import FrameType

INTERRUPTED = 130
WORDS = "interrupted; finished work is kept, rerun the same command to resume"

# OpenVINO calls Python from C++ that catches no exception: one raised there aborts the process.
CALLED_FROM_CPP = frozenset({"openvino", "openvino_telemetry"})
RETRY_SECONDS = 0.05

_outermost: FrameType | None = None
_n_interrupts = 0


def watch() -> None:
    """Record every SIGINT of this process from now on, in addition to raising KeyboardInterrupt.

    Once the interpreter shuts down, where an exception would only be printed, a SIGINT ends the
    process with 130. Outside the main thread nothing is changed.
    """
    global _outermost, _n_interrupts
    if threading.current_thread() is not threading.main_thread():
        return
    _n_interrupts = 0
    _outermost = _root(None)
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # as `nohup` and `&` set it
        signal.signal(signal.SIGINT, _record)
        sys.unraisablehook = _report_unraisable


def happened() -> bool:
    """Return True if this process was interrupted since `watch`."""
    return _n_interrupts > 0


def check() -> None:
    """Raise KeyboardInterrupt if an earlier one was swallowed."""
    if _n_interrupts and threading.current_thread() is threading.main_thread():
        raise KeyboardInterrupt


def leave() -> None:
    """End the process at once at the next SIGINT: an earlier one has been answered."""
    global _outermost
    if happened():
        _outermost = None


def _record(number: int, frame: FrameType | None) -> None:
    global _n_interrupts
    _n_interrupts += 1
    if _root(frame) is not _outermost:
        os._exit(INTERRUPTED)
    if _is_inside(frame, CALLED_FROM_CPP):
        later = threading.Timer(RETRY_SECONDS, _interrupt_again)
        later.daemon = True
        later.start()
        return
    raise KeyboardInterrupt


def _interrupt_again() -> None:
    """Send SIGINT to the main thread, which ends a blocking call as well."""
    if hasattr(signal, "pthread_kill"):
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
    else:
        _thread.interrupt_main()


def _report_unraisable(unraisable: sys.UnraisableHookArgs) -> None:
    """Print what a finalizer raises, except an interrupt, which is recorded."""
    if not (happened() and issubclass(unraisable.exc_type, KeyboardInterrupt)):
        sys.__unraisablehook__(unraisable)


def _is_inside(frame: FrameType | None, packages: frozenset[str]) -> bool:
    """Return True if a function of one of the packages is running."""
    while frame is not None:
        if str(frame.f_globals.get("__name__")).partition(".")[0] in packages:
            return True
        frame = frame.f_back
    return False


def _root(frame: FrameType | None) -> FrameType | None:
    """Return the outermost frame of the stack; of the caller's for None."""
    current = frame if frame is not None else sys._getframe()
    while current.f_back is not None:
        current = current.f_back
    return current
