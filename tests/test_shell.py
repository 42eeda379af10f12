"""The command line in a shell: closed pipes, `~`, the version and Ctrl-C."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from safetensors.numpy import save_file

from tristream import interrupts, settings, streams
from tristream.errors import UsageError
from tristream.paths import expanded
from tristream.pretrained import Pretrained, places

HOME = Path(__file__).parents[1]
TRISTREAM = [sys.executable, "-m", "tristream"]


def environment(folder: Path, **more: str) -> dict[str, str]:
    return {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(HOME), "HOME": str(folder), **more}


def shell(*words: object, folder: Path, env: dict[str, str] | None = None):
    """Run tristream in a folder; return the finished process."""
    return subprocess.run(
        [*TRISTREAM, *map(str, words)],
        cwd=folder,
        env=env or environment(folder),
        capture_output=True,
        text=True,
        check=False,
    )


def without_reader(*words: object, folder: Path) -> tuple[int, str]:
    """Run tristream with a stdout that nobody reads; return exit code and stderr."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as closed:
        done = subprocess.run(
            [*TRISTREAM, *map(str, words)],
            cwd=folder,
            env=environment(folder),
            stdout=closed,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    return done.returncode, done.stderr


@pytest.fixture
def copy(trained_run, tmp_path):
    """A folder with a trained run of its own."""
    return Path(shutil.copytree(trained_run, tmp_path / "work"))


@pytest.mark.parametrize(
    "words",
    ["--help", "--version", "detect --help", "settings", "settings --markdown", "settings --json",
     "cache info --json", "weights list --json"],
)  # fmt: skip
def test_a_closed_pipe_ends_a_command_silently(tmp_path, words):
    (tmp_path / "cache").mkdir()
    code, heard = without_reader(*words.split(), folder=tmp_path)
    assert code in (0, 141)
    if not words.endswith("--json"):  # their tables are on stderr
        assert heard == ""
    assert "Error" not in heard
    assert "Exception" not in heard


@pytest.mark.slow
def test_every_command_that_prints_rows_survives_a_closed_pipe(copy, two_classes):
    clip = two_classes / "spin" / "3.mp4"
    for words in (
        ["check", two_classes],
        ["check", two_classes, "--json"],
        ["show"],
        ["show", "--json"],
        ["plan", clip],
        ["similar", "spin/3.mp4"],
        ["predict", clip],
        ["predict", clip, "--json"],
        ["detect", clip],
        ["export", "--out", copy / "export"],
    ):
        code, heard = without_reader(*words, folder=copy)
        assert code in (0, 141), (words, heard)
        assert "Traceback" not in heard
        assert "BrokenPipe" not in heard
        assert "Exception ignored" not in heard
        if words[0] == "show":
            assert heard == ""


def test_a_reader_that_leaves_after_one_line_gets_that_line(tmp_path):
    (tmp_path / "err").touch()
    line = f"{sys.executable} -m tristream settings 2>err | head -n 1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", line], cwd=tmp_path, env=environment(tmp_path), capture_output=True,
        text=True, check=True,
    )  # fmt: skip
    first, code = done.stdout.splitlines()
    assert first.startswith("data.max_side_px = ")
    assert code in ("0", "141")
    assert (tmp_path / "err").read_text() == ""


def test_the_version_is_printed(tmp_path):
    from importlib.metadata import version

    done = shell("--version", folder=tmp_path)
    assert (done.returncode, done.stdout) == (0, f"tristream {version('tristream')}\n")
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("words", "variable"), [([], "~/tri cache"), (["--cache=~/tri cache"], "")]
)
def test_a_tilde_in_an_option_or_a_variable_is_the_home_folder(tmp_path, words, variable):
    (tmp_path / "tri cache").mkdir()
    env = environment(tmp_path, **({"TRISTREAM_CACHE": variable} if variable else {}))
    done = shell("cache", "info", "--json", *words, folder=tmp_path, env=env)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["cache"] == str(tmp_path / "tri cache")
    assert not (tmp_path / "~").exists()


@pytest.mark.parametrize("home", [None, ""])
def test_without_a_home_folder_a_tilde_is_refused(tmp_path, home):
    env = environment(tmp_path, TRISTREAM_CACHE="~/x")
    del env["HOME"]
    if home is not None:
        env["HOME"] = home
    done = shell("cache", "info", folder=tmp_path, env=env)
    assert done.returncode == 2
    assert "~/x: the home folder is not known (HOME is not set); give a full path" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_home_folder_of_an_unknown_user_is_refused():
    with pytest.raises(UsageError, match="~nobody-of-that-name/x: the home folder of ~nobody"):
        expanded("~nobody-of-that-name/x")
    assert expanded("a/~") == Path("a/~")
    assert expanded("") == Path()


