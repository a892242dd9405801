"""docs/flags.md is what the flags say."""

from __future__ import annotations

import re

import pytest

from fl.config import flags_page
from fl.config.flags import UsageError
from fl.config.resolve import parse_args


def test_the_page_is_what_the_flags_say() -> None:
    page = (flags_page.ROOT / "docs" / "flags.md").read_text(encoding="utf-8")
    assert page == flags_page.page(), "run make flags-doc"


def test_the_page_names_every_flag_once_and_no_other() -> None:
    page = flags_page.page()
    named = re.findall(r"^\| `--(\w+) ", page, re.MULTILINE)
    helped = [flag.name for flag in flags_page.flags()]
    assert sorted(named) == sorted(helped)
    assert {"num_peers", "resiliency", "dp_epsilon", "state_dir"} < set(helped) and len(helped) > 40
    for name in helped:
        with pytest.raises(UsageError) as refused:  # since others are missing, if not for its value
            parse_args([f"--{name}", "?"])
        assert "unknown" not in str(refused.value)


def test_a_new_flag_needs_no_group(monkeypatch: pytest.MonkeyPatch) -> None:
    more = [flags_page.Flag("brand_new", "N|M", "what it does (default: 7)")]
    monkeypatch.setattr(flags_page, "flags", lambda: iter(more))
    assert "## Others" in flags_page.page()
    assert "| `--brand_new N\\|M` | what it does | 7 |" in flags_page.page()
    assert "## Training" not in flags_page.page()
