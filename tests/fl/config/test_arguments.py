"""Flags: defaults, derived numbers, and one helpful line for everything that is refused."""

import dataclasses
import shlex

import pytest

from fl.config.arguments import Args
from fl.config.configs import ENCRYPTIONS
from fl.config.flags import UsageError, split_address
from fl.config.resolve import parse_args
from mphe.plan import agreement

GOOD = ["--num_peers", "4", "--server_address", "localhost:8080", "--robust", "True"]


def test_the_documented_command() -> None:
    args = parse_args(
        shlex.split(
            "--num_peers 4 --server_address localhost:8080 --robust True --learning_rate 0.1 "
            "--batch_size_per_worker 256 --resiliency 0.5 --num_iterations 100"
        )
    )
    assert (args.party.host, args.party.port, args.session.threshold) == ("localhost", 8080, 2)
    assert (args.session.robust, args.session.encryption, args.codec.aggregation) == (
        True,
        "hybrid",
        "mphe",
    )
    assert (args.session.decryptors, args.session.min_contributors) == (4, 3)
    assert any("two disjoint groups of 2 of 4" in line for line in args.warnings)


def test_defaults() -> None:
    args = parse_args(GOOD)
    learning, codec, party = args.learning, args.codec, args.party
    assert (learning.learning_rate, learning.batch_size, learning.seed) == (0.1, 256, 0)
    assert (learning.local_steps, learning.local_rate) == (1, 0.1)
    assert (codec.value_bits, codec.clip_norm, args.rounds.rounds) == (16, 3.0, 100)
    assert (args.rounds.timeout, args.session.max_attempts, args.rounds.max_failed) == (60.0, 8, 10)
    assert (args.data.dataset, party.output) == ("auto", None)
    assert (party.tls, party.quiet, party.role, party.state_dir) == (True, False, None, None)
    assert args.session.threshold == args.session.decryptors == 4
    assert args.session.min_contributors == 3
    assert args.warnings == ()
    with pytest.raises(dataclasses.FrozenInstanceError):
        args.learning.seed = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("clients", "resiliency", "threshold"),
    [
        (30, "0.1", 3),
        (100, "0.07", 7),  # 0.07 * 100 is 7.000000000000001
        (50, "0.14", 7),
        (3, "0.01", 2),
        (5, "0.5", 3),
        (4, "1", 4),
        (4, "0.7500001", 4),
    ],
)
def test_the_threshold_follows_the_typed_decimal(
    clients: int, resiliency: str, threshold: int
) -> None:
    args = parse_args([*GOOD, "--num_peers", str(clients), "--resiliency", resiliency])
    assert args.session.threshold == threshold


def test_not_robust_needs_everybody() -> None:
    args = parse_args([*GOOD, "--robust", "False", "--resiliency", "0.5"])
    assert args.session.threshold == 4
    assert any("--resiliency is not used" in line for line in args.warnings)


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("a.example:1", "a.example", 1),
        ("[::1]:65535", "::1", 65535),
        ("10.0.0.1:80", "10.0.0.1", 80),
    ],
)
def test_addresses(text: str, host: str, port: int) -> None:
    assert split_address(text) == (host, port)


def test_insecure_choices_are_announced() -> None:
    warnings = parse_args([*GOOD, "--tls", "False", "--aggregation", "plain"]).warnings
    assert any("for benchmarks only" in line for line in warnings)
    assert any("no privacy" in line for line in warnings)


VERIFIED = ("--verify_aggregate", "True")


def test_aggregates_are_not_verified_by_default() -> None:
    args = parse_args(GOOD)
    assert (args.session.verified, args.session.max_corrupt) == (False, 0)
    assert args.flags["max_corrupt"] is None


@pytest.mark.parametrize(
    ("words", "corrupt", "minimum"),
    [
        ("", 2, 4),  # t = k = 4: at most n - 2 corrupt
        ("--resiliency 0.75", 1, 3),
        ("--resiliency 0.75 --decryptors 3", 2, 4),
        ("--resiliency 0.5 --decryptors 2", 1, 3),
        ("--resiliency 0.5 --decryptors 3", 0, 3),
        ("--max_corrupt 0", 0, 3),
        ("--max_corrupt 1", 1, 3),
        ("--num_peers 10 --resiliency 0.75", 5, 7),
        ("--num_peers 10 --resiliency 0.75 --max_corrupt 3", 3, 5),
        ("--resiliency 0.75 --min_contributors 4", 1, 4),
        ("--max_corrupt 0 --min_contributors 2", 0, 2),
        ("--robust False --max_corrupt 0", 0, 3),
        ("--num_peers 3 --resiliency 0.6", 0, 3),
        ("--num_peers 3", 1, 3),
    ],
)
def test_what_a_lying_server_is_withstood_with(words: str, corrupt: int, minimum: int) -> None:
    args = parse_args([*GOOD, *VERIFIED, *words.split()])
    assert (args.session.max_corrupt, args.session.min_contributors) == (corrupt, minimum)
    clients = args.session.num_clients
    line = f"a lying server with {corrupt} of {clients} clients corrupt (--max_corrupt)"
    assert any(line in warning for warning in args.warnings)


