"""The library: the whole job in ten lines without a subprocess, lazy and silent, without typer or rich."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import tristream as ts
from tristream import streams

HOME = Path(__file__).parents[1]
QUICK = {
    "preset": "workshop",
    "assignments": [
        "sampler.n_samples=4",
        *(
            f"streams.{name}.{phase}_training.epochs=1"
            for name in streams.names()
            for phase in ("encoder", "aggregator")
        ),
    ],
}


@pytest.fixture(scope="module")
def fitted(trained_run, tmp_path_factory):
    """A copy of a fused run, and a folder with one of its videos under another name."""
    folder = tmp_path_factory.mktemp("library")
    shutil.copytree(trained_run / "runs", folder / "runs")
    shutil.copytree(trained_run / "cache", folder / "cache")
    return ts.Run(folder / "runs/default", cache=folder / "cache")


def python(code: str, *, cwd: Path = HOME) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_import_loads_neither_torch_nor_typer_nor_another_room():
    loaded = python("import sys, tristream; print(*sorted(sys.modules))").split()
    assert not {"torch", "typer", "rich", "numpy", "av", "cv2"} & set(loaded)
    ours = {name for name in loaded if name.startswith("tristream")}
    assert ours == {"tristream"}
    errors = python("import sys, tristream.errors; print(*sorted(sys.modules))").split()
    assert {name for name in errors if name.startswith("tristream")} == {
        "tristream",
        "tristream.errors",
    }


def test_a_run_is_made_without_torch():
    code = "import sys, tristream as ts; ts.Run('x'); print('torch' in sys.modules)"
    assert python(code).strip() == "False"


def test_every_public_name_is_there_and_an_unknown_one_is_not():
    for name in ts.__all__:
        assert getattr(ts, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = ts.nothing


BLOCKED = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("typer", "rich", "click"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Block())
import importlib, pkgutil, pathlib
import tristream
folder = pathlib.Path(tristream.__file__).parent
for path in sorted(folder.glob("*.py")):
    if path.stem not in ("__init__", "__main__"):
        importlib.import_module(f"tristream.{path.stem}")
print(*sorted(set(sys.modules) & {"typer", "rich", "click"}))
"""


def test_no_module_of_the_library_needs_typer_or_rich():
    assert python(BLOCKED).strip() == ""


JOB = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("typer", "rich", "click"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Block())
import json, tristream as ts
data, quick, clip = {data!r}, json.loads({quick!r}), {clip!r}
run = ts.Run("runs/notebook", compute=ts.Compute(workers=1))
run.index(data)
for name in {names!r}:
    run.train_stream(name, **quick)
