"""Processes that share a cache do each thing once where they can, and never wait for each other for ever."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tristream.store.claims import Claims, in_turns

HOME = Path(__file__).parents[1]
pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="names without files are Linux's"
)

HOLDER = """
import sys
from pathlib import Path
from tristream.store.claims import Claims
claims = Claims(Path(sys.argv[1]))
print(all([claims.take(name) for name in sys.argv[2:]]), flush=True)
sys.stdin.read()
"""


class Holder:
    """Another process that has claimed names, until it is killed."""

    def __init__(self, cache: Path, *names: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(cache), *names], cwd=HOME, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        assert self.process.stdout is not None
        self.got_all = self.process.stdout.readline().strip() == "True"

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def holder(tmp_path):
    holders = []

    def make(*names):
        holders.append(Holder(tmp_path, *names))
        assert holders[-1].got_all
        return holders[-1]

    yield make
    for each in holders:
        each.kill()


def test_a_name_is_claimed_by_one_process_and_free_when_that_is_killed(tmp_path, holder):
    other = holder("a")
    with Claims(tmp_path) as claims:
        assert not claims.take("a")
        assert claims.take("b")
        assert claims.take("b")  # it is ours
        other.kill()
        assert claims.take("a")
        assert Holder(tmp_path, "a").got_all is False
    assert holder("a", "b").got_all
    assert list(tmp_path.iterdir()) == []


def test_claims_in_another_cache_are_other_claims(tmp_path, holder):
    holder("a")
    with Claims(tmp_path / "other") as claims:
        assert claims.take("a")


def test_where_claims_do_not_work_everything_is_granted(tmp_path, holder, monkeypatch):
    holder("a")
    monkeypatch.setattr("sys.platform", "darwin")
    with Claims(tmp_path) as claims:
        assert claims.take("a")


def lazily(log: list):
    """Work that keeps two items in hand, as extraction does."""

    def work(items):
        waiting = []
        for item in items:
            log.append(item)
            waiting.append(item)
            if len(waiting) > 2:
                yield waiting.pop(0).upper()
        yield from (item.upper() for item in waiting)

    return work


def test_what_nobody_else_is_at_is_done_in_order(tmp_path):
    log = []
    with Claims(tmp_path) as claims:
        assert list(in_turns("abcde", lazily(log), claims, str)) == list("ABCDE")
    assert log == list("abcde")


def test_what_another_process_is_at_is_done_last_and_its_result_keeps_its_place(tmp_path, holder):
    other, log, results = holder("b", "d"), [], []
    with Claims(tmp_path) as claims:
        turns = in_turns("abcde", lazily(log), claims, str)
        results.append(next(turns))
        threading.Timer(0.5, other.kill).start()
        results += turns
    assert results == list("ABCDE")
    assert log == list("acebd")


def test_nothing_is_claimed_while_it_waits(tmp_path, holder):
    other, log = holder("a"), []
    with Claims(tmp_path) as claims:
        thread = threading.Thread(target=lambda: list(in_turns("abc", lazily(log), claims, str)))
        thread.start()
        time.sleep(0.5)
        assert thread.is_alive()
        assert log == ["b", "c"]
        holder("b", "c")
        other.kill()
        thread.join(10)
    assert log == ["b", "c", "a"]


def test_a_process_that_takes_too_long_is_not_waited_for(tmp_path, holder):
    holder("a")
    with Claims(tmp_path) as claims:
        begun = time.monotonic()
        claims.wait_for("a", seconds=0.3)
        assert time.monotonic() - begun >= 0.3
