"""Variables and files of this process that libraries read."""

from __future__ import annotations

import contextlib
import os
import sys

from tristream.media.machine import n_cores


def prepare() -> None:
    """Set variables of this process and its children before libraries are imported.

    Values that the user has set stay.
    """
    # Waiting threads sleep: spinning ones would take the cores from the decode processes.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # numpy's OpenBLAS can wait for itself for ever when several of our threads multiply at once (seen in log_mel:
    # exec_blas without end, numpy 2.4.6); its products are small here, and torch does not use it.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # Libraries see all cores of a machine, not the share of them that a container has.
    if n_cores() < (os.cpu_count() or 1):
        os.environ.setdefault("OMP_NUM_THREADS", str(n_cores()))


def discard_stdout() -> None:
    """Send buffered output nowhere after a closed pipe, so that the interpreter's last flush is silent."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
