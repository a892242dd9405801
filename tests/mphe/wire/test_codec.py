"""mphe.wire.codec: every message comes back, and nothing else comes in."""

from __future__ import annotations

import tracemalloc
from dataclasses import fields, is_dataclass
from typing import Any, get_args, get_origin, get_type_hints

import msgpack
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mphe.errors import MalformedMessage
from mphe.plan.agreement import MAX_CLIENTS, PROTOCOL_VERSION
from mphe.wire import messages
from mphe.wire.codec import MAX_INTEGER, MAX_TEXT, MESSAGE_TYPES, decode, encode
from mphe.wire.messages import (
    NUMBERS,
    Commit,
    Contribution,
    DecryptionRequest,
    Draw,
    Evidence,
    Finish,
    Group,
    Join,
    KeyReveal,
    Message,
    Pledge,
    Qualified,
    Ready,
    Refusal,
    Reveal,
    RoundStart,
    SealedShare,
    Vouch,
)
from tests.support import seeded

SENDER = 7
PROPERTY = settings(
    deadline=None, max_examples=30, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
ALL_TYPES = pytest.mark.parametrize("cls", MESSAGE_TYPES, ids=lambda cls: cls.__name__)


def strategy(hint: Any) -> st.SearchStrategy[Any]:
    """Return a strategy for a field or a message, from its declaration alone."""
    if get_origin(hint) is tuple:
        return st.lists(strategy(get_args(hint)[0]), max_size=4).map(tuple)
    if is_dataclass(hint) and isinstance(hint, type):
        hints = get_type_hints(hint)
        return st.builds(
            hint, **{field.name: strategy(hints[field.name]) for field in fields(hint)}
        )
    edges = st.sampled_from([0, 1, 127, 128, 255, 256, 65535, 65536, 2**32, MAX_INTEGER - 1])
    return {
        int: st.integers(0, MAX_INTEGER - 1) | edges,
        bytes: st.binary(max_size=300),
        str: st.text(max_size=50),
    }[hint]


def sample(hint: Any) -> Any:
    """Return a small value of a field or message, with every list filled."""
    if get_origin(hint) is tuple:
        return (sample(get_args(hint)[0]), sample(get_args(hint)[0]))
    if is_dataclass(hint) and isinstance(hint, type):
        hints = get_type_hints(hint)
        return hint(**{field.name: sample(hints[field.name]) for field in fields(hint)})
    return {int: 300, bytes: b"\x01\xc0\xff", str: "ü!"}[hint]


def refused(data: bytes) -> MalformedMessage:
    """Return the error of bytes that are no message."""
    with pytest.raises(MalformedMessage) as caught:
        decode(data, SENDER)
    assert caught.value.sender == SENDER
    return caught.value


def outcome(data: bytes) -> Message | None:
    """Decode, or return None for MalformedMessage; anything else is raised."""
    try:
        return decode(data, SENDER)
    except MalformedMessage:
        return None


def raw(*values: Any) -> bytes:
    packed: bytes = msgpack.packb(list(values))
    return packed


def written(kind: Any, *values: Any) -> bytes:
    """Return the bytes of these fields, as a program of this version writes them."""
    return raw(PROTOCOL_VERSION, kind, *values)


# -- there and back --------------------------------------------------------------------------------


def test_every_message_has_a_number() -> None:
    declared = {
        value
        for value in vars(messages).values()
        if isinstance(value, type) and is_dataclass(value)
    }
    nested = {KeyReveal, SealedShare, Vouch, Pledge, Draw, Group, Evidence}
    assert set(MESSAGE_TYPES) == declared - nested
    assert set(get_args(Message)) == set(NUMBERS)


def test_numbers_are_unique_and_stay_what_they_were() -> None:
    assert len(set(NUMBERS.values())) == len(NUMBERS)
    names = "Join JoinList Commit Commitments Reveal Qualified Ready SessionOpen Welcome NextPledge"
    names += " RoundStart Contribution DecryptionRequest DecryptionShare Refusal RoundEnd Finish"
    assert {cls.__name__: number for cls, number in NUMBERS.items()} == {
        name: number for number, name in enumerate(f"{names} Rejection".split())
    }


@ALL_TYPES
@given(data=st.data())
@PROPERTY
def test_every_message_comes_back(cls: type[Any], data: st.DataObject) -> None:
    message = data.draw(strategy(cls))
    back = decode(encode(message), SENDER)
    assert back == message
    assert type(back) is cls


def test_the_encoding_is_version_type_fields() -> None:
    assert msgpack.unpackb(encode(Refusal(3, 2, "no"))) == [
        PROTOCOL_VERSION,
        NUMBERS[Refusal],
        3,
        2,
        "no",
        b"",
        0,
    ]
    nested = Qualified((KeyReveal(1, b"b", b"n", b"s", b"p"),), (SealedShare(2, b"x", b"e"),))
    assert msgpack.unpackb(encode(nested))[2:] == [[[1, b"b", b"n", b"s", b"p"]], [[2, b"x", b"e"]]]
    pledge, evidence = Pledge(3, b"d"), Evidence(3, b"c", b"p", b"s")
    start = RoundStart(1, b"m", (pledge,), b"T", Draw(5, 6, b"salt"))
    draw = [5, 6, b"salt"]
    assert msgpack.unpackb(encode(start))[2:] == [1, b"m", [[3, b"d"]], b"T", draw]
    groups = (Group((3,), b"c"), Group((7, 8), b""))
    request = DecryptionRequest(
        1, 2, (4,), groups, b"m", (pledge,), (evidence,), b"T", Draw(5, 6, b"salt"), (1,)
    )
    lists = [[[3, b"d"]], [[3, b"c", b"p", b"s"]]]
    written = [1, 2, [4], [[[3], b"c"], [[7, 8], b""]], b"m", *lists, b"T", draw, [1]]
    assert msgpack.unpackb(encode(request))[2:] == written


def test_what_only_verified_aggregates_need_is_written_empty_where_they_are_not() -> None:
    assert msgpack.unpackb(encode(Reveal(KeyReveal(1, b"b", b"n", b"s"), ())))[2:] == [
        [1, b"b", b"n", b"s", b""],
        [],
    ]
    assert msgpack.unpackb(encode(RoundStart(1, b"m")))[2:] == [1, b"m", [], b"", UNDIVIDED]
    contribution = Contribution(1, b"0", b"1", b"b", b"n", transcript=b"T")
    written = [1, b"0", b"1", b"b", b"n", b"", b"", b"T", 0]
    assert msgpack.unpackb(encode(contribution))[2:] == written
    request = DecryptionRequest(1, 2, (4,), (Group((3,), b"c"),))
    written = [1, 2, [4], [[[3], b"c"]], b"", [], [], b"", UNDIVIDED, [0]]
    assert msgpack.unpackb(encode(request))[2:] == written


def test_equal_messages_have_equal_bytes() -> None:
    assert encode(Commit(1, b"a", b"b")) == encode(Commit(1, b"a", b"b"))


def test_a_megabyte_costs_a_few_bytes_of_framing() -> None:
    assert len(encode(Contribution(1, b"", b"", bytes(1 << 20), b""))) < (1 << 20) + 32


# -- damage ----------------------------------------------------------------------------------------


@ALL_TYPES
def test_every_truncation_is_malformed(cls: type[Any]) -> None:
    data = encode(sample(cls))
    for length in range(len(data)):
        refused(data[:length])


@ALL_TYPES
def test_trailing_bytes_are_malformed(cls: type[Any]) -> None:
    data = encode(sample(cls))
    for extra in (b"\0", b"\xc0", b"\xc1", data):
        refused(data + extra)


@ALL_TYPES
def test_every_changed_byte_gives_a_message_or_a_malformed_one(cls: type[Any]) -> None:
    data = bytearray(encode(sample(cls)))
    for position, original in enumerate(data):
        for value in range(256):
            data[position] = value
            message = outcome(bytes(data))
            # What was understood is canonical in its values: it can be sent again.
            assert message is None or decode(encode(message), SENDER) == message
        data[position] = original


def test_random_bytes_are_no_messages() -> None:
    source = seeded("random bytes")
    for _ in range(10_000):
        data = source.bytes(1 + source.bytes(1)[0] % 64)
        assert outcome(data) is None


def test_random_bytes_behind_a_good_header_do_no_harm() -> None:
    source = seeded("header")
    header = raw(PROTOCOL_VERSION)[1:]
    for _ in range(10_000):
        count, kind = source.bytes(2)
        prefix = bytes([0x90 | count % 16]) + header + bytes([kind % len(MESSAGE_TYPES)])
        outcome(prefix + source.bytes(1 + kind // 16))


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.floats()
        | st.integers(-(2**63), 2**64 - 1)
        | st.text(max_size=9)
        | st.binary(max_size=9),
        lambda inner: (
            st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=2)
        ),
        max_leaves=12,
    )
)
@settings(deadline=None, max_examples=300, derandomize=True)
def test_any_document_gives_a_message_or_a_malformed_one(document: Any) -> None:
    outcome(msgpack.packb(document))
    for kind in range(len(MESSAGE_TYPES)):
        outcome(msgpack.packb([PROTOCOL_VERSION, kind, document]))


