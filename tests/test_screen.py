from __future__ import annotations

import errno
import io
import json
import os
import subprocess
import sys
import traceback
from pathlib import Path

import pytest
import typer
from rich.console import Console

from tristream.commands import screen
from tristream.errors import TristreamError, UsageError

HOME = Path(__file__).parents[1]


@pytest.fixture
def said(monkeypatch):
    """Text that people read."""
    paper = io.StringIO()
    monkeypatch.setattr(screen, "people", Console(file=paper, soft_wrap=True, width=200))
    return paper


def ours(body: str, module: str = "streams.pretend"):
    """A function as if it stood in a module of ours."""
    space = {
        "__name__": module,
        "errno": errno,
        "os": os,
        "UsageError": UsageError,
        "TristreamError": TristreamError,
    }
    exec(f"def work():\n    {body}\n", space)
    return space["work"]


def code_of(work) -> int:
    with pytest.raises(typer.Exit) as stopped:
        screen.command(work)()
    return stopped.value.exit_code


@pytest.mark.parametrize(("returned", "code"), [(None, 0), (0, 0), (3, 3)])
def test_the_number_a_command_returns_is_its_exit_code(returned, code, said):
    assert code_of(lambda: returned) == code
    assert said.getvalue() == ""


@pytest.mark.parametrize("kind", ["TristreamError", "UsageError"])
def test_an_error_we_raise_on_purpose_is_the_users_mistake_in_one_sentence(kind, said):
    assert code_of(ours(f"raise {kind}('v_014.mp4 lasts 0.40 s; it must last 1 s')")) == 2
    assert said.getvalue() == "v_014.mp4 lasts 0.40 s; it must last 1 s\n"


def test_a_mistake_raised_in_a_thread_is_the_users_all_the_same(said):
    from concurrent.futures import ThreadPoolExecutor

    def work():
        with ThreadPoolExecutor(1) as pool:
            pool.submit(ours("raise TristreamError('from a thread')")).result()

    assert code_of(work) == 2
    assert said.getvalue() == "from a thread\n"


def test_a_mistake_found_by_a_real_part_of_ours_is_the_users(said):
    from tristream import streams

    assert code_of(lambda: streams.stream_class("smell")) == 2
    assert said.getvalue().startswith("unknown stream 'smell'; available: ")


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (
            "int('abc')",
            ValueError,
        ),  # accidents of built-in functions: their last Python frame is ours
        ("return {}['key']", KeyError),
        ("return [][3]", IndexError),
        ("'ü'.encode('ascii')", UnicodeEncodeError),
        ("import json; json.loads('{')", ValueError),  # an accident in a library
        ("import numpy; numpy.zeros(3).reshape(2, 2)", ValueError),
        ("work()", RecursionError),
        ("raise KeyError('ours')", KeyError),
        ("assert False", AssertionError),
        ("None.name", AttributeError),
        ("raise TypeError('ours')", TypeError),
    ],
)
def test_a_bug_of_ours_is_not_dressed_up_as_a_mistake_of_the_user(body, kind, said):
    with pytest.raises(kind) as caught:
        screen.command(ours(body))()
    assert "work" in {frame.name for frame in traceback.extract_tb(caught.tb)}
    assert said.getvalue() == ""


def test_an_error_of_another_project_is_a_bug_even_if_it_is_raised(said):
    with pytest.raises(ValueError, match="theirs"):
        screen.command(ours("raise ValueError('theirs')", module="sklearn.svm"))()
    with pytest.raises(ValueError, match="theirs"):
        screen.command(ours("raise ValueError('theirs')", module="streamsmith"))()


@pytest.mark.parametrize("name", ["ENOSPC", "EDQUOT", "EIO", "ENOMEM", "EMFILE"])
def test_a_full_disk_and_its_like_are_the_environments_fault(name, said):
    number = getattr(errno, name)
    assert code_of(ours(f"raise OSError({number}, os.strerror({number}), '/cache/x')")) == 4
    assert said.getvalue().startswith(f"/cache/x: {os.strerror(number)}")


def test_a_full_disk_is_found_out_when_a_file_is_written(said, tmp_path, monkeypatch):
    from tristream.store.atomic import write_bytes

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("os.fsync", full)
    assert code_of(lambda: write_bytes(tmp_path / "a", b"x")) == 4
    assert "No space left on device" in said.getvalue()
    assert list(tmp_path.iterdir()) == []


def test_too_little_memory_is_the_environments_fault(said):
    assert code_of(ours("raise MemoryError")) == 4
    assert "out of memory" in said.getvalue()


@pytest.mark.parametrize(
    "sentence",
    [
        "CUDA out of memory. Tried to allocate 20.00 GiB",
        "DefaultCPUAllocator: can't allocate memory: you tried to …",
    ],
)
def test_too_little_memory_for_torch_is_the_environments_fault(sentence, said):
    assert code_of(ours(f"raise RuntimeError({sentence!r})", module="torch.nn")) == 4
    assert "out of memory" in said.getvalue()


@pytest.mark.parametrize(
    ("library", "sentence"),
    [("libxcb.so.1", "OpenCV cannot be loaded: this system lacks libxcb.so.1"),
     ("libsndfile.so.1.0.31", "this system lacks libsndfile.so.1.0.31")],
)  # fmt: skip
def test_a_library_that_the_system_lacks_is_the_environments_fault(library, sentence, said):
    error = f"{library}: cannot open shared object file: No such file or directory"
    assert code_of(ours(f"raise ImportError({error!r})", module="cv2")) == 4
    assert said.getvalue().startswith(sentence)


