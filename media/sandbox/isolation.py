"""Isolation of a decode process, before it opens anything: memory, files, network, other programs.

Limits apply on every system. On Linux, without any privilege, Landlock refuses every write to the file system, and a
seccomp filter refuses sockets, programs and signals to other processes.
"""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import struct
import sys

_PR_SET_PDEATHSIG, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 1, 22, 38
# System calls, with the same numbers on every architecture.
_LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = 444, 445, 446
_LANDLOCK_RIGHTS = (0, 13, 14, 15, 15, 16)  # number of known file rights by interface version
_LANDLOCK_WRITE, _LANDLOCK_IOCTL = 1 << 1, 1 << 15
_LANDLOCK_READ = 1 << 2 | 1 << 3  # read a file, list a folder: stay allowed

_SECCOMP_ARCHITECTURE = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
# sockets · programs · signals and memory of other processes
_REFUSED_NAMES = (
    *(
        "socket",
        "connect",
        "bind",
        "listen",
        "execve",
        "execveat",
        "kill",
        "pidfd_send_signal",
        "ptrace",
    ),
    *("process_vm_readv", "process_vm_writev", "io_uring_setup"),
)
_REFUSED_CALLS = {
    "x86_64": dict(
        zip(_REFUSED_NAMES, (41, 42, 49, 50, 59, 322, 62, 424, 101, 310, 311, 425), strict=True)
    ),
    "aarch64": dict(
        zip(
            _REFUSED_NAMES,
            (198, 203, 200, 201, 221, 281, 129, 424, 117, 270, 271, 425),
            strict=True,
        )
    ),
}
_X32_CALLS = 0x40000000  # a second set of numbers for the same calls on x86_64


def isolate(
    *, memory_bytes: int, parent: int, network: bool = False, device: str | None = None
) -> dict[str, str]:
    """Apply all isolation that this system offers to this process, irrevocably; return the result by kind.

    Args:
        memory_bytes: of address space.
        parent: process with which this one ends.
        network: keep sockets, but not listening ones: for a live source.
        device: a camera, which must be opened for writing too.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
    return {
        "limits": _set_limits(memory_bytes),
        "end with the parent": _end_with(parent),
        "writing": _refuse_writing(device),
        "network, programs": _refuse_calls(but=("socket", "connect", "bind") if network else ()),
    }


def _set_limits(memory_bytes: int) -> str:
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    return f"{memory_bytes >> 20} MiB of memory, 64 open files, files of 0 bytes, no core dump"


def limit_cpu_seconds(seconds: float) -> None:
    """Allow this process so many more seconds of processor time; then the system ends it."""
    import resource

    used = resource.getrusage(resource.RUSAGE_SELF)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(
        resource.RLIMIT_CPU, (int(used.ru_utime + used.ru_stime + seconds) + 1, hard)
    )


def _end_with(parent: int) -> str:
    if not sys.platform.startswith("linux"):
        return "when the socket closes"
    _libc().prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it ended before the line above
        raise SystemExit(0)
    return "killed by the system"


def _refuse_writing(device: str | None) -> str:
    if not sys.platform.startswith("linux"):
        return "limits only"
    libc = _libc()
    version = libc.syscall(_LANDLOCK_CREATE, None, 0, 1)
    if version < 1:
        return "limits only: this kernel has no Landlock"
    rights = (1 << _LANDLOCK_RIGHTS[min(version, len(_LANDLOCK_RIGHTS) - 1)]) - 1
    rules = struct.pack("Q", rights & ~_LANDLOCK_READ)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    ruleset = libc.syscall(_LANDLOCK_CREATE, rules, len(rules), 0)
    if device is not None and ruleset >= 0:
        _allow_device(libc, ruleset, device, rights)
    if ruleset < 0 or libc.syscall(_LANDLOCK_RESTRICT, ruleset, 0):
        return f"limits only: Landlock failed ({os.strerror(ctypes.get_errno())})"
    os.close(ruleset)
    return f"refused (Landlock {version})"


def _allow_device(libc: ctypes.CDLL, ruleset: int, device: str, rights: int) -> None:
    """Allow writing and ioctl for a camera; reading is never refused."""
    handle = os.open(device, os.O_PATH | os.O_CLOEXEC)
    rule = struct.pack("=Qi", rights & (_LANDLOCK_WRITE | _LANDLOCK_IOCTL), handle)
    libc.syscall(_LANDLOCK_ADD, ruleset, 1, rule, 0)
    os.close(handle)


def _refuse_calls(*, but: tuple[str, ...] = ()) -> str:
    """Install a seccomp filter: the listed calls fail with EPERM, all others pass."""
    machine = platform.machine()
    if not sys.platform.startswith("linux") or machine not in _REFUSED_CALLS:
        return "not refused: no filter for this system"
    filter_program = _seccomp_program(machine, but)
    buffer = ctypes.create_string_buffer(filter_program)
    program = struct.pack("HxxxxxxP", len(filter_program) // 8, ctypes.addressof(buffer))
    libc = _libc()
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if libc.prctl(_PR_SET_SECCOMP, 2, program, 0, 0):
        return f"not refused: seccomp failed ({os.strerror(ctypes.get_errno())})"
    return "refused (seccomp)" + (f", but {', '.join(but)}" if but else "")


def _seccomp_program(machine: str, but: tuple[str, ...]) -> bytes:
    """Return classic BPF over (call number, architecture); 8 bytes a step: code, jump if true, if false, constant."""
    load, equal, at_least, answer = 0x20, 0x15, 0x35, 0x06
    allow, refuse = 0x7FFF0000, 0x00050000 | 1  # EPERM
    calls = sorted(number for name, number in _REFUSED_CALLS[machine].items() if name not in but)
    steps = [
        (load, 0, 0, 4),  # architecture
        (equal, 0, len(calls) + 3, _SECCOMP_ARCHITECTURE[machine]),  # another one: refuse
        (load, 0, 0, 0),  # call number
        (at_least, len(calls) + 1, 0, _X32_CALLS),
        *((equal, len(calls) - i, 0, call) for i, call in enumerate(calls)),
        (answer, 0, 0, allow),
        (answer, 0, 0, refuse),
    ]
    return b"".join(struct.pack("HBBI", *step) for step in steps)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
