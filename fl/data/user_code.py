"""Functions in a user's own Python file, named FILE.py:FUNCTION on the command line."""

import ast
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fl.config.exits import Refused
from fl.data.keras_import import import_quietly


class UserError(Refused):
    """What the user gave fails in the same way in every process of a host: one report will do."""


def find_function(reference: str, flag: str, error: type[Exception]) -> Path:
    """Return the file of FILE.py:FUNCTION without running it.

    Raises `error` with one line when there is no such file or it does not define the function.
    """
    file, _, function = reference.rpartition(":")
    path = Path(file)
    try:
        tree = ast.parse(path.read_bytes(), str(path))
    except OSError as problem:
        raise error(f"{flag}: cannot read {path} ({problem.strerror}): check the path") from None
    except (SyntaxError, ValueError) as problem:
        raise error(f"{flag}: {path} is no valid Python: {problem}") from None
    if function not in _top_level_names(tree):
        raise error(f"{flag}: {path} defines no function {function}: check the name after the :")
    return path


def _top_level_names(tree: ast.AST) -> set[str]:
    """Return the names that a module binds, or may: some branches are not taken."""
    names = set()
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If | ast.Try | ast.With | ast.ExceptHandler):
            names |= _top_level_names(node)
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.ImportFrom | ast.Import):
            names |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
        elif isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
    return names


def _imports_keras(path: Path) -> bool:
    """Return whether a file imports Keras or TensorFlow, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_bytes(), str(path))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        if any(name.partition(".")[0] in ("keras", "tensorflow") for name in names):
            return True
    return False


def load_function(reference: str, flag: str, error: type[Exception]) -> Callable[[], Any]:
    """Run the file of FILE.py:FUNCTION and return a guarded function of it.

    Modules beside the file can be imported from it. What goes wrong in the user's code, now or
    in the call, is raised as `error` with one line that names the place.
    """
    path = find_function(reference, flag, error)
    if _imports_keras(path):
        import_quietly()  # else the file's own import would show TensorFlow's log
    name = f"user_{path.stem}"
    if name not in sys.modules or sys.modules[name].__file__ != str(path.resolve()):
        spec = importlib.util.spec_from_file_location(name, path.resolve())
        if spec is None or spec.loader is None:
            raise error(f"{flag}: cannot import {path}")
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        if str(path.resolve().parent) not in sys.path:
            sys.path.append(str(path.resolve().parent))
        try:
            spec.loader.exec_module(module)
        except (Exception, SystemExit) as problem:
            del sys.modules[name]
            raise error(f"{flag}: {path} failed: {_where(problem, path)}") from problem
    function = getattr(sys.modules[name], reference.rpartition(":")[2], None)
    if not callable(function):
        raise error(f"{flag}: {reference} is no function: check the name after the :")

    def guarded() -> Any:
        try:
            return function()
        except (Exception, SystemExit) as problem:
            raise error(f"{flag}: {reference} failed: {_where(problem, path)}") from problem

    return guarded


def _where(problem: BaseException, path: Path) -> str:
    """Return type, text and the last line of the user's file that led to a problem."""
    line, trace = 0, problem.__traceback__
    while trace is not None:
        if Path(trace.tb_frame.f_code.co_filename) == path.resolve():
            line = trace.tb_lineno
        trace = trace.tb_next
    text = " ".join(str(problem).split())
    return f"{type(problem).__name__}: {text}" + (f" (line {line})" if line else "")
