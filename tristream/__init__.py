"""Per-stream video embeddings, action classification and anomaly detection.

In a checkout the rooms (`media/`, `streams/`, …) lie beside this folder; installed, they lie in it.
"""

from __future__ import annotations

from pathlib import Path

_CHECKOUT = Path(__file__).resolve().parents[1]
if (_CHECKOUT / "pyproject.toml").is_file() and (_CHECKOUT / "orchestrate.py").is_file():
    __path__.append(str(_CHECKOUT))