# -- strictness ------------------------------------------------------------------------------------

READY = NUMBERS[Ready]
FINISH = NUMBERS[Finish]
START = NUMBERS[RoundStart]
REQUEST = NUMBERS[DecryptionRequest]
UNDIVIDED = [0, 1, b""]


def starting(round: Any = 1, model: Any = b"", pledges: Any = ()) -> bytes:
    """Return the bytes of the start of a round."""
    return written(START, round, model, pledges, b"", UNDIVIDED)


JOIN = NUMBERS[Join]


def asking(**fields: Any) -> list[Any]:
    """Return the fields of a decryption request; `fields` overrides any."""
    empty = DecryptionRequest(1, 1, (), ())
    document = dict(zip(vars(empty), msgpack.unpackb(encode(empty))[2:], strict=True))
    assert set(fields) <= set(document)
    return list((document | fields).values())


def test_a_newer_program_is_told_which_versions_differ() -> None:
    error = refused(raw(PROTOCOL_VERSION + 1, FINISH, "done"))
    assert "version 5, this program speaks 4" in str(error)


@pytest.mark.parametrize(
    "version", [0, 1, 2, 3, 5, -1, 255, True, 4.0, "4", b"4", None, [4], float("nan")]
)
def test_another_version_is_refused(version: Any) -> None:
    assert outcome(written(FINISH, "done")) == Finish("done")
    refused(raw(version, FINISH, "done"))