@pytest.mark.parametrize("private", [False, True])
def test_what_verified_aggregates_do_not_give_is_said_at_the_start(private: bool) -> None:
    more = ["--dp_epsilon", "8", "--resiliency", "0.75"] if private else []
    warnings = parse_args([*GOOD, *VERIFIED, *more]).warnings
    line = "checks what is decrypted, not the model"
    assert any(line in warning for warning in warnings) != private
    assert not any(line in warning for warning in parse_args(GOOD).warnings)


def test_the_minimum_without_verified_aggregates_is_one_above_the_threshold() -> None:
    args = parse_args([*GOOD, "--verify_aggregate", "False", "--resiliency", "0.5"])
    assert (args.session.min_contributors, args.session.threshold) == (3, 2)


BAD = [
    ("--resiliency 50", "did you mean 0.5?"),
    ("--resiliency 2", "for 2 of 4 clients give 0.5"),
    ("--resiliency 3 --num_peers 7", "for 3 of 7 clients give 0.4285"),
    ("--evaluate_every 0", "--evaluate_every must be at least 1, not 0"),
    ("--evaluate_every -1", "--evaluate_every must be at least 1, not -1"),
    ("--resiliency 1.5", "fraction"),
    ("--resiliency 0", "above 0"),
    ("--resiliency nan", "finite"),
    ("--resiliency 0.25 --decryptors 1", "--decryptors must be between 2"),
    ("--resiliency 0.75 --decryptors 2", "needs 3 of 4 clients to decrypt but --decryptors is 2"),
    ("--decryptors 5", "4 (--num_peers)"),
    ("--decryptors 0", "at least 2"),
    ("--robust False --decryptors 3", "leave out --decryptors 3"),
    ("--robust true", "True or False"),
    ("--robust 1", "True or False"),
    ("--tls no", "True or False"),
    ("--num_peers 1", "at least 2"),
    ("--num_peers -4", "at least 2"),
    ("--num_peers 4.0", "whole number"),
    ("--num_peers four", "whole number"),
    ("--learning_rate 0", "above 0"),
    ("--learning_rate -0.1", "above 0"),
    ("--learning_rate inf", "finite"),
    ("--clip_norm 0", "above 0"),
    ("--round_timeout 0", "above 0"),
    ("--round_timeout 1e9", "one day"),
    ("--batch_size_per_worker 0", "at least 1"),
    ("--num_iterations 0", "at least 1"),
    ("--max_attempts 0", "at least 1"),
    ("--max_failed_rounds -1", "at least 1"),
    ("--value_bits 3", "between 4 and 24"),
    ("--value_bits 25", "between 4 and 24"),
    ("--crypto_threads 0", "between 1 and 64"),
    ("--crypto_threads 65", "between 1 and 64"),
    ("--min_contributors 1", "between 2"),
    ("--min_contributors 5", "4 (--num_peers)"),
    ("--seed -1", "between 0"),
    ("--encryption none", "hybrid, direct"),
    ("--aggregation sum", "mphe, plain"),
    ("--dataset cifar", "auto, mnist, mnist5k, npz:PATH"),
    ("--partition random", "dirichlet:ALPHA"),
    ("--partition dirichlet:0", "dirichlet:ALPHA"),
    ("--partition shards:0", "shards:K"),
    ("--model net.py", "FILE.py:FUNCTION"),
    ("--learning_rate_schedule step:0:0.5", "step:30:0.5"),
    ("--server_optimizer lamb", "sgd, momentum, adam"),
    ("--local_steps 0", "between 1 and 10000"),
    ("--local_learning_rate 0", "above 0"),
    ("--local_learning_rate 0.1", "without --local_steps"),
    ("--weighting size", "uniform, samples"),
    ("--compression_rate 0", "between 0.0001 and 1"),
    ("--rotation yes", "True or False"),
    ("--simulate_dropout 1", "below 1, not 1: somebody has to stay"),
    ("--simulate_dropout -0.1", "at least 0"),
    ("--simulate_dropout 0.25", "leaves 3 of 4 clients in a round that needs 4: lower it"),
    ("--resiliency 0.5 --simulate_dropout 0.75", "leaves 1 of 4 clients in a round that needs 3"),
    ("--resiliency 0.5 --min_contributors 3 --simulate_dropout 0.5", "lower --resiliency or --min"),
    ("--resiliency 0.5 --decryptors 2 --simulate_dropout 0.25", "may leave 1 of 2 decryptors"),
    ("--state_dir x --compression_rate 0.5", "does not keep what --compression_rate 0.5"),
    ("--dataset npz:", "npz:PATH"),
    ("--server_address localhost", "host:port"),
    ("--server_address :80", "host:port"),
    ("--server_address a:b:80", "host:port"),
    ("--server_address localhost:0", "between 1 and 65535"),
    ("--server_address localhost:65536", "between 1 and 65535"),
    ("--server_address localhost:http", "between 1 and 65535"),
    ("--server_address 300.0.0.1:80", "not an IP address"),
    ("--server_address [10.0.0.1]:80", "brackets are for IPv6"),
    ("--server_address [::x]:80", "not an IP address"),
    ("--num-peers 4", "did you mean --num_peers?"),
    ("--learning 0.1", "unknown argument"),
    ("--wat", "--help lists all flags"),
    ("stray", "unknown argument"),
    ("--seed", "expected one argument"),
    ("--verify_aggregate yes", "True or False"),
    ("--verify_aggregate true", "True or False"),
    ("--max_corrupt 1", "with --verify_aggregate True only: add that"),
    ("--max_corrupt 0 --verify_aggregate False", "with --verify_aggregate True only"),
    ("--verify_aggregate True --max_corrupt -1", "--max_corrupt must be at least 0, not -1"),
    ("--verify_aggregate True --max_corrupt one", "whole number"),
    ("--verify_aggregate True --aggregation plain", "leave out --verify_aggregate"),
    ("--verify_aggregate True --num_peers 2", "needs at least 3 clients: raise --num_peers"),
    (
        "--verify_aggregate True --resiliency 0.5",
        "more than half of the 4 decryptors to decrypt, not 2",
    ),
    ("--verify_aggregate True --resiliency 0.75 --max_corrupt 2", "cannot withstand 2 corrupt"),
    ("--verify_aggregate True --max_corrupt 3", "lower --max_corrupt"),
    ("--verify_aggregate True --min_contributors 3", "must be at least 4 with --max_corrupt 2"),
    ("--verify_aggregate True --max_corrupt 1 --min_contributors 2", "must be at least 3 with"),
]


