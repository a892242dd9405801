"""Start-up without MPI: places, checks, offers, and main.py started by hand."""

import os
import pickle
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fl.config.configs import Config
from fl.config.flags import UsageError
from fl.config.place import Place, find_place
from fl.config.resolve import parse_args
from fl.data.user_code import UserError
from fl.launch.mpi import (
    OFFER_BYTES,
    Offer,
    assemble,
    check_launcher,
    check_world,
    make_output,
    mpirun_line,
    prepare,
    threads_per_process,
)
from main import report
from tests.fl.program import ROOT, run
from tests.patience import scaled
from tests.ports import free_port

ARGV = ["--num_peers", "2", "--server_address", "localhost:8080", "--robust", "True"]


def args(*more: str) -> Config:
    return parse_args([*ARGV, "--dataset", "mnist5k", *more])


@pytest.mark.parametrize(
    ("environ", "place"),
    [
        ({}, None),
        ({"PMI_RANK": "x"}, None),
        ({"PMI_RANK": "1", "PMI_SIZE": "3"}, Place(1, 3, 1, 3)),
        ({"SLURM_PROCID": "2", "SLURM_NTASKS": "5", "SLURM_LOCALID": "0"}, Place(2, 5, 0, 5)),
        ({"PMIX_RANK": "1"}, Place(1, None, 1, 1)),
        (
            {
                "SLURM_PROCID": "0",
                "SLURM_NTASKS": "1",
                "PMIX_RANK": "3",
                "OMPI_COMM_WORLD_RANK": "3",
                "OMPI_COMM_WORLD_SIZE": "5",
                "OMPI_COMM_WORLD_LOCAL_RANK": "1",
                "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
            },
            Place(3, 5, 1, 2),
        ),
    ],
)
def test_places(environ: dict[str, str], place: Place | None) -> None:
    assert find_place(environ) == place


def test_the_world_must_fit() -> None:
    check_world(2, ARGV, 3)
    check_world(2, ARGV, None)
    line = mpirun_line(2, ARGV)
    assert line == f"mpirun -n 3 -H localhost:3 python main.py {' '.join(ARGV)}"
    with pytest.raises(UsageError, match="needs 3 processes, not 6") as caught:
        check_world(2, ARGV, 6)
    assert line in str(caught.value)


def test_two_mpis_do_not_mix() -> None:
    check_launcher(2, ARGV, Place(1, 3, 1, 3), 1, 3)
    check_launcher(2, ARGV, Place(1, None, 1, 1), 1, 3)
    with pytest.raises(UsageError, match="started 3 processes but MPI sees 1"):
        check_launcher(2, ARGV, Place(2, 3, 2, 3), 0, 1)
    with pytest.raises(UsageError, match="needs 3 processes, not 1"):
        check_launcher(2, ARGV, Place(0, None, 0, 1), 0, 1)


