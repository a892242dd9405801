"""The wheel, built and installed alone in a new environment outside of the checkout.

Slow and with the package index, which `make check` needs anyhow.
"""

from __future__ import annotations

import re
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

import mphe
from tests.ports import free_port

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("wheel")]


def run(*words: str | Path, cwd: Path) -> str:
    """Run a command that has to end well, without the checkout's paths; return what it prints."""
    done = subprocess.run(
        [*map(str, words)], cwd=cwd, capture_output=True, text=True, env={"PATH": "/usr/bin:/bin"}
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("dist")
    words = ("-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", directory, ROOT)
    run(sys.executable, *words, cwd=directory)
    (path,) = directory.iterdir()
    return path


@pytest.fixture(scope="module")
def away(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with an environment `env` that holds the wheel and what it asks for."""
    directory = tmp_path_factory.mktemp("away")
    venv.create(directory / "env", with_pip=True)
    run(directory / "env/bin/python", "-m", "pip", "install", "--quiet", wheel, cwd=directory)
    return directory


def python(away: Path, *words: str) -> str:
    return run(away / "env/bin/python", *words, cwd=away)


def test_the_wheel_holds_the_library_and_nothing_else(wheel: Path) -> None:
    sources = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "mphe").rglob("*")
        if path.suffix == ".py" or path.name == "py.typed"
    }
    about = f"mphe-{mphe.__version__}.dist-info"
    notes = {f"{about}/{name}" for name in ("METADATA", "RECORD", "WHEEL", "licenses/LICENSE.md")}
    assert len(sources) > 50
    assert wheel.name == f"mphe-{mphe.__version__}-py3-none-any.whl"
    assert set(zipfile.ZipFile(wheel).namelist()) == sources | notes


def test_it_brings_three_packages_and_what_they_need(away: Path) -> None:
    listed = python(away, "-m", "pip", "list", "--format", "freeze").split()
    names = {line.partition("==")[0].lower() for line in listed}
    tools = {"pip", "setuptools", "wheel"}
    assert names - tools == {"mphe", "numpy", "cryptography", "msgpack", "cffi", "pycparser"}


def test_the_installed_library_is_the_one_that_is_imported(away: Path) -> None:
    place = python(away, "-c", "import mphe; print(mphe.__file__, mphe.__version__)").split()
    assert Path(place[0]).is_relative_to(away) and place[1] == mphe.__version__
    with pytest.raises(AssertionError, match="No module named 'fl'"):
        python(away, "-c", "import fl")


def test_importing_it_loads_neither_network_nor_event_loop(away: Path) -> None:
    code = (
        "import sys, mphe; "
        "print([n for n in sys.modules if n in ('asyncio', 'ssl', 'selectors') "
        "or n.startswith(('mphe.net', 'mphe.run'))])"
    )
    assert python(away, "-c", code).strip() == "[]"


def test_the_program_of_the_front_page_runs(away: Path) -> None:
    shown = python(away, "-I", str(ROOT / "examples" / "library.py"))
    assert shown == "round 1 sum of (1, 2, 3, 4) is [10 10 10]\n"
    assert f"    {shown}" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_a_client_lives_for_one_message_at_a_time(away: Path) -> None:
    shown = python(away, "-I", str(ROOT / "examples" / "job_queue.py")).splitlines()
    assert shown[:-1] == [
        "round 1 sum of (1, 2, 3, 4, 5) exact: True",
        "round 2 sum of (1, 2, 3, 4) exact: True",
        "round 3 sum of (1, 2, 3, 4, 5) exact: True",
    ]
    lives = re.fullmatch(r"(\d+) lives of 5 clients", shown[-1])
    assert lives and int(lives[1]) > 60


def test_the_programs_of_the_page_on_the_library_print_what_it_says(away: Path) -> None:
    page = (ROOT / "docs" / "library.md").read_text(encoding="utf-8")
    programs = re.findall(
        r"^```python\n(.*?)^```\n\n((?:    [^\n]*\n)+)", page, re.MULTILINE | re.DOTALL
    )
    assert len(programs) == 2
    for program, promised in programs:
        shown = python(away, "-I", "-c", program.replace("8080", str(free_port())))
        assert shown == re.sub(r"^    ", "", promised, flags=re.MULTILINE)


def test_the_planner_runs_under_both_spellings(away: Path) -> None:
    sizes = "--length 199658 --num_peers 8 --threshold 4"
    shown, old = (
        python(away, "-m", *words.split(), *sizes.split())
        for words in ("mphe plan", "mphe.parameters")
    )
    assert shown == old
    assert shown.startswith("hybrid: 199658 values of 16 bits, n = 8, t = 4 of 8 decryptors")
    assert re.search(r"^  upload +\d{6} bytes, 2\.9\d\d a value$", shown, re.MULTILINE)
