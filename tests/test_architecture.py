"""The arrows of the house: who may import whom (../shared/DESIGN.md, "The house"; the picture is in the README)."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

HOME = Path(__file__).parents[1]
ROOMS = (
    "bench",
    "commands",
    "dataset",
    "flow",
    "fusion",
    "media",
    "report",
    "serving",
    "store",
    "streams",
    "workshop",
)
LIBRARY = {"dataset", "media", "flow", "streams", "store", "fusion", "report", "tristream"}
MAY_IMPORT = {
    "orchestrate": {"commands"},
    "commands": {
        "commands",
        "tristream",
        "report",
        "serving",
        "workshop",
        "bench",
        "media",
        "flow",
        "store",
        "dataset",
    },
    "bench": LIBRARY | {"bench", "workshop"},
    "tristream": LIBRARY,
    "serving": {"serving", "tristream", "report"},
    "report": {"report", "dataset", "fusion", "store", "media", "flow"},
    "fusion": {"fusion", "store"},
    "streams": {"streams", "media", "flow", "store"},
    "workshop": {"workshop", "media", "flow"},
    "dataset": {"dataset", "media"},
    "media": {"media"},
    "flow": {"flow"},
    "store": {"store"},
}
MAX_LINES = 400


@dataclass(frozen=True)
class Import:
    """One imported module, by its full name; of our rooms without the leading `tristream.`."""

    by: str
    module: str
    line: int
    at_import: bool  # when the importing module is loaded, not later in a function and not for the type checker alone

    def __str__(self) -> str:
        return f"{self.by}:{self.line} imports {self.module}"


def files() -> dict[str, Path]:
    """Module name → file, of everything that is ours: "media.decode", "tristream.run", "orchestrate"."""
    modules = {"orchestrate": HOME / "orchestrate.py"}
    for folder in (*ROOMS, "tristream"):
        for path in sorted((HOME / folder).rglob("*.py")):
            parts = path.relative_to(HOME).with_suffix("").parts
            modules[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return modules


FILES = files()


def local(name: str) -> str:
    """The name of a module of ours as in FILES: "tristream.media.decode" is "media.decode"."""
    inside = name.removeprefix("tristream.")
    return inside if inside.split(".")[0] in ROOMS else name


def imports_of(module: str, tree: ast.AST) -> Iterator[Import]:
    def walk(node: ast.AST, at_import: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                for alias in child.names:
                    yield Import(module, local(alias.name), child.lineno, at_import)
            elif isinstance(child, ast.ImportFrom):
                assert not child.level, f"{module}:{child.lineno}: imports are absolute here"
                for (
                    alias
                ) in child.names:  # `from tristream.streams import model` imports streams.model
                    inside = local(f"{child.module}.{alias.name}")
                    yield Import(
                        module,
                        inside if inside in FILES else local(child.module or ""),
                        child.lineno,
                        at_import,
                    )
            elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
                yield from walk(child, False)
            elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                for part in child.body:
                    yield from walk(ast.Module([part], []), False)
                yield from walk(ast.Module(child.orelse, []), at_import)
            else:
                yield from walk(child, at_import)

    yield from walk(tree, True)


IMPORTS = [
    each
    for module, path in FILES.items()
    for each in imports_of(module, ast.parse(path.read_text(encoding="utf-8"), str(path)))
]
OURS = [
    each
    for each in IMPORTS
    if each.module.split(".")[0] in (*ROOMS, "tristream", "orchestrate", "tests")
]
EVERYBODY_MAY = {"tristream", "tristream.errors", "tristream.progress"}


def folder_of_streams(module: str) -> str:
    """The folder of `streams/` that a module is in, "" for every other module."""
    parts = module.split(".")
    inside = len(parts) > 1 and parts[0] == "streams" and (HOME / "streams" / parts[1]).is_dir()
    return parts[1] if inside else ""


def test_the_imports_were_found_at_all():
    assert {
        "orchestrate",
        "streams.training_loop",
        "media.decode",
        "flow.estimators.dis",
    } <= FILES.keys()
    assert len(OURS) > 100
    by_hand = {(each.by, each.module, each.at_import) for each in IMPORTS}
    assert ("streams.extraction", "streams.model", True) in by_hand
    assert (
        "streams.reader",
        "streams.aggregator",
        True,
    ) in by_hand  # from tristream.streams import aggregator
    assert ("streams.stream", "torch", False) in by_hand  # for the type checker alone
    assert ("store.entry", "safetensors.numpy", False) in by_hand  # in a function


def test_every_import_follows_an_arrow():
    wrong = [
        str(each)
        for each in OURS
        if each.module not in EVERYBODY_MAY
        and each.by != "tristream.__main__"
        and each.module.split(".")[0] not in MAY_IMPORT[each.by.split(".")[0]]
    ]
    assert wrong == []


def test_a_folder_of_streams_imports_no_other_folder():
    wrong = [
        str(each)
        for each in OURS
        if folder_of_streams(each.by)
        and folder_of_streams(each.module) not in ("", folder_of_streams(each.by))
    ]
    assert wrong == []


def test_nobody_outside_imports_a_folder_of_streams():
    """Streams are loaded by name: what is shared, and every command, works without any one of them.

    A bench of one stream's own parts may import them when it is run.
    """
    others = [each for each in OURS if each.at_import or not each.by.startswith("bench.")]
    wrong = [
        str(each)
        for each in others
        if folder_of_streams(each.module) and not folder_of_streams(each.by)
    ]
    assert wrong == []


def test_no_module_imports_itself_in_a_circle():
    arrows: dict[str, set[str]] = {module: set() for module in FILES}
    for each in OURS:  # late and type-only imports count
        if each.module in FILES and each.module != each.by:
            arrows[each.by].add(each.module)
    done: set[str] = set()

    def visit(module: str, way: tuple[str, ...]) -> None:
        assert module not in way, " → ".join([*way[way.index(module) :], module])
        if module not in done:
            for other in sorted(arrows[module]):
                visit(other, (*way, module))
            done.add(module)

    for module in arrows:
        visit(module, ())


def test_only_media_imports_a_decoder():
    wrong = [
        str(f) for f in IMPORTS if f.module.split(".")[0] == "av" and f.by.split(".")[0] != "media"
    ]
    assert wrong == []


def test_media_never_imports_torch_so_that_a_decode_process_starts_quickly():
    heavy = {"torch", "torchvision", "timm", "sklearn", "pyarrow"}
    wrong = [
        str(f) for f in IMPORTS if f.module.split(".")[0] in heavy and f.by.split(".")[0] == "media"
    ]
    assert wrong == []


def test_heavy_libraries_are_not_imported_by_the_front_door_or_a_command():
    heavy = {"torch", "torchvision", "timm", "cv2", "av", "sklearn", "pyarrow", "plotly"}
    wrong = [
        str(f)
        for f in IMPORTS
        if f.at_import
        and f.module.split(".")[0] in heavy
        and f.by.split(".")[0] in ("orchestrate", "commands")
    ]
    assert wrong == []


def test_every_folder_of_code_is_a_room_that_is_packaged():
    packages = sorted(path.parent.name for path in HOME.glob("*/__init__.py"))
    assert packages == sorted([*ROOMS, "tristream"])
    setup = ast.parse((HOME / "setup.py").read_text(encoding="utf-8"))
    rooms = next(
        ast.literal_eval(node.value) for node in ast.walk(setup) if isinstance(node, ast.Assign)
    )
    assert sorted(rooms) == sorted(ROOMS)


def test_every_folder_with_code_is_a_package():
    bare = {
        path.parent for path in FILES.values() if not (path.parent / "__init__.py").exists()
    } - {HOME}
    assert bare == set()


def test_no_file_is_too_long_to_say_one_thing():
    long = {
        module: n
        for module, path in FILES.items()
        if (n := len(path.read_text(encoding="utf-8").splitlines())) > MAX_LINES
    }
    assert long == {}


MANY_KEYWORDS = {  # their keywords are the fields of a request, or hyperparameters of a published network
    "fusion.anomaly.autoencoder.__init__",
    "media.chunks.decode_chunks",
    "media.decode.decode_video",
    "media.live.follow.__init__",
    "media.live.source.decode_live",
    "media.sandbox.pool.submit",
    "streams.temporal.motion_cnn.__init__",
    "workshop.dataset.render",
}


def test_a_function_with_many_parameters_is_a_command():
    """Only the `run` functions that typer calls have more than eight."""
    many = []
    for module, path in FILES.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.FunctionDef) or module.startswith("commands."):
                continue
            names = [
                a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)
            ]
            if len([name for name in names if name not in ("self", "cls")]) > 8:
                many.append(f"{module}.{node.name}")
    assert set(many) <= MANY_KEYWORDS


def test_a_command_is_one_file_and_only_four_others_serve_them_all():
    from tristream.commands.main import COMMANDS

    shared = {"__init__", "main", "options", "screen"}
    names = {path.stem for path in (HOME / "commands").glob("*.py")}
    assert names == {name.replace("-", "_") for name in COMMANDS} | shared


def test_the_library_imports_neither_typer_nor_rich():
    wrong = [
        str(e)
        for e in IMPORTS
        if e.by.startswith("tristream.") and e.module.split(".")[0] in ("typer", "rich")
    ]
    assert wrong == []


OPENERS = ("What", "Where", "Who", "Whose", "Whether", "How", "Which", "When")


def test_no_docstring_opens_with_a_question_word():
    wrong = []
    for path in [*FILES.values(), *(HOME / "tests").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Module):
                text = ast.get_docstring(node) or ""
                if text.split(" ")[0].rstrip(",:") in OPENERS:
                    wrong.append(f"{path.relative_to(HOME)}: {text.splitlines()[0]}")
    assert wrong == []


def test_tests_are_flat():
    assert not (HOME / "tests" / "__init__.py").exists()
    assert list((HOME / "tests").glob("*/test_*.py")) == []


HELP = """
import contextlib, io, json, sys
import orchestrate
pages = {}
for arguments in [["--help"], *([name, "--help"] for name in orchestrate.COMMANDS)]:
    sys.argv = ["tristream", *arguments]
    text, code = io.StringIO(), None
    try:
        with contextlib.redirect_stdout(text):
            orchestrate.main()
    except SystemExit as stop:
        code = stop.code
    except ModuleNotFoundError as error:
        code = str(error)
    heavy = sorted({"torch", "cv2", "av", "sklearn", "pyarrow", "timm", "scipy"} & sys.modules.keys())
    pages[" ".join(arguments)] = [code, text.getvalue(), heavy]
