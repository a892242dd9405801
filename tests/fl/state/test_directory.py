"""When a state directory may be used, and what a session that goes on is held to."""

import dataclasses
from pathlib import Path

import pytest

from fl.config.arguments import Args
from fl.config.configs import Config
from fl.config.flags import UsageError
from fl.config.resolve import parse_args
from fl.config.same_flags import MAY_CHANGE
from fl.launch import mpi as launch
from fl.report.metrics import write_config
from fl.state.directory import SESSION, check_fresh, party_directory
from mphe.run import vault as state
from mphe.run.store import CLIENT_FILE
from mphe.run.vault import StateError


def flags(directory: Path, *more: str) -> Config:
    line = "--num_peers 3 --server_address localhost:8080 --robust True"
    return parse_args([*line.split(), "--state_dir", str(directory), *more])


def test_a_kept_session_is_never_overwritten(tmp_path: Path) -> None:
    for index, name in ((0, SESSION), (2, CLIENT_FILE)):
        check_fresh(str(tmp_path), index, resume=False)
        directory = party_directory(str(tmp_path), index)
        state.make_private(directory)
        (directory / name).touch()
        with pytest.raises(StateError, match="add --resume True"):
            check_fresh(str(tmp_path), index, resume=False)
        check_fresh(str(tmp_path), index, resume=True)


def test_there_must_be_something_to_resume(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="leave out --resume"):
        check_fresh(str(tmp_path), 0, resume=True)
    check_fresh(str(tmp_path), 1, resume=True)
    with pytest.raises(UsageError, match="needs the --state_dir"):
        parse_args(
            ["--num_peers", "3", "--server_address", "a:1", "--robust", "True", "--resume", "True"]
        )


def test_under_a_launcher_the_identity_is_kept(tmp_path: Path) -> None:
    made = launch.kept_identity(str(tmp_path), 1, "client 1", resume=False)
    again = launch.kept_identity(str(tmp_path), 1, "client 1", resume=True)
    assert again.certificate == made.certificate
    with pytest.raises(UsageError, match="is missing"):
        launch.kept_identity(str(tmp_path), 2, "client 2", resume=True)


def test_results_go_on_where_they_were(tmp_path: Path) -> None:
    where, results = tmp_path / "state", tmp_path / "results"
    output = launch.find_output(flags(where, "--output", str(results)))
    assert Path(output) == results
    write_config(results, dict(flags(where).flags), {})
    assert launch.find_output(flags(where, "--resume", "True")) == str(results)
    with pytest.raises(UsageError, match="leave out --output"):
        launch.find_output(flags(where, "--resume", "True", "--output", str(tmp_path / "other")))
    (results / "config.json").write_text("{}")
    with pytest.raises(UsageError, match=r"config\.json: restore it"):
        launch.find_output(flags(where, "--resume", "True"))
    (results / "config.json").unlink()
    results.rmdir()
    with pytest.raises(UsageError, match="restore it"):
        launch.find_output(flags(where, "--resume", "True"))


@pytest.mark.parametrize(
    "words",
    [
        ["--learning_rate", "0.2"],
        ["--seed", "1"],
        ["--dataset", "mnist"],
        ["--partition", "shards:2"],
        ["--num_iterations", "7"],
        ["--value_bits", "8"],
        ["--local_steps", "2"],
    ],
)
def test_a_session_goes_on_with_the_flags_of_before(tmp_path: Path, words: list[str]) -> None:
    where = tmp_path / "state"
    output = Path(launch.find_output(flags(where, "--output", str(tmp_path / "out"))))
    write_config(output, dict(flags(where).flags), {})
    with pytest.raises(UsageError, match=f"^{words[0]} was .+, not {words[1]}") as caught:
        launch.find_output(flags(where, "--resume", "True", *words))
    assert "\n" not in str(caught.value)
    other = ["--server_address", "localhost:9000", "--round_timeout", "5", "--crypto_threads", "2"]
    launch.find_output(flags(where, "--resume", "True", *other))


def test_every_flag_that_may_change_exists() -> None:
    assert {field.name for field in dataclasses.fields(Args)} >= MAY_CHANGE
