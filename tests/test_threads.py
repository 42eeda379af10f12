from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_info

from tristream.fusion.threads import one_thread


def blas_threads() -> set[int]:
    np.ones((2, 2)) @ np.ones((2, 2))
    return {
        library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"
    }


def test_inside_there_is_one_thread_and_outside_as_many_as_before() -> None:
    import torch

    before = blas_threads(), torch.get_num_threads()
    with one_thread():
        assert (blas_threads(), torch.get_num_threads()) == ({1}, 1)
    assert (blas_threads(), torch.get_num_threads()) == before


def test_threads_come_back_after_an_error() -> None:
    import torch

    before = torch.get_num_threads()
    try:
        with one_thread():
            raise KeyError
    except KeyError:
        assert torch.get_num_threads() == before


def test_a_command_keeps_numpy_to_one_thread():
    """With more, several threads that multiply at once have been seen to wait for each other for ever."""
    script = (
        "import contextlib, orchestrate, sys\n"
        "sys.argv = ['tristream', '--help']\n"
        "with contextlib.suppress(SystemExit):\n"
        "    orchestrate.main()\n"
        "import numpy, threadpoolctl\n"
        "print([found['num_threads'] for found in threadpoolctl.threadpool_info() if 'numpy' in found['filepath']])\n"
    )
    environment = {
        name: value for name, value in os.environ.items() if name != "OPENBLAS_NUM_THREADS"
    }
    home = Path(__file__).parents[1]
    found = subprocess.run(
        [sys.executable, "-c", script], env=environment, cwd=home, capture_output=True, text=True
    )
    assert found.stdout.splitlines()[-1] == "[1]", found.stderr
