"""Start-up time: help, and the first embedding of a fresh process."""

from __future__ import annotations

import statistics

from tristream.bench.inputs import Subject
from tristream.bench.table import Table
from tristream.bench.timing import run_child

HELP_SECONDS = 0.5


def run(subject: Subject) -> list[Table]:
    """Seconds from process start, each in processes of its own."""
    lines = {
        "python, nothing imported": ["-c", "pass"],
        "tristream --help": ["-m", "tristream", "--help"],
        "tristream embed --help": ["-m", "tristream", "embed", "--help"],
        "import torch": ["-c", "import torch"],
        "import openvino": ["-c", "import openvino"],
    }
    seconds: dict[str, list[float]] = {name: [] for name in lines}
    for _ in range(subject.repeats):
        for name, arguments in lines.items():
            seconds[name].append(run_child(arguments).seconds)
    rows = [(name, statistics.median(times), min(times)) for name, times in seconds.items()]
    return [
        Table(
            "from process start",
            ["what", "median, s", "least, s"],
            rows,
            [f"{subject.repeats} processes each, in turns; target for --help: {HELP_SECONDS} s"],
        )
    ]