embeddings = run.embed()
report = run.fuse()
[prediction] = run.predict([clip])
[detection] = run.detect([clip])
X, masks, columns = ts.fuse_tables(embeddings)
print(json.dumps([prediction.to_json(), detection.to_json(), list(X.shape), len(embeddings.failures)]))
"""


@pytest.mark.slow
def test_the_whole_job_runs_in_ten_lines_without_typer_and_prints_nothing(two_classes, tmp_path):
    code = JOB.format(
        data=str(two_classes),
        quick=json.dumps(QUICK),
        clip=str(two_classes / "spin" / "3.mp4"),
        names=streams.names(),
    )
    lines = python(code, cwd=tmp_path).splitlines()
    assert len(lines) == 1, "the library is silent"
    prediction, detection, shape, n_failures = json.loads(lines[0])
    assert prediction["label"] in ("bounce", "spin")
    assert prediction["streams"] == detection_streams(detection) == streams.names()
    assert shape[0] == 20
    assert n_failures == 1  # broken.mp4


def detection_streams(detection: dict) -> list[str]:
    return [name for name in detection["shares"] if name not in detection["masked"]]


def test_embeddings_of_files_equal_the_rows_of_the_run(fitted, two_classes):
    table = fitted.embed([two_classes / "spin" / "3.mp4", two_classes / "spin" / "broken.mp4"])
    assert table.video_ids == ["spin/3.mp4"]
    assert list(table.failures) == ["spin/broken.mp4"]
    stored = ts.Run(fitted.folder, cache=fitted.workspace.cache_dir).embed()
    row = stored.video_ids.index("spin/3.mp4")
    for name, values in table.numpy().items():
        assert np.array_equal(values[0], stored.numpy()[name][row])
        assert table.torch()[name].shape == values.shape
        assert table.arrow()[name].num_rows == 1
    assert table.pandas().shape == (1, sum(v.shape[1] for v in table.numpy().values()))


def test_a_stream_embedder_gives_the_bits_of_the_runs_table_again_and_again(fitted, two_classes):
    stored = fitted.embed()
    name = streams.names()[0]
    paths = [two_classes / "spin" / f"{n}.mp4" for n in (3, 4)]
    with ts.StreamEmbedder(fitted, name, use_cache=False) as embedder:
        for results in (list(embedder.embed_many(paths)), [embedder.embed(path) for path in paths]):
            for path, result in zip(paths, results, strict=True):
                row = stored.video_ids.index(f"spin/{path.name}")
                assert np.array_equal(result.embedding, stored.numpy()[name][row])
                assert result.space_id == stored.spaces[name]
        broken = embedder.embed(two_classes / "spin" / "broken.mp4")
        assert (broken.embedding, broken.rejected, broken.reason) == (None, True, "not_a_video")


def test_a_decision_on_embeddings_equals_the_one_on_files(fitted, two_classes):
    paths = [two_classes / "spin" / "3.mp4", two_classes / "bounce" / "0.mp4"]
    embeddings = fitted.embed(paths)
    decision = ts.Decision(fitted)
    on_files, on_tables = fitted.predict(paths), decision.predict(embeddings)
    assert [p.top for p in on_files] == [p.top for p in on_tables]
    assert [p.masked for p in on_files] == [p.masked for p in on_tables]
    blocks = {name: values[1] for name, values in embeddings.numpy().items()}
    blocks = {name: None if np.isnan(v).any() else v for name, v in blocks.items()}
    [one] = decision.predict(blocks)
    assert one.top == on_tables[1].top
    assert one.masked == on_tables[1].masked
    scores = [d.anomaly_score for d in fitted.detect(paths)]
    assert scores == [d.anomaly_score for d in decision.detect(embeddings)]
    assert decision.detect(blocks)[0].anomaly_score == scores[1]


def test_embeddings_of_another_space_or_width_are_refused(fitted, two_classes):
    import dataclasses

    embeddings = fitted.embed([two_classes / "spin" / "3.mp4"])
    name = streams.names()[0]
    other = dataclasses.replace(embeddings.tables[name], space_id="another")
    tables = {**embeddings.tables, name: other}
    with pytest.raises(ts.UsageError, match=f"stream '{name}' is in space another, but"):
        ts.Decision(fitted).predict(ts.Embeddings(tables))
    with pytest.raises(ts.UsageError, match=f"embedding of '{name}' has 3 numbers"):
        ts.Decision(fitted).predict({name: np.zeros(3)})
    with pytest.raises(ts.UsageError, match="unknown stream 'smell'"):
        ts.Decision(fitted).predict({"smell": np.zeros(3)})


def test_the_transformer_works_in_a_pipeline_of_scikit_learn(fitted, two_classes):
    from sklearn.base import clone
    from sklearn.pipeline import make_pipeline
    from sklearn.svm import LinearSVC

    paths = [two_classes / label / f"{n}.mp4" for label in ("bounce", "spin") for n in range(1, 6)]
    labels = ["bounce"] * 5 + ["spin"] * 5
    pipeline = make_pipeline(clone(ts.VideoEmbedder(fitted)), LinearSVC())
    assert set(pipeline.fit(paths, labels).predict(paths)) <= {"bounce", "spin"}
    with pytest.raises(ts.TristreamError, match="1 of 1 videos cannot be used"):
        pipeline.predict([two_classes / "spin" / "broken.mp4"])


def test_folders_and_patterns_stand_for_their_videos(fitted, two_classes):
    folder = fitted.embed(two_classes / "bounce")
    pattern = fitted.embed(str(two_classes / "bounce" / "*.mp4"))
    assert folder.video_ids == pattern.video_ids
    assert len(folder) == 10
    with pytest.raises(ts.UsageError, match=r"\*\.avi matches no file"):
        fitted.embed(str(two_classes / "bounce" / "*.avi"))


def test_an_unknown_option_names_those_there_are(fitted):
    with pytest.raises(ts.UsageError, match="unknown option 'epochs'; available: preset, config"):
        fitted.train_stream("audio", epochs=3)