@pytest.mark.parametrize(
    "kind", [-1, len(MESSAGE_TYPES), 1 << 40, True, 0.0, "0", None, [0], float("nan")]
)
def test_an_unknown_type_is_refused(kind: Any) -> None:
    refused(written(kind, "done"))


@pytest.mark.parametrize("document", [None, 1, "text", b"", 1.5, {}, [], [1], [FINISH]])
def test_a_document_that_is_no_message_is_refused(document: Any) -> None:
    refused(msgpack.packb(document))


@ALL_TYPES
def test_missing_and_extra_fields_are_refused(cls: type[Any]) -> None:
    document = msgpack.unpackb(encode(sample(cls)))
    assert outcome(msgpack.packb(document)) == sample(cls)
    assert "fields" in str(refused(msgpack.packb(document[:-1])))
    assert "fields" in str(refused(msgpack.packb([*document, 0])))


@pytest.mark.parametrize(
    "value", [-1, -(2**63), MAX_INTEGER, 2**64 - 1, True, False, 1.0, 0.0, float("nan"),
              float("inf"), "1", b"1", None, [1]]
)  # fmt: skip
def test_what_is_no_natural_number_is_refused(value: Any) -> None:
    assert outcome(starting(1, b"", [])) == RoundStart(1, b"")
    refused(starting(value, b"", []))
    assert outcome(written(REQUEST, *asking(active=[1, 2]))) is not None
    refused(written(REQUEST, *asking(active=[1, value])))
    refused(written(REQUEST, *asking(pledges=[[value, b"d"]])))
    refused(written(REQUEST, *asking(evidence=[[value, b"c", b"p", b"s"]])))


@pytest.mark.parametrize("value", ["text", 1, None, [1, 2], 1.5, True])
def test_what_is_no_byte_string_is_refused(value: Any) -> None:
    assert outcome(starting(1, b"m", [])) == RoundStart(1, b"m")
    refused(starting(1, value, []))
    assert outcome(starting(1, b"m", [[1, b"d"]])) == RoundStart(1, b"m", (Pledge(1, b"d"),))
    refused(starting(1, b"m", [[1, value]]))
    for position in range(1, 4):
        record = [1, b"c", b"p", b"s"]
        assert outcome(written(REQUEST, *asking(evidence=[record]))) is not None
        record[position] = value
        refused(written(REQUEST, *asking(evidence=[record])))


@pytest.mark.parametrize("value", [b"bytes", 1, None, ["a"], 1.5])
def test_what_is_no_text_is_refused(value: Any) -> None:
    assert outcome(written(FINISH, "a")) == Finish("a")
    refused(written(FINISH, value))


@pytest.mark.parametrize("value", [None, 1, b"", "", True])
def test_what_is_no_list_is_refused(value: Any) -> None:
    assert outcome(written(READY, b"", [1])) == Ready(b"", (1,))
    refused(written(READY, b"", value))
    refused(starting(1, b"m", value))
    for name in ("groups", "active", "pledges", "evidence"):
        refused(written(REQUEST, *asking(**{name: value})))


@pytest.mark.parametrize("value", [None, 1, b"", [], [1], [1, b"a", b"b", b"c"]])
def test_a_nested_record_of_another_form_is_refused(value: Any) -> None:
    kind = NUMBERS[messages.Commitments]
    good = [1, b"a", b"b"]
    assert outcome(written(kind, [good, good]))
    refused(written(kind, [good, value]))


