"""State of a run: its parts, what is out of date, and the next command."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tristream import streams
from tristream.errors import UsageError
from tristream.files import complete_lines
from tristream.workspace import Workspace

if TYPE_CHECKING:
    from tristream.dataset.manifest import VideoRow

MISSING, DONE, STALE = "missing", "done", "stale"


@dataclass
class Part:
    """Part of a run.

    Attributes:
        state: missing, done or stale.
        words: facts, or the reason why it is out of date.
        next: command that brings it up to date, without `tristream` and --run.
    """

    name: str
    state: str
    words: str
    next: str = ""
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class State:
    """State of a run.

    Attributes:
        run: folder.
        parts: videos, streams, embeddings, decisions and pages.
        next: command that brings the run further.
    """

    run: Path
    parts: tuple[Part, ...]
    next: str

    def to_json(self) -> dict[str, Any]:
        parts = {p.name: {"state": p.state, "words": p.words, **p.facts} for p in self.parts}
        return {"run": str(self.run), "parts": parts, "next": self.next}


def state(workspace: Workspace) -> State:
    """Return what a run holds, what is out of date, and the next command; no network is loaded.

    Raises:
        UsageError: a damaged file.
    """
    parts = _parts(workspace)
    unfinished = next((part for part in parts if part.next), None)
    step = unfinished.next if unfinished else "predict FILE"
    command = f"tristream {step} --run {workspace.folder}"
    return State(workspace.folder, tuple(parts), command)


def _parts(workspace: Workspace) -> list[Part]:
    if not workspace.manifest_path.exists():
        return [
            Part("videos", MISSING, f"{workspace.manifest_path} does not exist", "index --data DIR")
        ]
    manifest = workspace.manifest()
    parts = [_videos(manifest.rows)]
    trained = [_stream(workspace, name, manifest.rows) for name in _stream_names(workspace)]
    if not any(part.state != MISSING for part in trained):
        trained = [Part("streams", MISSING, "no stream is trained", "train-stream spatial")]
        return parts + trained
    spaces = {
        part.facts["stream"]: part.facts["space_id"] for part in trained if part.state != MISSING
    }
    embedded = [
        _embeddings(workspace, name, space, manifest.rows) for name, space in spaces.items()
    ]
    newest = max(
        (part.facts["written"] for part in embedded if "written" in part.facts), default=0.0
    )
    return [*parts, *trained, *embedded, *_decisions(workspace, spaces, newest), *_pages(workspace)]


def _videos(rows: Sequence[VideoRow]) -> Part:
    splits = Counter(row.split for row in rows)
    n_classes = len({row.label for row in rows if row.label})
    gone = [row.video_id for row in rows if not row.path.exists()]
    words = f"{len(rows)} in {n_classes} classes: {', '.join(f'{n} {split}' for split, n in splits.items())}"
    facts = {"n_videos": len(rows), "splits": dict(splits), "n_classes": n_classes, "gone": gone}
    if gone:
        words += f"; {len(gone)} files are gone (first: {gone[0]}); their embeddings stay"
    return Part("videos", STALE if gone else DONE, words, "", facts)


def _stream_names(workspace: Workspace) -> list[str]:
    """Return the available streams, and those of the run whose folder is gone."""
    begun = {path.name for path in (workspace.folder / "streams").glob("*") if path.is_dir()}
    return sorted(begun | set(streams.names()))


def _stream(workspace: Workspace, name: str, rows: Sequence[VideoRow]) -> Part:
    folder = workspace.stream_dir(name)
    config = _json(folder / "config.json")
    if config is None:
        begun = sorted(path.stem for path in folder.glob("state-*.json"))
        words = f"training was begun ({begun[-1]}) and not finished" if begun else "not trained"
        return Part(
            f"stream {name}",
            MISSING,
            words,
            f"train-stream {name}" if begun else "",
            {"stream": name},
        )
    lineage = config.get("lineage", {})
    facts = {"stream": name, "space_id": config["space_id"], "classes": len(config["classes"])}
    n_train = lineage.get("n_train", "?")
    words = (
        f"{len(config['classes'])} classes, {n_train} training videos, space {config['space_id']}"
    )
    last = _last_metrics(folder / "metrics.jsonl")
    if last:
        facts |= {"val_accuracy": last.get("val_accuracy")}
        words += f", val accuracy {100 * last['val_accuracy']:.1f} % at its last epoch"
    if (folder / "origin.json").exists():
        return Part(
            f"stream {name}",
            DONE,
            f"{words}, taken from {_json(folder / 'origin.json')['run']}",
            "",
            facts,
        )
    changed = lineage.get("videos") not in (None, _labelled(rows))
    if changed:
        words += "; trained on other videos or labels than videos.csv has now"
    return Part(
        f"stream {name}",
        STALE if changed else DONE,
        words,
        f"train-stream {name}" if changed else "",
        facts,
    )


def _labelled(rows: Sequence[VideoRow]) -> str:
    """Return the digest that `train_stream` stores as `videos` in a lineage."""
    from tristream.store.lineage import digest

    used = [row for row in rows if row.split in ("train", "val") and row.label]
    return digest([[row.content_id or "unreadable", row.label, row.split] for row in used])


def _embeddings(workspace: Workspace, name: str, space: str, rows: Sequence[VideoRow]) -> Part:
    import pyarrow.parquet as pq

    title = f"embeddings {name}"
    folder = workspace.embeddings_dir(name, space)
    parts = sorted(folder.glob("part-*.parquet"))
    if not parts:
        older = sorted(path.name for path in folder.parent.glob("*"))
        words = (
            f"none in its space; those of {older[0]} are of an earlier training"
            if older
            else "none yet"
        )
        return Part(title, STALE if older else MISSING, words, "embed", {"stream": name})
    content: dict[str, str] = {}
    n_present = 0
    for part in parts:
        table = pq.read_table(part, columns=["video_id", "content_id", "present"]).to_pydict()
        content |= dict(zip(table["video_id"], table["content_id"], strict=True))
        n_present += sum(table["present"])
    rejected = _rejected(workspace.folder / "failures.csv").union(
        *map(_rejected, workspace.folder.glob("status/*-failures.csv"))
    )
    lost = [
        row.video_id for row in rows if row.video_id not in content and row.video_id not in rejected
    ]
    now = {row.video_id: row.content_id for row in rows if row.content_id}
    other = [video for video, there in now.items() if content.get(video, there) != there]
    facts = {"stream": name, "n_videos": len(content), "n_present": n_present, "not_embedded": lost, "changed": other,
             "written": max(part.stat().st_mtime for part in parts)}  # fmt: skip
    n_videos = f"{len(content):,} of {len(rows):,}" if lost else f"{len(content)}"
    words = f"{n_videos} videos, {n_present} of them with this stream"
    for videos, what in ((lost, "are not embedded"), (other, "have other contents now")):
        if videos:
            words += f"; {len(videos)} {what} (first: {videos[0]})"
    return Part(
        title, STALE if lost or other else DONE, words, "embed" if lost or other else "", facts
    )


def _decisions(workspace: Workspace, spaces: dict[str, str], newest: float) -> list[Part]:
    """Return the SVM and the detector, compared with the current embeddings."""
    parts = []
    for file, title in (("svm", "classifier"), ("detector", "anomaly detector")):
        path = workspace.fusion_dir / f"{file}.json"
        config = _json(path)
        if config is None:
            report = _json(workspace.fusion_dir / "report.json")
            # fuse was run and had nothing to fit one on: no reason to run it again.
            parts.append(
                Part(
                    title, MISSING, "none" if report else "not fitted yet", "" if report else "fuse"
                )
            )
            continue
        written = path.stat().st_mtime
        other = [
            name
            for name, space in config.get("spaces", {}).items()
            if spaces.get(name, space) != space
        ]
        words = f"on {', '.join(config.get('spaces', {}))}"
        if other:
            words += f"; '{other[0]}' was trained anew since"
        elif newest > written:
            words += "; embeddings are newer"
        stale = bool(other) or newest > written
        parts.append(
            Part(
                title,
                STALE if stale else DONE,
                words,
                "fuse" if stale else "",
                {"written": written},
            )
        )
    return parts


def _pages(workspace: Workspace) -> list[Part]:
    """Return windows, timelines, exports and report; only a missing report is reported."""
    parts = []
    for path, title in (
        (workspace.folder / "windows", "windows"),
        (workspace.fusion_dir / "timelines.json", "timelines"),
        (workspace.folder / "export", "exports"),
        (workspace.folder / "report.html", "report"),
    ):
        decided = workspace.fusion_dir / "report.json"
        if not path.exists():
            if title == "report" and decided.exists():
                parts.append(Part(title, MISSING, "not written yet", "report"))
            continue
        stale = (
            title == "report"
            and decided.exists()
            and decided.stat().st_mtime > path.stat().st_mtime
        )
        words = f"{path}; fuse has been run since" if stale else str(path)
        parts.append(Part(title, STALE if stale else DONE, words, "report" if stale else ""))
    return parts


def _last_metrics(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    lines = path.read_text(encoding="utf-8").splitlines()
    return json.loads(lines[-1]) if lines else None


def _rejected(path: Path) -> set[str]:
    import csv

    if not path.exists():
        return set()
    return {
        row["video_id"] for row in csv.DictReader(io.StringIO(complete_lines(path), newline=""))
    }


def _json(path: Path) -> Any:
    """Return the content of a JSON file; None if it does not exist.

    Raises:
        UsageError: it is damaged.
    """
    if not path.exists():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UsageError(f"{path} is damaged ({error}); delete it, and make it anew") from error
