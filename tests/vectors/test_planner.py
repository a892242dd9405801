"""docs/parameters.md is enough to find the plan: a second planner finds the same."""

from __future__ import annotations

import ast
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from mphe.errors import ParameterError
from mphe.plan.agreement import PROTOCOL_VERSION, SessionParameters
from mphe.plan.plan import make_plan
from tests.vectors import planner, reader

FOLDER = Path(__file__).parent


@st.composite
def parameters(draw: st.DrawFn) -> dict[str, Any]:
    """Draw parameters that sessions may have, feasible or not."""
    n = draw(st.integers(3, 64) | st.sampled_from([100, 500, 1000, 4096]))
    k = draw(st.integers(2, n))
    t = draw(st.integers(2, k))
    verified = draw(st.booleans()) and 2 * t > k
    return {
        "num_clients": n,
        "threshold": t,
        "decryptors": k,
        "length": draw(st.integers(1, 300) | st.integers(1, 3_000_000)),
        "rounds": draw(st.integers(1, 1 << 12) | st.just(1 << 20)),
        "encryption": draw(st.sampled_from(["hybrid", "direct"])),
        "value_bits": draw(st.integers(4, 24)),
        "capacity": draw(st.integers(n, 4096)),
        "max_attempts": draw(st.integers(1, 64)),
        "verified": verified,
        "max_corrupt": draw(st.integers(0, min(2 * t - k - 1, n - 2))) if verified else 0,
    }


@given(parameters())
@settings(deadline=None, max_examples=300, derandomize=True)
def test_a_second_planner_finds_the_same_plan(chosen: dict[str, Any]) -> None:
    session = SessionParameters(**chosen)
    found = planner.best(asdict(session))
    try:
        plan = make_plan(session)
    except ParameterError:
        assert found is None
        return
    assert found is not None
    assert found["noise"] and planner.upload(asdict(session), found) == plan.upload_bytes
    document = [PROTOCOL_VERSION, asdict(session), found]
    assert reader.plan_digest(document) == plan.digest


def test_the_plans_of_the_known_answers_are_found() -> None:
    for vector in json.loads((FOLDER / "plans.json").read_text()):
        _, session, derived = vector["inputs"]["document"]
        assert planner.best(session) == derived


def test_the_planner_shares_no_code_with_us() -> None:
    tree = ast.parse((FOLDER / "planner.py").read_text())
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    assert {getattr(node, "module", None) for node in imports} == {"__future__", "math", "typing"}
