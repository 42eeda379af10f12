"""`show`, `export`, `similar` and `predict` on a small trained run, as a user types them."""

from __future__ import annotations

import csv
import itertools
import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from tristream import streams
from tristream.fused import read_tables, trained_spaces
from tristream.fusion.concatenate import fuse_tables
from tristream.workspace import Workspace

RUN = "runs/default"


@pytest.fixture(scope="module")
def folder(trained_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(trained_run, tmp_path_factory.mktemp("show") / "work"))


@pytest.fixture
def line(folder: Path, command_line):
    return command_line(folder)


@pytest.fixture
def own(trained_run: Path, tmp_path: Path, command_line):
    """A run that a test may spoil."""
    return command_line(shutil.copytree(trained_run, tmp_path / "work"))


def fused_of(folder: Path):
    workspace = Workspace(folder / RUN, folder / "cache")
    tables = read_tables(workspace, trained_spaces(workspace, None))
    return next(iter(tables.values())), *fuse_tables(tables)


def test_show_of_a_finished_run_has_nothing_left_to_do(own) -> None:
    assert own.json("show")["next"] == "tristream report --run runs/default"
    (own.folder / RUN / "report.html").write_text("a page")
    found = own.json("show")
    assert {part["state"] for part in found["parts"].values()} == {"done"}
    assert found["next"] == "tristream predict FILE --run runs/default"
    for name in streams.names():
        assert found["parts"][f"embeddings {name}"]["n_videos"] == 20
        if streams.stream_class(name).needs_sound:
            assert found["parts"][f"embeddings {name}"]["n_present"] == 18
    text = own("show", RUN)
    assert text.count("[x]") == len(found["parts"])


def test_show_leads_from_nothing_to_the_first_decision(own, tmp_path: Path) -> None:
    new = tmp_path / "new"
    own("show", new, code=2)
    assert f"{new} does not exist; make it first: tristream index --run {new}" in own.said
    new.mkdir()
    assert own.json("show", new)["next"] == f"tristream index --data DIR --run {new}"
    kept = [own.folder / RUN / name for name in ("fusion", "embeddings", "streams")]
    for missing, command in zip(kept, ("fuse", "embed", "train-stream spatial"), strict=True):
        shutil.rmtree(missing)
        assert own.json("show")["next"] == f"tristream {command} --run {RUN}"


def test_show_names_what_is_stale_after_each_kind_of_change(own, quick) -> None:
    run, name = own.folder / RUN, streams.names()[0]
    table = run / "videos.csv"
    before = table.read_text()
    table.write_text(
        before.replace("bounce/3.mp4,bounce/3.mp4,bounce,", "bounce/3.mp4,bounce/3.mp4,spin,")
    )
    assert table.read_text() != before
    found = own.json("show")
    assert found["parts"][f"stream {name}"]["state"] == "stale"
    assert "trained on other videos or labels" in found["parts"][f"stream {name}"]["words"]
    assert found["next"] == f"tristream train-stream {name} --run {RUN}"
    table.write_text(before)
    own("train-stream", name, *quick(name), "--seed", "5")
    found = own.json("show")
    assert found["parts"][f"embeddings {name}"]["state"] == "stale"
    assert "are of an earlier training" in found["parts"][f"embeddings {name}"]["words"]
    assert f"'{name}' was trained anew since" in found["parts"]["classifier"]["words"]
    assert found["next"] == f"tristream embed --run {RUN}"
    own("embed", code=3)
    assert own.json("show")["next"] == f"tristream fuse --run {RUN}"
    own("fuse")
    found = own.json("show")
    assert found["next"].startswith("tristream report")
    os.utime(run / "fusion" / "svm.json", (0, 0))
    assert "embeddings are newer" in own.json("show")["parts"]["classifier"]["words"]
    table.write_text(before + before.splitlines()[1].replace("bounce/0", "bounce/new") + "\n")
    found = own.json("show")["parts"]
    assert found["videos"]["gone"] == ["bounce/new.mp4"]
    assert found[f"embeddings {name}"]["not_embedded"] == ["bounce/new.mp4"]


def test_show_says_that_a_training_was_cut_short_and_names_a_damaged_file(own) -> None:
    name = streams.names()[0]
    kept = own.folder / RUN / "streams" / name
    (kept / "config.json").rename(kept / f"state-{name}-encoder.json")
    assert "was begun" in own.json("show")["parts"][f"stream {name}"]["words"]
    (kept / "config.json").write_text("{")
    own("show", code=2)
    assert "config.json is damaged" in own.said