PRIVATE = "--dp_epsilon 4 --min_contributors 3"

BAD += [
    ("--dp_epsilon -1", "at most 30, not -1"),
    ("--dp_epsilon 31", "at most 30, not 31"),
    ("--dp_epsilon nan", "finite"),
    ("--dp_delta 1e-6", "with --dp_epsilon only: add that"),
    ("--dp_unit client", "with --dp_epsilon only"),
    ("--dp_colluding 0", "with --dp_epsilon only"),
    ("--dp_noise_multiplier 1", "with --dp_epsilon only"),
    ("--dp_sampling_rate 0.1", "with --dp_epsilon only"),
    (f"{PRIVATE} --dp_delta 0", "above 0, not 0"),
    (f"{PRIVATE} --dp_delta 0.5", "between 1e-15 and 0.1"),
    (f"{PRIVATE} --dp_unit person", "sample, client"),
    (f"{PRIVATE} --dp_colluding 3", "raise the one or lower the other"),
    (f"{PRIVATE} --dp_colluding -1", "at least 0, not -1"),
    ("--dp_epsilon 4 --resiliency 0.5 --min_contributors 4 --dp_colluding 2", "2 are enough"),
    ("--dp_epsilon 4 --min_contributors 2 --dp_colluding 2", "--min_contributors 2"),
    (f"{PRIVATE} --dp_noise_multiplier 0", "above 0, not 0"),
    (f"{PRIVATE} --dp_noise_multiplier 1e9", "between 0.01 and 10000"),
    (f"{PRIVATE} --dp_sampling_rate 0", "above 0, not 0"),
    (f"{PRIVATE} --dp_sampling_rate 1.5", "between 1e-6 and 1"),
    (f"{PRIVATE} --dp_sampling_rate 0.1 --dp_unit client", "leave it out"),
    (f"{PRIVATE} --aggregation plain", "leave out --aggregation plain"),
    (f"{PRIVATE} --weighting samples", "leave it out with --dp_epsilon"),
    (f"{PRIVATE} --rotation True", "leave it out"),
    (f"{PRIVATE} --local_steps 2", "--local_steps above 1"),
    (f"{PRIVATE} --compression_rate 0.5", "or use --dp_unit client"),
    (f"{PRIVATE} --role client", "give all parties the same --dp_sampling_rate"),
]