def test_a_tilde_in_a_toml_file_is_the_home_folder(tmp_path, monkeypatch):
    import numpy as np

    monkeypatch.setenv("HOME", str(tmp_path))
    save_file({"a": np.zeros(1)}, tmp_path / "net.safetensors")
    name = next(
        name
        for name in streams.names()
        if "encoder_weights" in streams.config_class(name).model_fields
    )
    (tmp_path / "mine.toml").write_text(
        f'[streams.{name}]\nencoder_weights = "~/net.safetensors"\n'
    )
    for folder in (None, tmp_path / "elsewhere"):
        where = places(folder, tmp_path)
        loaded = settings.load(
            "light", Path("~/mine.toml"), stream_names=[name], pretrained=Pretrained(where)
        )
        assert loaded.streams[name].encoder_weights == tmp_path / "net.safetensors"


def test_variables_with_a_tilde_lead_to_the_weights_in_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("TRISTREAM_CACHE", "~/cache")
    monkeypatch.setenv("TRISTREAM_WEIGHTS", "~/weights")
    where = places(None)
    assert (where.weights_dir, where.cache) == (tmp_path / "weights", tmp_path / "cache/weights")
    assert places(tmp_path / "w", tmp_path / "c").cache == tmp_path / "c/weights"


# One process, in which an interrupt comes where Python or a library would lose it.
LOST = """
import os, signal, sys
import tristream.commands.workshop as workshop
from tristream.commands import main, screen
def press():
    os.kill(os.getpid(), signal.SIGINT)
def run() -> int:
    "Stands for a command."
    {body}
workshop.run = screen.command(run)
sys.argv = ["tristream", "workshop"]
main.main()
"""
BODIES = {
    "plain": "press()",
    "swallowed": "\n    try: press()\n    except BaseException: pass",
    "converted": "\n    try: press()\n    except BaseException as e: raise ImportError('x') from e",
    "machine": "\n    from tristream.errors import MachineError"
    "\n    try: press()\n    except KeyboardInterrupt: raise MachineError('does not start')",
    "a bug": "\n    try: press()\n    finally: raise ValueError('in the clean-up')",
    "exit": "\n    try: press()\n    finally: sys.exit(4)",
    "finalizer": "\n    class A:\n        def __del__(self): press()\n    A()",
    "progress": "\n    try: press()\n    except BaseException: pass"
    "\n    with screen.PROGRESS.bar('x', 2) as move: move()\n    raise AssertionError('went on')",
    "thread": "\n    import threading, time"
    "\n    threading.Timer(0.1, press).start()\n    time.sleep(20)",
    "inside a library of C++": "\n    import time, types"
    "\n    library = types.ModuleType('openvino.frontend')"
    "\n    exec('def convert(press):\\n    press()\\n    return 7', library.__dict__)"
    "\n    assert library.convert(press) == 7"
    "\n    time.sleep(20)",
    "at exit": "\n    import atexit\n    atexit.register(press)",
    "at exit of a thread": "\n    import threading, time"
    "\n    threading.Thread(target=lambda: (time.sleep(0.7), press())).start()",
}  # fmt: skip


@pytest.mark.parametrize("moment", list(BODIES))
def test_an_interrupt_that_something_swallows_or_converts_ends_in_130(moment, tmp_path):
    begin = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", LOST.format(body=BODIES[moment])],
        cwd=tmp_path,
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 130, done.stderr
    assert time.monotonic() - begin < 20
    if not moment.startswith("at exit"):
        assert done.stderr.count("interrupted; finished work is kept") == 1
        assert "Traceback" not in done.stderr


def test_a_process_in_the_background_keeps_ignoring_interrupts(tmp_path):
    code = LOST.format(body="press(); return 3").replace(
        "main.main()", "signal.signal(signal.SIGINT, signal.SIG_IGN); main.main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment(tmp_path), check=False
    )
    assert done.returncode == 3


def test_another_thread_neither_watches_nor_is_interrupted():
    before = signal.getsignal(signal.SIGINT)
    threads = [threading.Thread(target=work) for work in (interrupts.watch, interrupts.check)]
    for thread in threads:
        thread.start()
        thread.join()
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.slow
def test_interrupts_at_random_moments_end_in_130_and_the_next_call_completes(copy, two_classes):
    random_moment = random.Random(0)
    shutil.rmtree(copy / "runs/default/embeddings")
    words = ["embed", "--data", str(two_classes), "--workers", "1"]
    for _ in range(6):
        shutil.rmtree(copy / "cache", ignore_errors=True)
        process = subprocess.Popen(
            [*TRISTREAM, *words], cwd=copy, env=environment(copy), stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        time.sleep(1 + random_moment.uniform(0, 5))  # before, the interpreter itself starts
        finished = process.poll() is not None
        if not finished:
            os.killpg(process.pid, signal.SIGINT)
        heard = process.communicate(timeout=60)[1]
        assert process.returncode in ((3,) if finished else (130, -signal.SIGINT)), heard
    assert shell(*words, folder=copy).returncode == 3  # one video is broken
