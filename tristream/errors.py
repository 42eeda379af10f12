"""Errors that tristream raises on purpose. Everything else that is raised is a bug."""

from __future__ import annotations


class TristreamError(ValueError):
    """Invalid input or state; the message names the thing, its value, what it must be and the remedy.

    The command line prints the message and exits with 2.
    """


class UsageError(TristreamError):
    """An argument, option or setting that cannot be used as given."""


class MachineError(TristreamError):
    """The environment failed: disk, memory, network or a process that does not start.

    The command line prints the message and exits with 4.
    """