@pytest.mark.parametrize("value", [None, 1, b"", [], [1], [1, b"a", b"b"], [b"a", 1], [[1, b"a"]]])
def test_a_pledge_or_evidence_of_another_form_is_refused(value: Any) -> None:
    pledge, evidence = [1, b"d"], [1, b"c", b"p", b"s"]
    request = outcome(written(REQUEST, *asking(pledges=[pledge] * 2, evidence=[evidence] * 2)))
    assert isinstance(request, DecryptionRequest)
    assert request.pledges == (Pledge(1, b"d"),) * 2
    assert request.evidence == (Evidence(1, b"c", b"p", b"s"),) * 2
    refused(starting(1, b"m", [pledge, value]))
    refused(written(REQUEST, *asking(pledges=[pledge, value])))
    refused(written(REQUEST, *asking(evidence=[evidence, value])))
    # One in place of the other.
    refused(written(REQUEST, *asking(pledges=[evidence])))
    refused(written(REQUEST, *asking(evidence=[pledge])))


def test_an_error_names_the_field() -> None:
    assert "RoundStart.round" in str(refused(starting("1", b"", [])))
    assert "RoundStart.model" in str(refused(starting(1, "text", [])))
    assert "Pledge.digest" in str(refused(starting(1, b"m", [[1, 2]])))
    for name, wrong in (
        ("DecryptionRequest.active", {"active": [True]}),
        ("DecryptionRequest.model", {"model": "text"}),
        ("Pledge.index", {"pledges": [[True, b"d"]]}),
        ("Evidence.proof", {"evidence": [[1, b"c", 2, b"s"]]}),
    ):
        assert name in str(refused(written(REQUEST, *asking(**wrong))))


def test_text_that_is_not_utf_8_is_refused() -> None:
    data = encode(Finish("ab"))
    refused(data.replace(b"ab", b"\xff\xfe"))


def test_extension_types_and_maps_are_refused() -> None:
    refused(written(FINISH, msgpack.Timestamp(1)))
    refused(written(FINISH, msgpack.ExtType(5, b"x")))
    refused(written(FINISH, {"a": 1}))


def test_deep_nesting_is_refused() -> None:
    for depth in (10, 600, 2000, 100_000):
        refused(b"\x91" * depth + b"\x01")


# -- bounds ----------------------------------------------------------------------------------------


def peak_of_refusing(data: bytes) -> int:
    """Return the most bytes that were allocated while these were refused."""
    tracemalloc.start()
    try:
        refused(data)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "claim",
    [
        b"\xdd\xff\xff\xff\xff",
        b"\xdc\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\xc5\xff\xff",
        b"\xdb\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\xc9\xff\xff\xff\xff\x01",
    ],
    ids=["array32", "array16", "bin32", "bin16", "str32", "map32", "ext32"],
)
def test_a_huge_claimed_length_takes_no_memory(claim: bytes) -> None:
    header = b"\x93" + bytes([PROTOCOL_VERSION, FINISH])
    assert peak_of_refusing(claim) < 1 << 16
    assert peak_of_refusing(header + claim + b"xx") < 1 << 16


def test_nested_claims_take_no_memory() -> None:
    # A thousand lists, one in the other, each of which the bytes at hand could fill.
    padding = bytes(4 * MAX_CLIENTS)
    claim = b"\xdd" + len(padding).to_bytes(4, "big")
    header = b"\x94" + bytes([PROTOCOL_VERSION, START, 1])
    for data in (claim * 1000, header + claim * 1000):
        assert peak_of_refusing(data + padding) < 1 << 20
    # In the last field of the largest message, and in a record inside of it.
    request = written(REQUEST, *asking())[:-1]
    for start in (b"", b"\x91", b"\x91\x94", b"\x91\x94\x01"):
        assert peak_of_refusing(request + start + claim * 1000 + padding) < 1 << 20


def test_lists_and_texts_are_bounded() -> None:
    assert outcome(written(READY, b"", [1] * MAX_CLIENTS)) == Ready(b"", (1,) * MAX_CLIENTS)
    refused(written(READY, b"", [1] * (MAX_CLIENTS + 1)))
    pledges = [[1, b""]] * MAX_CLIENTS
    assert outcome(starting(1, b"", pledges)) is not None
    assert "4097 items" in str(refused(starting(1, b"", [*pledges, [1, b""]])))
    evidence = [[1, b"", b"", b""]] * MAX_CLIENTS
    assert outcome(written(REQUEST, *asking(evidence=evidence))) is not None
    refused(written(REQUEST, *asking(evidence=[*evidence, evidence[0]])))
    assert outcome(written(FINISH, "x" * MAX_TEXT)) == Finish("x" * MAX_TEXT)
    refused(written(FINISH, "x" * (MAX_TEXT + 1)))