json.dump(pages, sys.__stdout__)
"""


@pytest.fixture(scope="module")
def help_pages():
    done = subprocess.run(
        [sys.executable, "-c", HELP], cwd=HOME, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


def test_help_of_every_command_imports_no_heavy_library(help_pages):
    for command, (_, _, heavy) in help_pages.items():
        assert heavy == [], command


def test_help_of_every_command_is_printed_and_is_well(help_pages):
    for command, (code, text, _) in help_pages.items():
        assert code == 0, (command, code)
        assert "Usage: " in text, command


def test_the_front_door_lists_every_command(help_pages):
    import orchestrate

    listed = help_pages["--help"][1]
    assert [name for name in orchestrate.COMMANDS if f"\n  {name} " not in listed] == []


def test_every_command_is_one_file_and_every_file_is_known():
    import orchestrate

    modules = {name.replace("-", "_") for name in orchestrate.COMMANDS}
    present = {path.stem for path in (HOME / "commands").glob("*.py")}
    assert modules <= present

    def offers(node: ast.stmt) -> bool:  # a command, or one with commands of its own
        assigned = (
            [ast.unparse(target) for target in node.targets] if isinstance(node, ast.Assign) else []
        )
        return (isinstance(node, ast.FunctionDef) and node.name == "run") or assigned == ["app"]

    files = (HOME / "commands").glob("*.py")
    commands = {path.stem for path in files if any(map(offers, ast.parse(path.read_text()).body))}
    assert commands == modules
