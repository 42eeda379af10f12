"""Values of options are checked before large libraries are imported."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tristream import choices
from tristream.errors import UsageError

HOME = Path(__file__).parents[1]
HEAVY = ("torch", "torchvision", "timm", "sklearn", "scipy", "cv2", "av", "pyarrow")
NO_GPU = not choices._has_gpu(Path("/"))

RUN_ALL = """
import contextlib, io, json, os, sys
from rich.console import Console
from tristream.commands import main as front, screen
cases, heavy = json.loads(sys.argv[1])
results = []
for case in cases:
    words, code = io.StringIO(), 0
    screen.people = Console(file=words, soft_wrap=True, width=300)
    sys.argv = ["tristream", *case]
    with contextlib.redirect_stderr(words), contextlib.redirect_stdout(io.StringIO()):
        try:
            front.main()
        except SystemExit as end:
            code = end.code
    results.append([code, words.getvalue(), sorted(set(heavy) & set(sys.modules))])
json.dump(results, sys.stdout)
"""


def run_all(cases: list[list[str]], folder: Path) -> list[list]:
    """Run command lines in one process; return code, stderr and heavy modules after each."""
    done = subprocess.run(
        [sys.executable, "-c", RUN_ALL, json.dumps([cases, HEAVY])],
        cwd=folder,
        env={"PYTHONPATH": str(HOME), "PATH": "/usr/bin:/bin", "HOME": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def folder(tmp_path):
    """A folder with a run that holds an empty table of videos."""
    (tmp_path / "runs/default").mkdir(parents=True)
    (tmp_path / "runs/default/videos.csv").write_text("video_id,path,label,split\n")
    (tmp_path / "x.mp4").write_bytes(b"")
    (tmp_path / "wrong.toml").write_text("[streams.spatial.encoder_training]\nepoch = 3\n")
    return tmp_path


WRONG = [
    ("detect x.mp4 --quantile 1.5", "--quantile 1.5 is out of range; it must be between 0 and 1"),
    ("detect x.mp4 --mean-sd -1", "--mean-sd -1 is out of range; it must be above 0"),
    ("detect x.mp4 --false-alarms-per-hour 0", "--false-alarms-per-hour 0 is out of range"),
    ("detect x.mp4 --threshold 1 --quantile 0.9", "--threshold and --quantile are different"),
    ("detect x.mp4 --device gpu", "--device gpu is unknown; it must be auto, cpu, cuda, cuda:1"),
    ("detect x.mp4 --out x.txt", "--out x.txt ends in '.txt'"),
    ("predict x.mp4 --streams smell", "unknown stream 'smell'; available: audio"),
    ("predict x.mp4 --set limits.max_byte=3", "did you mean limits.max_bytes?"),
    ("predict x.mp4 --config none.toml", "--config none.toml does not exist"),
    ("embed --precision float16", "--precision float16 is unknown; available: float32, bf16"),
    ("embed --backend onnx", "--backend onnx is unknown; available: auto, torch"),
    ("embed --retry all", "--retry all is unknown"),
    ("embed --shard 9/8", "--shard 9/8 is not K/N with 1 <= K <= N"),
    ("train-stream smell", "unknown stream 'smell'; available: audio"),
    ("train-stream spatial --precision x", "--precision x is unknown"),
    ("train-stream spatial --config wrong.toml", "unknown key 'epoch' in [streams.spatial.enc"),
    ("train-stream spatial --set streams.spatial.widht=3", "did you mean streams.spatial.width"),
    ("train-stream spatial --set epochs=3", "did you mean streams.audio.encoder_training.epochs"),
    ("train-stream spatial --set streams.spatial.encoder_training.epochs=0", "epochs = 0: Input"),
    ("train-stream spatial --preset heavy", "unknown preset 'heavy'; available: light, "),
    ("fuse --set fusion.C=1", "unknown key 'C' in [fusion]; valid: l2"),
    ("fuse --config none.toml", "--config none.toml does not exist"),
    ("fuse --regions 4", "--regions 4 is not ROWSxCOLUMNS"),
    ("similar x.mp4 --streams smell", "unknown stream 'smell'"),
    ("export --to xlsx", "--to xlsx is no format; available: parquet"),
    ("export --to onnx --windows", "--to onnx writes networks; leave out --windows"),
    ("plan x.mp4 --streams smell", "unknown stream 'smell'"),
    ("flow show x.mp4 --set n_sample=3", "did you mean sampler.n_samples?"),
    ("cache prune --max-size 10", "--max-size 10 has no unit; it must be like 10GB or 10MB"),
    ("cross-validate --by group", "--by group is unknown; it can be: fold"),
    ("cross-validate --by fold --folds 3", "--folds and --by exclude each other"),
    ("cross-validate --set epochs=3", "encoder_training.epochs"),
    ("settings --preset heavy", "unknown preset 'heavy'; available: light, "),
]


def test_wrong_values_are_refused_before_a_large_library_is_imported(folder):
    cases = [line.split() for line, _ in WRONG]
    expected = [sentence for _, sentence in WRONG]
    if NO_GPU:
        cases += [f"{line} --device cuda:1".split() for line in ("embed", "fuse", "predict x.mp4")]
        expected += ["--device cuda:1 cannot be used here (this machine has no GPU"] * 3
    for case, sentence, (code, words, heavy) in zip(
        cases, expected, run_all(cases, folder), strict=True
    ):
        assert sentence in words, case
        assert (code, heavy) == (2, []), (case, words)


WITH_RUN = [
    "train-stream spatial",
    "embed",
    "fuse",
    "report",
    "show",
    "export",
    "similar x.mp4",
    "predict x.mp4",
    "detect x.mp4",
    "plan x.mp4",
    "cross-validate",
    "serve",
]


def test_every_command_refuses_a_run_that_does_not_exist_and_makes_no_folder(folder):
    (folder / "runs/cameras").mkdir()
    (folder / "empty").touch()
    cases = [f"{line} --run runs/camera".split() for line in WITH_RUN]
    for case, (code, words, heavy) in zip(cases, run_all(cases, folder), strict=True):
        assert code == 2, (case, words)
        assert "runs/camera does not exist; make it first: tristream index --run" in words, case
        assert "did you mean runs/cameras?" in words
        assert heavy == []
    assert not (folder / "runs/camera").exists()
    others = ["predict x.mp4 --with runs/none", "train-stream spatial --from runs/none",
              "report --run empty"]  # fmt: skip
    for code, words, _ in run_all([line.split() for line in others], folder):
        assert code == 2
        assert "none does not exist; make it" in words or "empty is not a folder" in words


def test_the_list_of_commands_that_read_a_run_is_complete():
    import importlib
    import inspect

    from tristream.commands.main import COMMANDS

    with_run = set()
    for name in COMMANDS:
        module = importlib.import_module(f"tristream.commands.{name.replace('-', '_')}")
        if hasattr(module, "run") and "run" in inspect.signature(module.run).parameters:
            with_run.add(name)
    assert with_run - {"index", "run"} == {line.split()[0] for line in WITH_RUN}


def test_a_run_given_as_a_file_is_not_a_folder(tmp_path):
    (tmp_path / "a").touch()
    with pytest.raises(UsageError, match="a is not a folder; make it first"):
        choices.check_run(tmp_path / "a")


@pytest.mark.parametrize("name", ["", "gpu", "cuda:", "cuda:x", "CPU", "cuda:-1", "0"])
def test_an_unknown_device_is_refused(name):
    with pytest.raises(UsageError, match=f"--device {name} is unknown"):
        choices.check_device(name)


@pytest.mark.parametrize(
    "file",
    ["dev/nvidia0", "dev/nvidiactl", "proc/driver/nvidia", "dev/kfd", "dev/dxg", "dev/nvmap"],
)
def test_cuda_is_left_to_torch_where_a_gpu_shows_and_refused_elsewhere(tmp_path, file):
    for name in ("cuda", "cuda:3"):
        with pytest.raises(UsageError, match=f"--device {name} cannot be used here .this machine"):
            choices.check_device(name, root=tmp_path, platform="linux")
    (tmp_path / file).mkdir(parents=True)
    choices.check_device("cuda:3", root=tmp_path, platform="linux")
    choices.check_device("cuda", root=tmp_path / "none", platform="win32")


def test_mps_is_apples_and_cuda_is_not():
    with pytest.raises(UsageError, match="mps is a device of Apple's computers"):
        choices.check_device("mps", platform="linux")
    with pytest.raises(UsageError, match="macOS has no CUDA"):
        choices.check_device("cuda", platform="darwin")
    choices.check_device("mps", platform="darwin")


@pytest.mark.parametrize("value", [0, 1, -0.5, float("nan"), float("inf")])
def test_a_quantile_lies_strictly_between_0_and_1(value):
    with pytest.raises(UsageError, match=r"--quantile .* must be between 0 and 1"):
        choices.check_level("--quantile", value, above=0, below=1)
    choices.check_level("--quantile", 0.5, above=0, below=1)
    choices.check_level("--quantile", None, above=0, below=1)


def test_a_command_says_at_once_what_it_begins(folder):
    [(code, words, _)] = run_all([["embed"]], folder)
    assert words.splitlines()[0] == "embedding the videos of runs/default; loading libraries"
    assert code == 2
    assert "no stream is trained in runs/default" in words