def test_an_import_that_fails_for_another_reason_is_a_bug(said):
    with pytest.raises(ImportError):
        code_of(ours("raise ImportError('cannot import name x')"))


def test_a_decode_process_that_does_not_start_is_the_environments_fault(said):
    from tristream.media.sandbox.pool import StartError

    def work():
        raise_it = ours(
            "raise Start('a decode process does not start: no libav')", module="media.sandbox.pool"
        )
        raise_it.__globals__["Start"] = StartError
        raise_it()

    assert code_of(work) == 4
    assert said.getvalue() == "a decode process does not start: no libav\n"


def test_another_runtime_error_is_a_bug(said):
    with pytest.raises(RuntimeError, match="size mismatch"):
        screen.command(ours("raise RuntimeError('size mismatch')", module="torch.nn"))()


def test_files_that_are_not_there_or_not_ours_are_the_users_mistake(said, tmp_path):
    assert code_of(lambda: (tmp_path / "none.csv").read_text()) == 2
    assert said.getvalue() == f"{tmp_path / 'none.csv'} does not exist\n"
    assert code_of(ours("raise PermissionError(errno.EACCES, 'Permission denied', '/run')")) == 2
    assert code_of(ours("raise OSError(errno.EROFS, 'Read-only file system', '/run')")) == 2


def test_another_error_of_the_system_is_a_bug(said):
    with pytest.raises(OSError, match="Inappropriate ioctl"):
        screen.command(ours("raise OSError(errno.ENOTTY, 'Inappropriate ioctl')"))()


def test_an_interrupt_passes_through(said):
    with pytest.raises(KeyboardInterrupt):
        screen.command(ours("raise KeyboardInterrupt"))()


def test_a_command_keeps_its_name_and_its_help():
    @screen.command
    def run() -> int:
        """Do a thing."""
        return 0

    assert (run.__name__, run.__doc__) == ("run", "Do a thing.")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain ä 視頻.mp4", "plain ä 視頻.mp4"),
        ("two\nlines.mp4", "two\\nlines.mp4"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("bell\a\r\t", "bell\\x07\\r\\t"),
        (os.fsdecode(b"caf\xe9.mp4"), "caf\\udce9.mp4"),
        ("right\u202eto left", "right\\u202eto left"),
        ("", ""),
    ],
)
def test_control_characters_of_file_names_are_shown_and_not_obeyed(text, shown):
    assert screen.printable(text) == shown


def test_notes_and_tables_do_not_obey_markup_or_control_characters(said):
    screen.note("[bold]x[/bold] \x1b[2J")
    screen.warn("[/nonsense] line\nbreak")
    screen.table("t", ["class", "n"], [["[red]a[/red]\x07", "1"]])
    text = said.getvalue()
    assert "[bold]x[/bold] \\x1b[2J" in text
    assert "[/nonsense] line\\nbreak" in text
    assert "[red]a[/red]\\x07" in text
    assert "\x1b" not in text


def test_the_result_is_one_json_object_on_stdout_and_only_if_asked_for(capsys, said):
    screen.emit({"n": 1}, as_json=False)
    assert capsys.readouterr().out == ""
    screen.emit({"path": Path("ä/b"), "n": 1}, as_json=True)
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    assert json.loads(out) == {"path": "ä/b", "n": 1}
    assert out.isascii()


def test_a_number_that_is_not_one_never_reaches_json():
    with pytest.raises(ValueError, match="JSON"):
        screen.emit({"accuracy": float("nan")}, as_json=True)


def test_progress_that_nobody_watches_is_a_line_now_and_then(said):
    with screen.PROGRESS.bar("embedding", 3) as move:
        for _ in range(3):
            move(note="loss 0.1")
    assert said.getvalue().startswith("embedding: 3/3 after 0 s loss 0.1")


FRONT_DOOR = """
import os, sys, tristream.commands.workshop as workshop
from tristream.commands import screen
from tristream.errors import UsageError
import orchestrate
def run() -> int:
    "Stands for a command."
    {body}
workshop.run = screen.command(run)
sys.argv = ["tristream", "workshop"]
orchestrate.main()
"""


@pytest.mark.parametrize(
    ("body", "code", "heard"),
    [
        ("return 0", 0, ""),
        ("return 3", 3, ""),
        (
            "raise UsageError('no videos in x; name another folder')",
            2,
            "no videos in x; name another folder\n",
        ),
        ("raise KeyboardInterrupt", 130, "interrupted"),
        ("raise KeyError('gone')", 1, "Traceback"),
    ],
)
def test_the_front_door_ends_with_the_code_of_the_design(body, code, heard):
    text = FRONT_DOOR.format(body=body)
    done = subprocess.run(
        [sys.executable, "-c", text], cwd=HOME, capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stderr
    assert heard in done.stderr
    assert done.stdout == ""
    if code != 1:
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("abnormal", "both", "heard"),
    [
        ([0, 1, 0], True, ""),
        ([], False, ""),
        ([0, 0], False, "all 2 test videos with a known truth are normal"),
        ([1, 1, 1], False, "all 3 test videos with a known truth are abnormal"),
    ],
)
def test_a_split_without_positives_or_without_negatives_is_said(abnormal, both, heard, said):
    import numpy as np

    from tristream.fit_detector import has_both

    assert has_both(np.array(abnormal, bool), screen.PROGRESS) == both
    assert said.getvalue().startswith(heard)
    assert bool(said.getvalue()) == bool(heard)