def test_privacy_is_off_unless_asked_for_and_then_has_defaults() -> None:
    args = parse_args(GOOD)
    assert args.privacy is None
    private = parse_args([*GOOD, *PRIVATE.split()]).privacy
    assert private is not None
    assert (private.epsilon, private.delta, private.unit) == (4, 1e-5, "sample")
    assert (private.colluding, private.noise_multiplier, private.sampling_rate) == (1, None, None)
    # A lying server's helpers know their own noise too.
    verified = [*GOOD, "--dp_epsilon", "4", *VERIFIED]
    both = parse_args(verified)
    assert both.privacy is not None
    assert both.privacy.colluding == both.session.max_corrupt == 2
    many = "--dp_unit client --local_steps 5 --compression_rate 0.5 --dp_colluding 0"
    alone = parse_args([*GOOD, *PRIVATE.split(), *many.split()]).privacy
    assert alone is not None and alone.colluding == 0


@pytest.mark.parametrize(("words", "hint"), BAD)
def test_bad_input_gets_one_line(words: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_args([*GOOD, *words.split()])
    assert hint in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_empty_directory_is_refused() -> None:
    with pytest.raises(UsageError, match="name a directory"):
        parse_args([*GOOD, "--output", ""])


def test_missing_flags_are_named() -> None:
    with pytest.raises(UsageError, match="--server_address, --robust missing"):
        parse_args(["--num_peers", "4"])


def test_a_misspelt_flag_beats_a_missing_one() -> None:
    with pytest.raises(UsageError, match="did you mean --num_peers"):
        parse_args(["--num_peer", "4"])


def test_the_flags_of_a_session_are_those_in_force() -> None:
    """What config.json keeps: a default that was typed and one that was not are the same."""
    typed = "--decryptors 4 --min_contributors 4 --max_corrupt 2 --verify_aggregate True"
    flags = parse_args([*GOOD, *VERIFIED]).flags
    assert flags == parse_args([*GOOD, *typed.split()]).flags
    assert set(flags) == {field.name for field in dataclasses.fields(Args)}
    typed = "--dp_epsilon 4 --dp_delta 1e-5 --dp_unit sample --dp_colluding 1"
    given = parse_args([*GOOD, "--dp_epsilon", "4"]).flags
    assert given == parse_args([*GOOD, *typed.split()]).flags


def test_a_local_rate_is_the_servers_unless_it_is_given() -> None:
    more = ["--local_steps", "3", "--learning_rate", "0.5"]
    assert parse_args([*GOOD, *more]).learning.local_rate == 0.5
    assert parse_args([*GOOD, *more, "--local_learning_rate", "0.2"]).learning.local_rate == 0.2


def test_the_encryptions_are_those_of_the_library() -> None:
    assert ENCRYPTIONS == agreement.ENCRYPTIONS


def test_limits_are_those_of_the_session() -> None:
    """SessionParameters refuses; the line that the user sees names the flag and its limits."""
    for words, line in (
        ("--num_peers 4097", "--num_peers must be between 2 and 4096, not 4097"),
        ("--num_iterations 1048577", "--num_iterations must be between 1 and 1.04858e+06"),
        ("--max_attempts 65", "--max_attempts must be between 1 and 64, not 65"),
        ("--min_contributors 0", "--min_contributors must be at least 2, not 0"),
        ("--decryptors -1", "--decryptors must be at least 2, not -1"),
        (
            "--verify_aggregate True --min_contributors 5",
            "--min_contributors must be between 4 and 4 (--num_peers), not 5",
        ),
    ):
        with pytest.raises(UsageError) as caught:
            parse_args([*GOOD, *words.split()])
        assert str(caught.value).startswith(line)


def test_help_explains_every_flag(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        parse_args(["--help"])
    text = capsys.readouterr().out
    assert stop.value.code == 0
    for field in dataclasses.fields(Args):
        assert f"  --{field.name} " in text