@pytest.mark.parametrize("to", ["parquet", "npz", "csv"])
def test_an_export_gives_back_every_bit_of_the_embeddings_and_their_masks(line, to: str) -> None:
    written = line.json("export", "--to", to)["written"]
    assert list(written) == [*streams.names(), *(["fused"] if len(streams.names()) > 1 else [])]
    first, X, masks, columns = fused_of(line.folder)
    names = list(columns)
    for what, about in written.items():
        streams_of = names if what == "fused" else [what]
        found = read_export(line.folder / about["path"], streams_of)
        wanted = np.concatenate([X[:, columns[name]] for name in streams_of], axis=1).astype(
            np.float32
        )
        assert found["video_id"] == first.video_id
        np.testing.assert_array_equal(found["X"], wanted)
        np.testing.assert_array_equal(
            found["masks"], masks[:, [names.index(name) for name in streams_of]]
        )
        assert {label for label in found["label"] if label} == {"bounce", "spin"}
        assert set(found["split"]) == {"train", "val", "test"}


def read_export(path: Path, names: list[str]) -> dict:
    """The same four things out of every format."""
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as file:
            assert file["streams"].tolist() == names
            assert file["edges"][-1] == file["X"].shape[1]
            return {"X": file["X"], "masks": file["masks"],
                    **{name: file[name].tolist() for name in ("video_id", "label", "split")}}  # fmt: skip
    if path.suffix == ".parquet":
        import pyarrow.parquet as pq

        table = pq.read_table(path)
        about = json.loads(table.schema.metadata[b"tristream"])
        assert list(about["columns"]) == list(about["spaces"]) == names
        width = table.schema.field("embedding").type.list_size
        assert table["embedding"].null_count == 0, "pyarrow before 26 could not read it"
        X = np.full((len(table), width), np.nan, np.float32)
        for row, values in enumerate(table["embedding"].to_pylist()):
            X[row] = [np.nan if value is None else value for value in values]
        masks = np.column_stack([table[f"present_{name}"].to_numpy() for name in names])
        return {
            "X": X,
            "masks": masks,
            **{name: table[name].to_pylist() for name in ("video_id", "label", "split")},
        }
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    numbers = [
        name
        for name in rows[0]
        if name.rpartition("_")[0] in names and name.rpartition("_")[2].isdigit()
    ]
    return {
        "X": np.array(
            [[float(row[name] or "nan") for name in numbers] for row in rows], np.float32
        ),
        "masks": np.array([[row[f"present_{name}"] == "true" for name in names] for row in rows]),
        **{name: [row[name] for row in rows] for name in ("video_id", "label", "split")},
    }


def test_a_standardised_export_is_zero_where_a_stream_is_missing_and_has_unit_columns_on_train(
    line,
) -> None:
    line("export", "--to", "npz", "--standardise", "--out", "z")
    _, _, masks, columns = fused_of(line.folder)
    name = "fused" if len(columns) > 1 else next(iter(columns))
    with np.load(line.folder / "z" / f"{name}.npz", allow_pickle=False) as file:
        Z, train = file["X"], file["split"] == "train"
        assert "the rows of split train" in str(file["about"])
    for s, block in enumerate(columns.values()):
        assert not Z[~masks[:, s], block].any()
        there = Z[train & masks[:, s], block]
        np.testing.assert_allclose(there.mean(axis=0), 0, atol=1e-4)
        assert ((np.abs(there.std(axis=0) - 1) < 1e-3) | (there.std(axis=0) < 1e-3)).all()


def test_the_faiss_index_finds_what_similar_finds(line) -> None:
    faiss = pytest.importorskip("faiss")
    name = streams.names()[-1]
    line("export", "--to", "faiss", "--streams", name)
    index = faiss.read_index(str(line.folder / RUN / "export" / f"{name}.faiss"))
    with (line.folder / RUN / "export" / f"{name}.faiss.csv").open() as file:
        videos = {int(row["id"]): row["video_id"] for row in csv.DictReader(file)}
    row = next(number for number, video in videos.items() if video == "spin/4.mp4")
    cosine, ids = index.search(index.reconstruct(row)[None], 1)
    assert (videos[int(ids[0, 0])], cosine[0, 0]) == ("spin/4.mp4", pytest.approx(1, abs=1e-5))


def test_without_faiss_the_one_command_that_helps_is_named(
    line, monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "faiss" else find(name)
    )
    line("export", "--to", "faiss", code=2)
    assert "pip install 'tristream[export]'" in line.said


