"""Calls that a pickle would make, read from its bytes; nothing is loaded or called.

PyTorch's own restricted loader has been broken twice (CVE-2025-32434, CVE-2026-24747): it is the second wall, not the
only one.
"""

from __future__ import annotations

import pickletools

# What the pickles of plain state dicts refer to. PyTorch's loader allows less of it; what is not here it never sees.
ALLOWED_MODULES = ("torch", "numpy", "collections", "_codecs")
ALLOWED_BUILTINS = (
    "set",
    "frozenset",
    "dict",
    "list",
    "tuple",
    "int",
    "float",
    "complex",
    "bytearray",
    "slice",
)
_STRINGS = (
    "SHORT_BINUNICODE",
    "BINUNICODE",
    "BINUNICODE8",
    "UNICODE",
    "STRING",
    "BINSTRING",
    "SHORT_BINSTRING",
)
_STORES = ("MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT")
_FETCHES = ("GET", "BINGET", "LONG_BINGET")


def calls_in(data: bytes) -> set[str]:
    """Names ("module.name") of everything that a pickle refers to; "?" for one that cannot be told.

    Raises:
        TristreamError: these bytes are no pickle.
    """
    calls: set[str] = set()
    memo: dict[int, str] = {}
    strings: list[str] = []  # the latest pushed, in order: the last two are what STACK_GLOBAL takes
    for opcode, argument, _ in pickletools.genops(data):
        name = opcode.name
        if name in ("GLOBAL", "INST"):
            calls.add(str(argument).replace(" ", ".", 1))
        elif name == "STACK_GLOBAL":
            calls.add(".".join(strings[-2:]) if len(strings) > 1 else "?")
        elif name.startswith("EXT"):
            calls.add("?")
        elif name in _STRINGS:
            strings.append(str(argument))
        elif name in _STORES and strings:
            memo[len(memo) if argument is None else int(argument)] = strings[-1]
        elif name in _FETCHES:
            strings.append(memo.get(int(argument or 0), "?"))
        strings = strings[-2:]
    return calls


def forbidden(names: set[str]) -> list[str]:
    """Those of `names` that no plain weights refer to, sorted."""

    def is_plain(name: str) -> bool:
        module, _, last = name.rpartition(".")
        if module in ("builtins", "__builtin__"):
            return last in ALLOWED_BUILTINS
        return module.partition(".")[0] in ALLOWED_MODULES and "?" not in name

    return sorted(name for name in names if not is_plain(name))
