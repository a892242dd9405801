"""Parties over a network and a clock: TCP and TLS, deadlines, reconnecting, a state directory.

`serve` and `join` play a whole session. Below them are the parts: a `Driver` and a `ClientSession`
that play a party, connections, the vault. Last come those of which a party of another scheme than
`mphe.Client` and `mphe.Server` is made, so that it speaks the same messages in the same rounds.
"""

from mphe.errors import printable
from mphe.net.tcp import AddressError, Connection, Listener, Unreachable, WrongServer
from mphe.net.tls import Credentials, new_credentials, public_key
from mphe.net.transport import ServerTransport
from mphe.roles.attendance import Attendance
from mphe.roles.machine import Output, Send
from mphe.roles.rounds.collecting import Collecting, Outdated
from mphe.roles.rounds.contributor import Contributor
from mphe.run.credentials import Parties
from mphe.run.departures import Departure, Departures
from mphe.run.driver import Driver, LogReporter, Observer, Reporter, name_clients
from mphe.run.gathering import Gathering
from mphe.run.join import Round, join
from mphe.run.party import ClientParty, ServerParty
from mphe.run.serve import serve
from mphe.run.session import ClientSession, ServerGone, follow
from mphe.run.store import CLIENT_FILE, ClientStore
from mphe.run.vault import StateError, Vault, make_private, write_atomically
from mphe.scheme.encryptor import Payload
from mphe.scheme.packing import BlockMap
from mphe.wire.codec import decode, encode, pack, unpack
from mphe.wire.messages import Contribution, Finish, Join, Rejection, RoundEnd, RoundStart
from mphe.wire.sizes import longest_of_client, longest_of_server

__all__ = [
    "CLIENT_FILE",
    "AddressError",
    "Attendance",
    "BlockMap",
    "ClientParty",
    "ClientSession",
    "ClientStore",
    "Collecting",
    "Connection",
    "Contribution",
    "Contributor",
    "Credentials",
    "Departure",
    "Departures",
    "Driver",
    "Finish",
    "Gathering",
    "Join",
    "Listener",
    "LogReporter",
    "Observer",
    "Outdated",
    "Output",
    "Parties",
    "Payload",
    "Rejection",
    "Reporter",
    "Round",
    "RoundEnd",
    "RoundStart",
    "Send",
    "ServerGone",
    "ServerParty",
    "ServerTransport",
    "StateError",
    "Unreachable",
    "Vault",
    "WrongServer",
    "decode",
    "encode",
    "follow",
    "join",
    "longest_of_client",
    "longest_of_server",
    "make_private",
    "name_clients",
    "new_credentials",
    "pack",
    "printable",
    "public_key",
    "serve",
    "unpack",
    "write_atomically",
]