def test_threads_are_shared_out() -> None:
    assert threads_per_process(10**6) == 1
    assert 1 <= threads_per_process(1) <= len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("processes", "client", "server"), [(1, 8, 8), (3, 2, 4), (5, 1, 4), (8, 1, 1), (20, 1, 1)]
)
def test_the_server_takes_what_equal_shares_leave(
    monkeypatch: pytest.MonkeyPatch, processes: int, client: int, server: int
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    assert threads_per_process(processes) == client
    assert threads_per_process(processes, server=True) == server


def test_offers_become_one_launch(tmp_path: Path) -> None:
    given = args("--output", str(tmp_path / "out"), "--server_address", f"127.0.0.1:{free_port()}")
    prepared = [prepare(given, rank) for rank in range(3)]
    offers = [offer for _, offer in prepared]
    launches = [assemble(rank, prepared[rank][0], offers) for rank in range(3)]
    for rank, launch in enumerate(launches):
        assert launch.index == rank and launch.identity is prepared[rank][0]
        assert launch.certificates[rank] == launch.identity.certificate
        assert (launch.dataset, launch.notice) == ("mnist5k", None)
        assert launch.certificates == launches[0].certificates
        assert launch.processes == launches[0].processes
    assert len(set(launches[0].certificates)) == 3
    assert Path(launches[0].output).is_dir()


def test_an_error_travels_to_all_ranks(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        offer = prepare(args("--output", str(tmp_path), "--server_address", address), 0)[1]
    assert offer.error == f"--server_address {address} is in use: choose another port"
    identity, other = prepare(args(), 1)
    with pytest.raises(UsageError, match=r"^--server_address"):
        assemble(1, identity, [offer, other])
    with pytest.raises(UsageError, match="rank 1: no disk"):
        assemble(0, identity, [other, Offer(error="no disk")])


def test_an_error_of_a_rank_does_nothing_to_the_terminal() -> None:
    identity, other = prepare(args(), 1)
    with pytest.raises(UsageError) as refused:
        assemble(1, identity, [other, Offer(error="x\x1b[2J\nround 7 of 7")])
    assert str(refused.value) == r"rank 1: x\x1b[2J\nround 7 of 7"


def test_one_certificate_at_two_ranks_is_refused_by_name(tmp_path: Path) -> None:
    """Attack: a rank offers another one's certificate, evicts it, and has two votes."""
    prepared = [prepare(args("--output", str(tmp_path)), rank) for rank in range(3)]
    offers = [offer for _, offer in prepared]
    offers[2] = replace(offers[2], certificate=offers[1].certificate)
    with pytest.raises(
        UsageError, match=r"ranks 1 and 2 have the same certificate: .* move it away"
    ):
        assemble(0, prepared[0][0], offers)
    offers[2] = replace(offers[2], certificate=b"damaged")
    with pytest.raises(UsageError, match="rank 2 offers a damaged certificate"):
        assemble(0, prepared[0][0], offers)


def test_results_are_not_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = {make_output(None) for _ in range(3)}
    assert len(names) == 3 and all(Path(name).is_dir() for name in names)
    assert make_output("mine") == make_output("mine") == "mine"
    (tmp_path / "mine" / "metrics.jsonl").touch()
    with pytest.raises(UsageError, match="already holds results"):
        make_output("mine")
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot write"):
        make_output("file/below")


def test_help_needs_no_launcher() -> None:
    done = run("--help")
    assert done.returncode == 0 and not done.stderr
    assert "--num_peers" in done.stdout and "mpirun -n 5" in done.stdout


def test_help_is_printed_by_one_rank_only() -> None:
    done = run("--help", OMPI_COMM_WORLD_RANK="1", OMPI_COMM_WORLD_SIZE="3")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_importing_main_loads_nothing_heavy() -> None:
    code = "import main, sys; print([m for m in sys.modules if m in ('mpi4py', 'numpy', 'keras')])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=scaled(60)
    )
    assert done.stdout == "[]\n", done.stderr


@pytest.mark.parametrize(
    ("argv", "environ", "hint"),
    [
        (ARGV, {}, f"start it with mpirun, .* run {mpirun_line(2, ARGV)}"),
        ([*ARGV, "--resiliency", "50"], {}, "did you mean 0.5"),
        ([], {}, "--num_peers, --server_address, --robust missing"),
        (ARGV, {"PMI_RANK": "0", "PMI_SIZE": "2"}, "needs 3 processes, not 2"),
        (
            [*ARGV, "--dataset", "mnist5k", "--output", "."],
            {"PMI_RANK": "0", "PMI_SIZE": "3", "MPI4PY_LIBMPI": "/none/libmpi.so"},
            "no MPI library: run make install",
        ),
    ],
)
def test_usage_errors_are_one_line(argv: list[str], environ: dict[str, str], hint: str) -> None:
    done = run(*argv, **environ)
    assert done.returncode == 2 and not done.stdout
    assert done.stderr.startswith("main.py: ") and done.stderr.count("\n") == 1
    with pytest.raises(AssertionError, match=hint):
        raise AssertionError(done.stderr)


def test_other_ranks_stay_silent() -> None:
    # Their code is 0: prterun loses rank 0's line when another rank leaves with 2 before it.
    done = run("--wat", OMPI_COMM_WORLD_RANK="1", OMPI_COMM_WORLD_SIZE="3")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(("local_rank", "speaks"), [(0, True), (1, False)])
def test_what_is_wrong_with_a_users_file_is_reported_once_a_host(
    local_rank: int, speaks: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    place = Place(4 + local_rank, 8, local_rank, 4)
    assert report(UserError("--model m.py:f failed"), place) == 0
    said = capfd.readouterr().err
    assert said == (f"main.py: rank {place.rank}: --model m.py:f failed\n" if speaks else "")
    assert report(UserError("--model m.py:f failed"), Place(0, 8, 0, 4)) == 2
    assert report(UserError("--model m.py:f failed"), None) == 2
    assert capfd.readouterr().err == 2 * "main.py: --model m.py:f failed\n"
    # Other errors may be of one rank alone.
    report(MemoryError("full"), place)
    assert f"rank {place.rank}: MemoryError: full" in capfd.readouterr().err


@pytest.mark.slow
def test_a_users_file_may_import_keras_without_a_word(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text("def data():\n    import keras\n    return keras\n")
    code = (
        "from fl.data.user_code import load_function as f; "
        f"f('{tmp_path}/own.py:data', '--dataset', ValueError)()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=scaled(120)
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_process_that_outlives_the_run_is_killed_and_others_are_not(tmp_path: Path) -> None:
    script = tmp_path / "rank.py"
    # The parent ends whatever runs its own command line; the child sleeps with the same one.
    script.write_text(
        "import os, sys, time\n"
        f"sys.path.insert(0, {str(ROOT)!r})\n"
        "from fl.launch.mpi import Launch, end_stragglers\n"
        "child = os.fork()\n"
        "if not child:\n"
        "    time.sleep(60)\n"
        "    os._exit(0)\n"
        "stranger = int(sys.stdin.read())\n"
        "processes = (('a', os.getpid()), ('a', child), ('a', stranger), ('b', child))\n"
        "launch = Launch(0, None, (), processes, '', None, '')\n"
        "print(end_stragglers(launch, 0.2), os.waitpid(child, 0)[1])\n"
    )
    with subprocess.Popen(["sleep", "60"]) as stranger:
        done = subprocess.run(
            [sys.executable, str(script)],
            input=str(stranger.pid),
            capture_output=True,
            text=True,
            timeout=scaled(60),
        )
        alive = stranger.poll() is None
        stranger.kill()
    assert done.stdout == "[1] 9\n", done.stderr
    assert alive


@given(
    st.builds(
        Offer,
        st.binary(max_size=900),
        st.text(st.characters(codec="utf-8"), max_size=60),
        st.integers(0, 2**31),
        st.text(st.characters(codec="utf-8"), max_size=200),
        st.text(st.characters(codec="utf-8"), max_size=60),
        st.none() | st.text(st.characters(codec="utf-8"), max_size=60),
        st.text(st.characters(codec="utf-8"), max_size=60),
    )
)
def test_offers_survive_the_exchange(offer: Offer) -> None:
    data = offer.to_bytes()
    assert len(data) == OFFER_BYTES
    assert Offer.from_bytes(data) == offer


@pytest.mark.parametrize(
    "data", [b"", b"\xc1", pickle.dumps(Offer()), b"\x97" + bytes(7), b"\x90", b"\xff" * 40]
)
def test_what_is_no_offer_is_refused(data: bytes) -> None:
    with pytest.raises(UsageError, match="another language"):
        Offer.from_bytes(data.ljust(OFFER_BYTES, b"\xc1"))


def test_an_offer_that_is_too_long_is_refused() -> None:
    with pytest.raises(UsageError, match="too long"):
        Offer(output="x" * OFFER_BYTES).to_bytes()


@pytest.mark.parametrize(
    ("host", "says"),
    [
        ("nohost.invalid", "no host is called 'nohost.invalid': name the one"),
        ("192.0.2.1", "is no address of this host"),
    ],
)
def test_a_server_that_cannot_listen_is_refused_before_anything_is_made(
    tmp_path: Path, host: str, says: str
) -> None:
    words = [*ARGV, "--dataset", "mnist5k", "--output", str(tmp_path / "out")]
    place = words.index("--server_address")
    words[place + 1] = f"{host}:8080"
    identity, offer = prepare(parse_args(words), 0)
    assert identity is None and says in offer.error
    assert not (tmp_path / "out").exists()


def test_a_model_that_is_not_there_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    words = [*ARGV, "--dataset", "mnist5k", "--output", str(tmp_path / "out")]
    words[3] = f"localhost:{free_port()}"
    _, offer = prepare(parse_args([*words, "--model", f"{tmp_path}/none.py:net"]), 0)
    assert offer.error.startswith("--model: cannot read") and not (tmp_path / "out").exists()
