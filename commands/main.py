"""Names of the commands, help, version and exit codes. A command is imported when it is called.

tristream COMMAND …    or    python -m tristream COMMAND …    or    python orchestrate.py COMMAND …
"""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Callable

from tristream import environment, interrupts

COMMANDS = {
    "run": "Do the whole job on a folder of your own videos.",
    "demo": "Render the built-in data set, train three streams, fuse, classify, detect anomalies.",
    "workshop": "Render the built-in data set: videos of known best accuracy.",
    "check": "Report the files that can be used, and the reason for each other; needs no run.",
    "unpack": "Unpack an archive of videos into a new folder, safely.",
    "index": "Read a labelled folder, a CSV or official lists into RUN/videos.csv.",
    "train-stream": "Train one stream alone: spatial, temporal or audio.",
    "embed": "Compute one embedding per video and trained stream.",
    "fuse": "Fit the linear SVM and the anomaly detector on all streams; show the effect of each.",
    "cross-validate": "Test every labelled video once, by streams that have not seen its group.",
    "report": "Write one HTML file about a run that opens without a network.",
    "show": "Show the state of a run, outdated parts and the next command.",
    "export": "Write the embeddings of a run as Parquet, npz, CSV or a FAISS index.",
    "similar": "List the videos of a run that are most similar to one video.",
    "predict": "Name the action in new videos.",
    "detect": "Score how abnormal new videos are, when, and by which stream.",
    "serve": "Serve a run over HTTP: a process per stream, the decision, and a web page.",
    "flow": "Draw optical flow: flow show VIDEO writes frames, flow and motion side by side.",
    "plan": "Show the moments of a video that each stream reads.",
    "models": "List encoders, aggregators, flow estimators and detectors by name.",
    "settings": "Print every setting with its default, permitted values and meaning.",
    "bench": "Measure speed and memory against the limits of this machine.",
    "weights": "List, download or convert pretrained weights by name.",
    "cache": "Show the size of the cache, or reduce it.",
    "doctor": "Show versions, decoders and devices, and the remedy for each problem.",
}

EPILOG = (
    "First look: tristream demo. Your own videos, one folder per class: tristream index --data DIR, "
    "then train-stream spatial | temporal | audio, embed, fuse, predict FILE. "
    "Exit codes: 0 success; 2 invalid input, reported before any work starts; 3 finished, some "
    "videos rejected; 4 the environment failed (disk, memory, network); 130 interrupted; 1 a bug."
)
CLOSED_PIPE = 141  # as the shell reports a program that SIGPIPE has ended


def main() -> None:
    """Run the command line and exit with its code; after Ctrl-C always with 130."""
    interrupts.watch()
    code: object
    try:
        code = _call(sys.argv[1:])
    except BaseException as error:
        if not (interrupts.happened() or isinstance(error, KeyboardInterrupt)):
            raise
        code = interrupts.INTERRUPTED
    if interrupts.happened() or code == interrupts.INTERRUPTED:
        interrupts.leave()
        code = interrupts.INTERRUPTED
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(f"\n{interrupts.WORDS}\n")
    sys.exit(code if isinstance(code, int) else 0)


def _call(arguments: list[str]) -> object:
    """Run one command line; return its exit code."""
    environment.prepare()
    try:
        if arguments == ["--version"]:
            import tristream

            sys.stdout.write(f"tristream {tristream.__version__}\n")
        else:
            _app(arguments)(arguments or ["--help"])
        code: object = 0
    except SystemExit as end:  # click and rich turn a closed pipe into code 1
        code = CLOSED_PIPE if isinstance(end.__context__, BrokenPipeError) else end.code
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        environment.discard_stdout()
    return code


def _app(arguments: list[str]) -> Callable[[list[str]], None]:
    """Return the application with the called command in full and the others by name alone."""
    import typer

    app = typer.Typer(
        name="tristream",
        help="Train per-stream video embeddings, classify actions and detect anomalies. "
        "--version: print the version.",
        epilog=EPILOG,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    called = next((argument for argument in arguments if not argument.startswith("-")), None)
    for name, summary in COMMANDS.items():
        if name == called:
            module = importlib.import_module(f"tristream.commands.{name.replace('-', '_')}")
            if hasattr(module, "app"):  # a command with commands of its own
                app.add_typer(module.app, name=name)
            else:
                app.command(name)(module.run)
        else:
            app.command(name, help=summary)(_not_called)
    return app


def _not_called() -> None:
    raise AssertionError("another command than the requested one was called")
