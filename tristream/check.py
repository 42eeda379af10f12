"""State of every file before any run: ok, degraded or rejected, and why."""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tristream.companions import judge_companion
from tristream.errors import UsageError
from tristream.videos import decode_pool, note_links
from tristream.workspace import Workspace

if TYPE_CHECKING:
    from tristream.media.probe import Verdict
    from tristream.media.sandbox.pool import DecodePool

STATES = ("ok", "degraded", "rejected")


@dataclass(frozen=True)
class Checked:
    """State of one file.

    Attributes:
        path: as given.
        verdict: state, reasons, sentence and facts.
        wall_seconds: time it took.
    """

    path: Path
    verdict: Verdict
    wall_seconds: float

    def to_json(self) -> dict[str, Any]:
        facts = dataclasses.asdict(self.verdict)
        state, sentence = facts.pop("status"), facts.pop("message")
        return {
            "path": str(self.path),
            "state": state,
            "reasons": list(facts.pop("reasons")),
            "sentence": sentence,
            **facts,
            "wall_seconds": round(self.wall_seconds, 3),
        }


class Check:
    """Check of files and folders, as `embed` would decode them.

    Args:
        workspace: limits, links and number of processes.
        paths: files, and folders that are searched for media files.
        data: folder that must contain the files; None: the folder that is searched, else none.

    Attributes:
        files: each with the folder that must contain it.
        skipped: number of files in the searched folders that are no media files, by kind.
        ffmpeg: version that decodes, after `run`.

    Raises:
        UsageError: a folder without media files.
    """

    def __init__(
        self, workspace: Workspace, paths: Sequence[Path], *, data: Path | None = None
    ) -> None:
        self._workspace = workspace
        self.files: list[tuple[Path, Path | None]] = []
        self.skipped: Counter[str] = Counter()
        for given in paths:
            files, kinds = files_in(given)
            self.files += [(path, data.absolute() if data else root) for path, root in files]
            self.skipped.update(kinds)
        for root in dict.fromkeys(root for _, root in self.files if root is not None):
            note_links(workspace, root)
        self.ffmpeg = ""

    def run(self, *, quick: bool = False) -> Iterator[Checked]:
        """Yield the state of each file, in order.

        Args:
            quick: read headers and one frame only.

        Raises:
            MachineError: a decoder that must not be given untrusted files.
        """
        with decode_pool(self._workspace) as pool:
            self.ffmpeg = pool.check_decoder()
            with self._workspace.progress.bar("checking", len(self.files)) as move:
                for checked in self._judged(pool, quick=quick):
                    move()
                    yield checked

    def _judged(self, pool: DecodePool, *, quick: bool) -> Iterator[Checked]:
        from tristream.media.probe import judge, judge_header

        follow_links = self._workspace.reading.follow_links

        def work(item: tuple[Path, Path | None]) -> Checked:
            path, root = item
            begun = time.monotonic()
            place: dict[str, Any] = {"root": root, "follow_links": follow_links}
            if (verdict := judge_companion(path, root)) is None:
                if quick:
                    verdict = judge_header(
                        path, probe=lambda *a, **o: pool.probe(*a, **o).result(), **place
                    )
                else:
                    verdict = judge(
                        path, decode=lambda *a, **o: pool.submit(*a, **o).result(), **place
                    )
            return Checked(path, verdict, time.monotonic() - begun)

        threads = ThreadPoolExecutor(pool.n_workers)
        try:
            yield from threads.map(work, self.files)
        finally:
            threads.shutdown(wait=False, cancel_futures=True)


def files_in(given: Path) -> tuple[list[tuple[Path, Path | None]], Mapping[str, int]]:
    """Return the files that an argument means, and the number of skipped files by kind.

    Each file comes with the folder that must contain it; a file given by name may lie anywhere.

    Raises:
        UsageError: a folder without media files.
    """
    from tristream.dataset.folders import SUFFIXES, scan_folder

    if not given.is_dir():
        return [(given, None)], {}
    scan = scan_folder(given)
    if not scan.files and given.suffix.lower() in SUFFIXES:  # a folder in the place of a video
        return [(given, None)], {}
    if not scan.files:
        account = f" ({scan.account()})" if scan.skipped else ""
        raise UsageError(
            f"{given} holds no file with the suffix of a video or audio file{account}; name files, "
            "or another folder"
        )
    # paths are printed as they were given
    return [(given / path.relative_to(scan.root), scan.root) for path in scan.files], scan.skipped
