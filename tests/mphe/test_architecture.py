"""The layout, read from the sources: who imports whom."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("mphe", "net", "fl")
ORDER = [
    "errors",
    "noise",
    "rings",
    "agreement",
    "parameters",
    "ring",
    "sampling",
    "packing",
    "rlwe",
    "proof",
    "onetime",
    "shamir",
    "decryption",
    "sealing",
    "messages",
    "codec",
    "machine",
    "setup",
    "late",
    "setup_client",
    "returning",
    "confirmation",
    "setup_server",
    "evidence",
    "encryptor",
    "pledging",
    "contributor",
    "decryptor",
    "keyfile",
    "running_sum",
    "attendance",
    "ledger",
    "aggregator",
]
FORBIDDEN_IN_MPHE = {
    "socket", "ssl", "select", "selectors", "asyncio", "threading", "multiprocessing",
    "concurrent", "subprocess", "time", "datetime", "random", "secrets", "pickle", "signal",
    "tempfile", "pathlib", "shutil", "logging", "http", "urllib",
}  # fmt: skip
MODULES = sorted((ROOT / "mphe").glob("*.py"))


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


def sources(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


each_module = pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)


def test_the_scan_sees_the_package() -> None:
    assert len(MODULES) == len(ORDER) + 1
    assert "numpy" in {top(name) for path in MODULES for name in imports(tree_of(path))}


def test_every_module_has_its_place_in_the_order() -> None:
    assert sorted([*ORDER, "__init__"]) == [path.stem for path in MODULES]


@each_module
def test_mphe_imports_only_what_it_may(path: Path) -> None:
    allowed = set(sys.stdlib_module_names) | {"numpy", "cryptography", "msgpack", "mphe"}
    found = {top(name) for name in imports(tree_of(path))}
    assert found <= allowed
    assert not found & FORBIDDEN_IN_MPHE


@each_module
def test_mphe_does_not_touch_numpy_random(path: Path) -> None:
    tree = tree_of(path)
    assert not any(name.startswith("numpy.random") for name in imports(tree))
    attributes = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert not attributes & {"random", "default_rng"}


@each_module
def test_only_sampling_asks_the_operating_system(path: Path) -> None:
    uses_os = "os" in {top(name) for name in imports(tree_of(path))}
    assert uses_os == (path.stem == "sampling")


@each_module
def test_a_module_imports_only_those_to_its_left(path: Path) -> None:
    allowed = ORDER[: ORDER.index(path.stem)] if path.stem in ORDER else []
    for name in imports(tree_of(path)):
        if top(name) == "mphe":
            assert name.split(".")[1] in allowed, f"{path.stem} imports {name}"


def named_calls(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            yield node.func.id


@each_module
def test_mphe_neither_prints_nor_opens_files(path: Path) -> None:
    tree = tree_of(path)
    rest = [
        node
        for node in tree.body
        if not (path.stem == "parameters" and getattr(node, "name", "") == "main")
    ]
    calls = {name for node in rest for name in named_calls(node)}
    assert not calls & {"print", "open", "input", "exec", "eval", "__import__", "breakpoint"}


@each_module
def test_modules_are_short(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) < 400


def test_mphe_and_net_do_not_know_each_other_nor_what_lies_above() -> None:
    above = {"mphe": {"net", "fl", "main"}, "net": {"mphe", "fl", "main"}, "fl": {"main"}}
    for package in PACKAGES:
        for path in sources(package):
            found = {top(name) for name in imports(tree_of(path))}
            assert not found & above[package], path
    assert sources("net")


def test_only_main_imports_mpi4py() -> None:
    importers = {
        path.relative_to(ROOT).as_posix()
        for path in [*ROOT.glob("*.py"), *(p for package in PACKAGES for p in sources(package))]
        if "mpi4py" in {top(name) for name in imports(tree_of(path))}
    }
    assert importers == {"main.py"}


def test_the_scanner_finds_imports_inside_of_functions() -> None:
    tree = ast.parse("def f():\n    import os.path\n    from net import tcp")
    assert list(imports(tree)) == ["os.path", "net.tcp"]