def test_an_export_of_windows_is_the_table_that_fuse_has_written(own) -> None:
    from tristream.store import embeddings

    own("export", "--windows", code=2)
    assert "has no windows of" in own.said
    workspace = Workspace(own.folder / RUN, own.folder / "cache")
    for name, table in read_tables(workspace, trained_spaces(workspace, None)).items():
        twice = table.take([row for row in range(len(table)) for _ in range(2)])
        twice.start_seconds[:] = np.tile([0.0, 0.5], len(table))
        embeddings.write(twice, workspace.folder / "windows" / name / "plan")
    written = own.json("export", "--windows")["written"]
    import pyarrow.parquet as pq

    for about in written.values():
        found = pq.read_table(own.folder / about["path"])
        assert len(found) == 40
        assert found["start_seconds"].to_pylist() == [0.0, 0.5] * 20


def test_similar_by_id_by_path_and_by_a_copy_of_the_file(
    line, two_classes: Path, tmp_path: Path
) -> None:
    by_id = line.json("similar", "spin/3.mp4")["similar"]
    by_path = line.json("similar", two_classes / "spin/3.mp4")["similar"]
    assert by_id == by_path
    assert "spin/3.mp4" not in [row["video_id"] for row in by_id]
    assert [row["cosine"] for row in by_id] == sorted(
        (row["cosine"] for row in by_id), reverse=True
    )
    copy = tmp_path / "copy.mp4"
    shutil.copyfile(two_classes / "spin/3.mp4", copy)
    by_copy = line.json("similar", copy, "-n", "3")["similar"]
    assert (by_copy[0]["video_id"], by_copy[0]["cosine"]) == (
        "spin/3.mp4",
        pytest.approx(1, abs=1e-5),
    )
    assert [row["video_id"] for row in by_copy[1:]] == [row["video_id"] for row in by_id[:2]]


def test_similar_to_a_silent_video_says_by_which_streams(line) -> None:
    if not any(streams.stream_class(name).needs_sound for name in streams.names()):
        pytest.skip("no stream here needs sound")
    found = line.json("similar", "spin/0.mp4", "--split", "train")["similar"]
    seeing = [name for name in streams.names() if not streams.stream_class(name).needs_sound]
    assert {tuple(row["streams"]) for row in found} == {tuple(seeing)}
    assert {row["split"] for row in found} == {"train"}
    line("similar", "spin/0.mp4", "--out", "near.csv")
    assert (
        (line.folder / "near.csv").read_text().startswith("video_id,cosine,label,split,streams\n")
    )


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["export", "--to", "xls"], "--to xls is no format; available: parquet, npz, csv, faiss"),
        (["similar", "nowhere.mp4"], "nowhere.mp4 is no video_id of runs/default and no file"),
        (
            ["similar", "spin/1.mp4", "--split", "dev"],
            "--split dev: no video of this run is in it; there are test, ",
        ),
        (["similar", "spin/1.mp4", "--out", "a.xls"], "--out a.xls ends in '.xls'"),
        (["predict", "x.mp4", "--max-error", "0"], "no confidence brings the error to 0"),
    ],
)
def test_a_mistake_is_said_before_any_work(
    line, arguments: list[str], sentence: str, monkeypatch
) -> None:
    if "--max-error" in arguments:
        spoil_the_confidence(line.folder / RUN)
    line(*arguments, code=2)
    assert sentence in line.said


def spoil_the_confidence(run: Path) -> None:
    """Make the surest validation video a wrong one."""
    from tristream.store.checkpoint import load_artifact, save_artifact

    arrays, config = load_artifact(run / "fusion" / "svm")
    arrays = {name: np.array(array) for name, array in arrays.items()}
    arrays["val.hits"][:] = 0
    save_artifact(
        run / "fusion" / "svm", arrays, {k: v for k, v in config.items() if k != "sha256"}
    )


def test_predict_gives_probabilities_and_says_not_sure_below_the_limit(
    own, two_classes: Path
) -> None:
    files = [
        two_classes / f"{label}/{index}.mp4" for label in ("bounce", "spin") for index in range(4)
    ]
    set_validation(own.folder / RUN, confidence=[0.9, 0.8, 0.7, 0.6], hits=[1, 1, 1, 1])
    found = own.json("predict", *files)["predictions"]
    assert "calibrated on 4 validation videos" in own.said
    for row in found:
        assert sum(entry["probability"] for entry in row["top"]) == pytest.approx(1, abs=1e-4)
        assert row["label"] == row["top"][0]["label"]
    surest = sorted((row["top"][0]["probability"] for row in found), reverse=True)
    gaps = [above - below for above, below in itertools.pairwise(surest)]
    n_named = 1 + gaps.index(max(gaps))  # networks of one epoch are often equally sure
    limit = (surest[n_named - 1] + surest[n_named]) / 2
    set_validation(
        own.folder / RUN, confidence=[limit] * 40 + [0.01] * 40, hits=[1] * 40 + [0] * 40
    )
    again = own.json("predict", *files, "--max-error", "0.1", "--out", "named.csv")["predictions"]
    assert sum(row["not_sure"] for row in again) == len(files) - n_named
    assert all((row["label"] is None) == row["not_sure"] for row in again)
    assert "of the 80 validation videos 40 reach it, of which 0 are wrong" in own.said
    text = (own.folder / "named.csv").read_text()
    assert text.startswith("path,label,not_sure,label_1,score_1,probability_1,")
    assert (
        own("predict", *files, "--max-error", "0.1").count(": not sure  [") == len(files) - n_named
    )


