"""Nothing that is loaded can run code, no error is swallowed, and only media/ reads videos."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

HOME = Path(__file__).parents[1]
OURS = sorted(
    path
    for path in HOME.rglob("*.py")
    if not {".venv", "build", "dist"} & set(path.relative_to(HOME).parts)
    and path.name != "make_bad_videos.py"  # it makes the pickles that must not be loaded
    and not any(part.startswith(".") for part in path.relative_to(HOME).parts)
    and path != Path(__file__)
)
CODE = [path for path in OURS if path.relative_to(HOME).parts[0] != "tests"]

# What each would do: run code from a file, or parse a video in a process that must not die.
FORBIDDEN = {
    "pickle": r"^\s*(import|from) (c?pickle|dill|cloudpickle|shelve|marshal)\b",
    "pickle_call": r"\bpickle\.(load|loads|Unpickler)\b",
    "joblib": r"\bjoblib\.load\b",
    "torch": r"\btorch\.(load\b|jit\.load|hub\.)",
    "numpy": r"allow_pickle\s*=\s*True",
    "yaml": r"\byaml\.(load|full_load|unsafe_load)\b",
    "downloads": r"pretrained\s*=\s*True|weights\s*=\s*[\"']DEFAULT[\"']|\.DEFAULT\b|weights\s*=\s*\w*_Weights"
    r"|\bfrom_pretrained\(|load_state_dict_from_url|hf_hub_download|snapshot_download|\bckpt_path\s*=",
    "video": r"\bVideoCapture\b",
    "network": r"^\s*(import|from) (requests|urllib\.request|huggingface_hub|http\.client)\b",
    "eval": r"(?<![\w.])(eval|exec)\(",
    "shell": r"shell\s*=\s*True|os\.system\(",
}

# The one guarded place of each: a child process that can open nothing any more, and downloads over https.
GUARDED = {
    "torch": ["store/weights/convert_child.py"],
    "network": ["store/weights/download.py"],
}


def test_there_is_code_to_look_at():
    names = {path.relative_to(HOME).as_posix() for path in OURS}
    assert {
        "orchestrate.py",
        "streams/training_loop.py",
        "store/checkpoint.py",
        "tests/conftest.py",
    } <= names
    assert not any(name.startswith(".venv") for name in names)


@pytest.mark.parametrize("what", FORBIDDEN)
def test_our_code_holds_no(what):
    pattern = re.compile(FORBIDDEN[what], re.MULTILINE)
    searched = CODE if what in ("network", "shell", "eval") else OURS
    found = [
        f"{path.relative_to(HOME)}:{text[: match.start()].count(chr(10)) + 1} {match.group().strip()}"
        for path in searched
        if path.relative_to(HOME).as_posix() not in GUARDED.get(what, [])
        for text in [path.read_text(encoding="utf-8")]
        for match in pattern.finditer(text)
    ]
    assert found == []


def test_pytorch_files_are_read_in_one_place_and_as_plain_tensors():
    calls = [
        ast.unparse(node)
        for node in ast.walk(
            ast.parse((HOME / "store/weights/convert_child.py").read_text(encoding="utf-8"))
        )
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load"
    ]
    assert len(calls) == 1
    assert "weights_only=True" in calls[0]


@pytest.mark.parametrize(
    ("what", "line"),
    [
        ("pickle", "import pickle"),
        ("pickle", "    from cloudpickle import loads"),
        ("joblib", "model = joblib.load(path)"),
        ("torch", "state = torch.load(path)"),
        ("numpy", "np.load(path, allow_pickle = True)"),
        ("yaml", "yaml.load(text)"),
        ("downloads", "timm.create_model(name, pretrained=True)"),
        ("downloads", "mobilenet_v2(weights=MobileNet_V2_Weights.IMAGENET1K_V1)"),
        ("downloads", "ptlflow.get_model(name, ckpt_path='things')"),
        ("video", "cv2.VideoCapture(path)"),
        ("eval", "value = eval(text)"),
    ],
)
def test_the_search_would_find_it(what, line):
    assert re.search(FORBIDDEN[what], line, re.MULTILINE)


@pytest.mark.parametrize(
    "line", ["model.eval()", "network.to(device).eval()", "safetensors.torch.load_file(path)"]
)
def test_the_search_finds_nothing_harmless(line):
    assert not any(re.search(pattern, line, re.MULTILINE) for pattern in FORBIDDEN.values())


def test_no_error_is_swallowed():
    """No bare `except:`, and no `except Exception` whose block only passes or continues."""
    found = []
    for path in OURS:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
            if isinstance(node, ast.ExceptHandler):
                names = (
                    {name.id for name in ast.walk(node.type) if isinstance(name, ast.Name)}
                    if node.type
                    else set()
                )
                idle = all(
                    isinstance(line, ast.Pass | ast.Continue | ast.Break) for line in node.body
                )
                if node.type is None or (idle and names & {"Exception", "BaseException"}):
                    found.append(f"{path.relative_to(HOME)}:{node.lineno}")
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("suppress"):
                wide = {"Exception", "BaseException"} & {
                    ast.unparse(argument) for argument in node.args
                }
                found += [
                    f"{path.relative_to(HOME)}:{node.lineno} suppress {name}" for name in wide
                ]
    assert found == []


def test_models_of_timm_are_made_without_their_weights():
    """`pretrained` defaults to False, but a reader should not have to know; and ours say it."""
    for path in CODE:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("create_model"):
                said = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                assert said.get("pretrained") == "False", f"{path}:{node.lineno}"


def test_networks_of_torchvision_are_made_without_their_weights():
    """Every call that is given `weights` in our code where a library would fetch them says None, or a file of ours."""
    found = 0
    for path in CODE:
        tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
        imported = [
            node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)
        ]
        if not any(module.startswith("torchvision") for module in imported):
            continue
        for node in ast.walk(tree):
            name = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            if name == "mobilenet_v2" or name.startswith("getattr(optical_flow"):
                said = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                assert said.get("weights") == "None", f"{path}:{node.lineno}"
                found += 1
    assert found == 2


def test_numpy_files_are_read_without_pickle_and_say_so():
    for path in CODE:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("np.load", "numpy.load"):
                said = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                assert said.get("allow_pickle") == "False", (
                    f"{path}:{node.lineno} np.load without allow_pickle=False"
                )
