"""What the pure rooms of mphe may touch; who may import whom is a contract in pyproject.toml."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
IMPURE_ROOMS = {"net", "run"}
PUBLIC_RANDOMNESS = "update"
COMMANDS = {"__main__.py", "parameters.py"}
FORBIDDEN = {
    "socket", "ssl", "select", "selectors", "asyncio", "threading", "multiprocessing",
    "concurrent", "subprocess", "time", "datetime", "random", "secrets", "pickle", "signal",
    "tempfile", "pathlib", "shutil", "logging", "http", "urllib",
}  # fmt: skip
DOZEN = 14


def room(path: Path) -> str:
    return path.relative_to(ROOT / "mphe").parts[0]


PURE = sorted(
    path
    for path in (ROOT / "mphe").rglob("*.py")
    if room(path) not in IMPURE_ROOMS and path.name not in COMMANDS
)


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imports(tree: ast.AST) -> Iterator[str]:
    """Yield the full name of every import, at any depth: `from a import b` gives a.b."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def top(name: str) -> str:
    return name.partition(".")[0]


each_pure_module = pytest.mark.parametrize(
    "path", PURE, ids=lambda path: path.relative_to(ROOT).as_posix()
)


def test_the_scan_sees_the_package() -> None:
    assert len(PURE) > 30
    assert "numpy" in {top(name) for path in PURE for name in imports(tree_of(path))}


@each_pure_module
def test_a_pure_room_imports_only_what_it_may(path: Path) -> None:
    allowed = set(sys.stdlib_module_names) | {"numpy", "cryptography", "msgpack", "mphe"}
    found = {top(name) for name in imports(tree_of(path))}
    assert found <= allowed
    assert not found & FORBIDDEN


@each_pure_module
def test_cryptography_does_not_touch_numpy_random(path: Path) -> None:
    if room(path) == PUBLIC_RANDOMNESS:
        pytest.skip("rounding and choices that all parties draw from the public seed")
    tree = tree_of(path)
    assert not any(name.startswith("numpy.random") for name in imports(tree))
    attributes = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert not attributes & {"random", "default_rng"}


@each_pure_module
def test_only_one_module_asks_the_operating_system(path: Path) -> None:
    uses_os = "os" in {top(name) for name in imports(tree_of(path))}
    assert uses_os == (path.name == "system.py")


@each_pure_module
def test_a_pure_room_neither_prints_nor_opens_files(path: Path) -> None:
    called = {
        node.func.id
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert not called & {"print", "open", "input", "exec", "eval", "__import__", "breakpoint"}


def test_the_program_knows_the_application_only() -> None:
    found = {top(name) for name in imports(tree_of(ROOT / "main.py"))}
    assert found - set(sys.stdlib_module_names) == {"fl", "mpi4py"}


def test_importing_the_library_starts_no_network_and_no_application() -> None:
    code = (
        "import sys, mphe; "
        "print(*(n for n in sys.modules if n.startswith(('mphe.net', 'mphe.run', 'fl')) "
        "or n in ('asyncio', 'ssl', 'tensorflow')))"
    )
    words = [sys.executable, "-c", code]
    shown = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    assert shown.stdout.split() == []


@pytest.mark.parametrize("package", ["mphe", "fl"])
def test_no_room_is_crowded_and_none_is_for_one_module(package: str) -> None:
    rooms = {path.parent for path in (ROOT / package).rglob("*.py")}
    sizes = {
        folder.relative_to(ROOT).as_posix(): len(
            set(folder.glob("*.py")) - {folder / "__init__.py"}
        )
        + len([inner for inner in rooms if inner.parent == folder])
        for folder in rooms
    }
    assert {name: size for name, size in sizes.items() if not 2 <= size <= DOZEN} == {}


def test_the_scanner_finds_imports_inside_of_functions() -> None:
    tree = ast.parse("def f():\n    import os.path\n    from net import tcp")
    assert list(imports(tree)) == ["os.path", "net.tcp"]