def set_validation(run: Path, *, confidence: list[float], hits: list[int]) -> None:
    from tristream.store.checkpoint import load_artifact, save_artifact

    arrays, config = load_artifact(run / "fusion" / "svm")
    arrays = {
        name: array
        for name, array in arrays.items()
        if not name.startswith(("pattern", "platt", "val."))
    }
    arrays |= {"val.confidence": np.array(confidence), "val.hits": np.array(hits, np.uint8)}
    # as an earlier version stored it; the temperature of networks of one epoch makes all equal
    config["calibration"] = {"method": "temperature", "temperature": 1.0}
    config.pop("patterns", None)
    save_artifact(
        run / "fusion" / "svm", arrays, {k: v for k, v in config.items() if k != "sha256"}
    )


def test_an_ensemble_is_the_mean_of_the_runs_probabilities(own, two_classes: Path) -> None:
    run, other = own.folder / RUN, own.folder / "runs/other"
    files = [two_classes / "bounce/0.mp4", two_classes / "spin/1.mp4"]
    set_validation(run, confidence=[0.9, 0.8, 0.7, 0.6], hits=[1, 1, 1, 1])
    shutil.copytree(run, other)
    cool(other, 3.0)
    alone = [own.json("predict", *files, "--run", r)["predictions"] for r in (RUN, "runs/other")]
    both = own.json("predict", *files, "--with", "runs/other")["predictions"]
    for first, second, mean in zip(*alone, both, strict=True):
        p, q, m = (
            {e["label"]: e["probability"] for e in row["top"]} for row in (first, second, mean)
        )
        assert m == {label: pytest.approx((p[label] + q[label]) / 2, abs=1e-5) for label in p}
        assert mean["n_runs"] == 2
        assert (mean["streams"], mean["masked"]) == (sorted(first["streams"]), first["masked"])
    own("predict", files[0], "--with", "runs/other", "--max-error", "0.1", code=2)
    assert "--max-error and --with exclude each other" in own.said
    own("predict", files[0], "--with", "runs/none", code=2)
    assert "runs/none does not exist; make it first: tristream index" in own.said


def test_predict_marks_the_videos_of_the_training_split_by_their_bytes(own, two_classes) -> None:
    rows = list(csv.DictReader((own.folder / RUN / "videos.csv").open()))
    named = {split: next(r["video_id"] for r in rows if r["split"] == split and not r["video_id"].endswith("/0.mp4"))
             for split in ("train", "val", "test")}  # fmt: skip
    renamed = own.folder / "renamed.mp4"
    shutil.copy(two_classes / named["train"], renamed)
    files = [renamed, two_classes / named["val"], two_classes / named["test"]]
    predictions = own.json("predict", *files)["predictions"]
    assert [row.get("seen_in_training") for row in predictions] == [True, None, None]
    lines = own("predict", *files, "--out", "named.csv").splitlines()
    assert [line.endswith("  seen in training") for line in lines] == [True, False, False]
    cells = list(csv.DictReader((own.folder / "named.csv").open()))
    assert [row["seen_in_training"] for row in cells] == ["true", "", ""]
    (own.folder / RUN / "videos.csv").unlink()  # a run that was copied without its table
    assert "seen_in_training" not in own.json("predict", renamed)["predictions"][0]


def cool(run: Path, temperature: float) -> None:
    from tristream.store.checkpoint import load_artifact, save_artifact

    arrays, config = load_artifact(run / "fusion" / "svm")
    config["calibration"]["temperature"] = temperature
    save_artifact(
        run / "fusion" / "svm", dict(arrays), {k: v for k, v in config.items() if k != "sha256"}
    )


def test_show_loads_no_network(folder: Path) -> None:
    import subprocess

    code = (
        "import sys, orchestrate\n"
        f"sys.argv = ['tristream', 'show', {str(folder / RUN)!r}]\n"
        "try: orchestrate.main()\nexcept SystemExit: pass\n"
        "assert not {'torch', 'cv2', 'sklearn'} & sys.modules.keys(), 'heavy'"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[1]
    )
    assert done.returncode == 0, done.stderr
