"""Parties over a network and a clock: TCP and TLS, deadlines, reconnecting, a state directory."""

from mphe.net.tcp import AddressError, Unreachable, WrongServer
from mphe.net.tls import Credentials, new_credentials
from mphe.run.credentials import Parties
from mphe.run.join import Round, join
from mphe.run.serve import serve
from mphe.run.session import ServerGone
from mphe.run.vault import StateError

__all__ = [
    "AddressError",
    "Credentials",
    "Parties",
    "Round",
    "ServerGone",
    "StateError",
    "Unreachable",
    "WrongServer",
    "join",
    "new_credentials",
    "serve",
]
