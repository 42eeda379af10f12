"""The front door: names of the commands, their help, and exit codes. Imports a command when it is called.

tristream COMMAND …    or    python orchestrate.py COMMAND …
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable

from tristream.commands import environment

COMMANDS = {
    "demo": "Render the built-in data set, train the three streams, fuse, classify, find anomalies.",
    "workshop": "Render the built-in data set: videos whose best possible accuracy is known.",
    "check": "Say which files can be used, and why the others cannot; needs no run.",
    "unpack": "Unpack an archive of videos into a new folder, safely.",
    "index": "Read a labelled folder, a CSV or official lists into RUN/videos.csv.",
    "train-stream": "Train one stream, and nothing else: spatial, temporal or audio.",
    "embed": "Turn every video into one embedding per trained stream.",
    "fuse": "Concatenate the streams, fit the SVM and the anomaly detector, and say what each stream is worth.",
    "report": "Write what a run has found into one HTML file that opens without a network.",
    "show": "Show what a run holds, what of it is out of date, and the next command.",
    "export": "Write the embeddings of a run as Parquet, npz, CSV or a FAISS index.",
    "similar": "List the videos of a run that are most like one video.",
    "predict": "Name the action in new videos.",
    "detect": "Score how abnormal new videos are, and which stream says so.",
    "flow": "Look at optical flow: flow show VIDEO writes frames, flow, motion and chosen frames side by side.",
    "plan": "Show which moments of a video each stream looks at.",
    "bench": "Measure speed and memory here, against the limits of this machine.",
    "weights": "Pretrained weights by name: list what there is, get it, take in a file you have.",
    "cache": "Show what the cache takes, or make it smaller.",
    "doctor": "Show versions, decoders and devices, and what to do about what is wrong with them.",
}

EPILOG = (
    "A first look: tristream demo. Your own videos, one folder per class: tristream index --data DIR, then "
    "train-stream spatial | temporal | audio, embed, fuse, predict FILE. "
    "Exit codes: 0 all well; 2 your mistake, said before any work; 3 finished, some videos rejected; "
    "4 the environment failed (disk, memory, network); 130 interrupted; 1 our bug."
)


def main() -> None:
    """Runs the command line and exits with its code."""
    try:
        environment.prepare()
        arguments = sys.argv[1:]
        _app(arguments)(arguments or ["--help"])
    except KeyboardInterrupt:
        sys.stderr.write(
            "\ninterrupted; what was finished is kept, the same command goes on from there\n"
        )
        sys.exit(130)


def _app(arguments: list[str]) -> Callable[[list[str]], None]:
    """The application with the asked-for command in full and the others by name: help must not wait for torch."""
    import typer

    app = typer.Typer(
        name="tristream",
        help="Folders of videos in; one embedding per video and stream out; the action named, the abnormal found.",
        epilog=EPILOG,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    asked = next((argument for argument in arguments if not argument.startswith("-")), None)
    for name, summary in COMMANDS.items():
        if name == asked:
            module = importlib.import_module(f"tristream.commands.{name.replace('-', '_')}")
            if hasattr(module, "app"):  # a command with commands of its own
                app.add_typer(module.app, name=name)
            else:
                app.command(name)(module.run)
        else:
            app.command(name, help=summary)(_not_called)
    return app


def _not_called() -> None:
    raise AssertionError("a command that was not asked for was called")
