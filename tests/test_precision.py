from __future__ import annotations

import pytest

from tristream import streams
from tristream.commands.screen import PROGRESS
from tristream.errors import UsageError
from tristream.precision import in_precision
from tristream.store.cache import Cache
from tristream.streams import model
from tristream.streams.compute import choose
from tristream.streams.extraction import extract
from tristream.workspace import Workspace


@pytest.fixture
def run(tmp_path, make_videos, toy_video, untrained):
    """Run with one trained stream, and a function that embeds its videos on an engine with bf16."""
    import torch

    workspace = Workspace(tmp_path / "run", tmp_path / "cache", progress=PROGRESS)
    stream = untrained(streams.names()[0])
    model.save(workspace.stream_dir(stream.name), stream)
    cache = Cache(tmp_path / "cache")
    files = {f"{n}.mp4": toy_video(n) for n in (40, 50, 60, 70)}
    seen = []

    def embed(rows, trained):
        seen.append([trained[0].precision, list(rows)])
        videos, _ = make_videos({name: files[name] for name in rows}, cache)
        return extract(
            videos,
            trained,
            cache=cache,
            backend=choose("torch", device=torch.device("cpu")),
            n_threads=1,
        )

    def call(wanted):
        trained = workspace.load_streams(None)
        return in_precision(workspace, wanted, trained, list(files), embed)

    return workspace, call, seen


def test_bf16_is_measured_on_the_first_videos_and_printed(run, capsys):
    _, call, seen = run
    [stream] = call("bf16")
    assert stream.precision == "bf16"
    assert seen == [
        ["float32", ["40.mp4", "50.mp4", "60.mp4"]],
        ["bf16", ["40.mp4", "50.mp4", "60.mp4"]],
    ]
    said = capsys.readouterr().err
    assert "bf16 against float32 on 3 of your videos" in said
    assert f"{stream.name}: bf16 in this run from now on; it is another embedding space" in said


def test_a_precision_stays_with_the_run_and_is_another_space(run, capsys):
    workspace, call, _ = run
    [before] = workspace.load_streams(None)
    call("bf16")
    [after] = workspace.load_streams(None)
    assert (before.precision, after.precision) == ("float32", "bf16")
    assert before.space_id != after.space_id
    assert before.checksums == after.checksums
    capsys.readouterr()
    [again] = call(None)
    assert again.precision == "bf16"
    assert "bf16 against float32" in capsys.readouterr().err, "never silently"
    [back] = call("float32")
    assert back.space_id == before.space_id
    assert workspace.load_streams(None)[0].space_id == before.space_id


def test_float32_costs_nothing_and_prints_nothing(run, capsys):
    _, call, seen = run
    assert call(None)[0].precision == "float32"
    assert seen == []
    assert capsys.readouterr().err == ""


def test_an_unknown_precision_is_named(run):
    _, call, _ = run
    with pytest.raises(UsageError, match="--precision fp16 is unknown; available: float32, bf16"):
        call("fp16")


def test_segments_of_two_precisions_do_not_meet_in_the_cache(run):
    workspace, call, _ = run
    call("bf16")
    kinds = [kind for kind, _ in Cache(workspace.cache_dir).entries()]
    assert kinds.count("segments") == 6
