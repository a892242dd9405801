"""What a run needs of a scheme: updates as values to be summed, and the parties that sum them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from typing import Any, NamedTuple, Protocol

from numpy.typing import NDArray

from fl.config.configs import CodecConfig, SessionConfig
from fl.config.schemes import SCHEMES
from fl.privacy.privacy import Privacy
from mphe import Hedge, Identity, Plan, Roster, SessionReady, make_plan
from mphe.run import BlockMap, ClientParty, ServerParty, Vault
from mphe.update import Codec

Judge = Callable[[NDArray[Any], int], str]
"""(total, number of its contributors) → why it is implausible, one line, or ""; as `mphe.Judge`."""


@dataclass(frozen=True)
class Setting:
    """What the parties of a run are made from.

    Attributes:
        session: what is agreed on.
        length: values of a contribution.
        model_size: values of the model.
        roster: public keys of all clients.
        blocks: computes the blocks of a long vector.
        judge: of the server, says why a sum is implausible; None takes every sum.
    """

    session: SessionConfig
    length: int
    model_size: int
    roster: Roster
    blocks: BlockMap = map
    judge: Judge | None = None

    @cached_property
    def plan(self) -> Plan:
        """What follows from the session's parameters; ParameterError when nothing safe does."""
        return make_plan(self.session.parameters(self.length))

    @property
    def model_bytes(self) -> int:
        """Bytes of the model's weights."""
        return 4 * self.model_size


class ClientSeat(NamedTuple):
    """A client as its run takes it over.

    Attributes:
        party: has not joined yet, or goes on.
        keep: stores its state, before anything of it is sent; None where nothing is stored.
        returns: whether it was made from what was stored.
    """

    party: ClientParty
    keep: Callable[[bytes], None] | None = None
    returns: bool = False


class Notices(NamedTuple):
    """What people are told when rounds may begin."""

    lines: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


class Agreement(Protocol):
    """One run's parties: all of them made from the same setting.

    The server's says `mphe.SessionReady` when rounds may begin, and is stored then; what it says in
    a round are `mphe.Counted`, `Closed`, and `Summed` or `Abandoned`.
    """

    @property
    def digest(self) -> bytes:
        """What is agreed on, hashed; what is stored belongs to it."""

    @property
    def longest_of_server(self) -> int:
        """Bytes of the longest message that the server may send."""

    def longest_of_client(self, is_open: bool) -> int:
        """Return the bytes of the longest message that a client may send, with a key or before."""

    @property
    def plan(self) -> Mapping[str, object] | None:
        """What was derived from the flags, for config.json."""

    def server(self) -> ServerParty:
        """Return a server that nobody has joined."""

    def restored_server(self, state: bytes) -> ServerParty:
        """Return the server that was stored; EncodingError when it is damaged, or another."""

    def client(self, index: int, identity: Identity, vault: Vault | None) -> ClientSeat:
        """Return a client, the one that is stored in the vault if there is one.

        Raises:
            StateError: it is damaged, or of another session.
        """

    def notices(self, ready: SessionReady) -> Notices:
        """Return what to say of a set-up that is done."""


class Scheme(Protocol):
    """A way of adding updates up; it is named in `fl.config.schemes.SCHEMES`."""

    def codec(
        self,
        config: CodecConfig,
        size: int,
        privacy: Privacy | None = None,
        hedge: Hedge | None = None,
    ) -> Codec:
        """Return the codec of updates of `size` values.

        Args:
            config: of the run.
            size: values of the model.
            privacy: what is promised; None without differential privacy.
            hedge: of a private client's noise.
        """

    def agree(self, setting: Setting) -> Agreement:
        """Return a run's parties."""


def scheme_of(aggregation: str) -> Scheme:
    """Return the scheme that --aggregation names."""
    module, _, name = SCHEMES[aggregation].where.partition(":")
    scheme: Scheme = getattr(import_module(module), name)()
    return scheme


def codec_for(
    config: CodecConfig,
    size: int,
    privacy: Privacy | None = None,
    hedge: Hedge | None = None,
) -> Codec:
    """Return the codec of updates of `size` values, as the run's scheme sends them."""
    return scheme_of(config.aggregation).codec(config, size, privacy, hedge)
