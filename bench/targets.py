"""Targets beside measured values, from the tables of the other benches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tristream.bench.table import Table

# what, bench, start of the table's title, start of the row's name, column, "at least" or "at most", bound
TARGETS = (
    ("InceptionResNetV2: (network + decode) CPU / cores / whole", "end-to-end", "end to end", "spatial",
     "(network + decode) CPU / cores / whole", "at least", 0.95),
    ("InceptionResNetV2: network / whole", "end-to-end", "end to end", "spatial", "network / whole", "at least", 0.93),
    ("InceptionResNetV2: OpenVINO / torch", "networks", "networks, one item", "inception_resnet_v2", "openvino / torch",
     "at least", 1.9),
    ("InceptionResNetV2: error of OpenVINO", "networks", "networks, errors", "inception_resnet_v2", "error of openvino",
     "at most", 1e-5),
    ("FlowNet2, float32: times as fast as stock", "networks", "FlowNet2", "openvino float32", "times as fast as stock",
     "at least", 4.5),
    ("FlowNet2, float32: error", "networks", "FlowNet2", "openvino float32", "error", "at most", 1e-5),
    ("FlowNet2, bf16: times as fast as stock", "networks", "FlowNet2", "openvino bf16", "times as fast as stock",
     "at least", 8.0),
    ("FlowNet2: peak memory, MB", "networks", "FlowNet2: what", "peak memory, MB", "here", "at most", 1500.0),
    ("flow codec / FlowNet2", "networks", "FlowNet2: what", "codec / float32 pair", "here", "at most", 0.02),
    ("flow cache, kB a pair", "cache", "flow in the cache", "kilobytes", "here", "at most", 50.0),
    ("flow cache, largest error, px", "cache", "flow in the cache", "largest error, px", "here", "at most", 1 / 128),
    ("second run / first run", "cache", "a second run", "second / first", "seconds", "at most", 1 / 50),
    ("decoding: pass over all streams / over one", "decode", "decoding in a pass", "all / one", "CPU s of decoding",
     "at most", 1.1),
    ("peak memory: most videos / one", "scale", "growth", "memory, videos", "last / first", "at most", 1.1),
    ("peak memory: longest / 7 s", "scale", "growth", "memory, length", "last / first", "at most", 1.2),
    ("tristream --help, s", "startup", "from process start", "tristream --help", "median, s", "at most", 0.5),
)  # fmt: skip


def summary(found: Mapping[str, Sequence[Mapping[str, Any]]]) -> Table:
    """One row for each target whose bench was run.

    Args:
        found: bench → its tables, as `Table.to_json` gives them.
    """
    rows: list[tuple[str | float | None, ...]] = []
    for what, bench, title, row, column, sense, bound in TARGETS:
        if bench in found:
            value = _look_up(found[bench], title, row, column)
            is_reached = value is not None and (
                value >= bound if sense == "at least" else value <= bound
            )
            verdict = (
                "not measured here" if value is None else "reached" if is_reached else "missed"
            )
            rows.append((what, value, f"{sense} {bound:.3g}", verdict))
    notes = [
        "ratios of medians in one run; a machine that is busy with other work takes from those of whole extractions"
    ]
    return Table("targets", ["what", "here", "target", ""], rows, notes)


def _look_up(
    tables: Sequence[Mapping[str, Any]], title: str, row: str, column: str
) -> float | None:
    for table in tables:
        if table["title"].startswith(title) and column in table["header"]:
            for found in table["rows"]:
                if str(found[table["header"][0]]).startswith(row) and found[column] is not None:
                    return float(found[column])
    return None
