"""What the documents name exists."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TEST = re.compile(
    r"`(?:tests/)?((?:mphe|fl|protocol|attacks|fuzz|end_to_end)/(?:\w+/)*test_\w+\.py)(?:::(\w+))?"
)
DOCUMENTS = [ROOT / "SECURITY.md", ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
REFERENCES = sorted({match for path in DOCUMENTS for match in TEST.findall(path.read_text())})


@pytest.mark.parametrize(("module", "function"), REFERENCES, ids=lambda part: str(part))
def test_a_test_that_a_document_names_exists(module: str, function: str) -> None:
    text = (ROOT / "tests" / module).read_text()
    assert f"def {function}" in text


def test_security_names_many_tests() -> None:
    assert len(REFERENCES) > 30
