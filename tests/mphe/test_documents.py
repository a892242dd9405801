"""What the documents name exists: links, anchors, tests, files; what they show is what runs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
TEST = re.compile(
    r"`(?:tests/)?((?:mphe|fl|protocol|attacks|fuzz|end_to_end)/(?:\w+/)*test_\w+\.py)(?:::(\w+))?"
)
REFERENCES = sorted({match for path in DOCUMENTS for match in TEST.findall(path.read_text())})
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
NAMED = re.compile(r"`((?:mphe|fl|tests|benchmarks|examples|docs)/[\w./]+)[`:]")
FUNCTION = re.compile(r"`((?!tf\.)[a-z_]+(?:\.(?!(?:jsonl?|keras|png|npz|pem|py|md)`)\w+)+)`")
FORMULAS = [ROOT / "docs" / name for name in ("protocol.md", "parameters.md", "privacy.md")]
SOURCES = [path for top in ("mphe", "fl") for path in (ROOT / top).rglob("*.py")]
FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
PYTHON = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
README_LINES = 170


def prose(path: Path) -> str:
    return FENCED.sub("", path.read_text(encoding="utf-8"))


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def anchors(path: Path) -> set[str]:
    """Return what a heading can be linked by, as hosts of repositories and mkdocs make it."""
    titles = re.findall(r"^#+ (.+)$", prose(path), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


def links() -> Iterator[tuple[Path, str]]:
    for path in DOCUMENTS:
        for target in LINK.findall(prose(path)):
            if "://" not in target:
                yield path, target


@pytest.mark.parametrize(("module", "function"), REFERENCES, ids=lambda part: str(part))
def test_a_test_that_a_document_names_exists(module: str, function: str) -> None:
    text = (ROOT / "tests" / module).read_text()
    assert f"def {function}" in text


def test_security_names_many_tests() -> None:
    assert len(REFERENCES) > 30


def test_links_lead_somewhere() -> None:
    broken = []
    for path, target in links():
        file, _, anchor = target.partition("#")
        found = (path.parent / file).resolve() if file else path
        if not found.is_file() or (anchor and anchor not in anchors(found)):
            broken.append((named(path), target))
    assert broken == []
    assert sum("#" in target for _, target in links()) >= 3


def test_every_document_can_be_reached_from_the_front_page() -> None:
    reached, ahead = set[Path](), [ROOT / "README.md"]
    while ahead:
        path = ahead.pop()
        if path in reached:
            continue
        reached.add(path)
        near = {(at.parent / to.partition("#")[0]).resolve() for at, to in links() if at == path}
        ahead += [other for other in near if other.suffix == ".md"]
    assert set(DOCUMENTS) - reached - {ROOT / "docs" / "index.md"} == set()


def test_every_page_is_in_the_site() -> None:
    listed = set(re.findall(r"[\w/]+\.md", (ROOT / "mkdocs.yml").read_text(encoding="utf-8")))
    assert listed == {named(path) for path in DOCUMENTS}


def test_files_that_documents_name_exist() -> None:
    missing = [
        (named(path), name)
        for path in DOCUMENTS
        for name in NAMED.findall(prose(path))
        # SECURITY.md names tests relative to tests/.
        if not any((top / name.rstrip("./")).exists() for top in (ROOT, ROOT / "tests"))
    ]
    assert missing == []


def test_functions_beside_formulas_exist() -> None:
    modules = {path: path.with_suffix("").relative_to(ROOT).as_posix() for path in SOURCES}
    missing, seen = [], 0
    for path in FORMULAS:
        for name in FUNCTION.findall(prose(path)):
            seen += 1
            place, _, last = name.rpartition(".")
            # `rlwe.gen_share`, `setup.client.SetupClient.start`: a module's end, then names in it
            ends = {"/" + "/".join(place.split(".")[:count]) for count in range(1, 5)}
            found = [at for at, module in modules.items() if any(map(f"/{module}".endswith, ends))]
            if not any(re.search(rf"\b{last}\b", at.read_text(encoding="utf-8")) for at in found):
                missing.append((named(path), name))
    assert missing == [] and seen > 60


def test_the_programs_of_the_front_page_are_the_examples_that_tests_run() -> None:
    blocks = PYTHON.findall((ROOT / "README.md").read_text(encoding="utf-8"))
    examples = [
        (ROOT / "examples" / name).read_text(encoding="utf-8") for name in ("own.py", "library.py")
    ]
    assert blocks == examples


def test_the_front_page_is_one() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= README_LINES
