"""Secure aggregation: clients encrypt vectors under a key that nobody holds, the sum comes out.

The parties are bytes in, bytes out: no network, no clock, no thread. `mphe.run` plays them over TCP
and TLS. README.md shows a whole session in twenty lines, docs/protocol.md the mathematics.
"""

from mphe.arithmetic.hedge import Hedge
from mphe.arithmetic.sampling import RandomSource
from mphe.arithmetic.system import System
from mphe.client import Client, Finished, Rejected
from mphe.errors import (
    DuplicateMessage,
    EncodingError,
    LocalProtocolError,
    MalformedMessage,
    MpheError,
    OutOfRange,
    ParameterError,
    ProtocolError,
    RefusedDecryption,
    RemoteProtocolError,
    SetupFailed,
    UnexpectedSender,
)
from mphe.plan.agreement import SessionParameters
from mphe.plan.plan import Plan, make_plan
from mphe.roles.blob import serial_of
from mphe.roles.identity import Identity, Roster
from mphe.roles.machine import Event
from mphe.roles.rounds.collecting import Counted
from mphe.roles.rounds.contributor import RoundEnded, TrainOn
from mphe.roles.rounds.judging import Judge
from mphe.roles.rounds.outcomes import (
    Abandoned,
    Closed,
    Excluded,
    GroupSum,
    Kept,
    Overlap,
    Retried,
    Summed,
)
from mphe.roles.setup.client import Opened
from mphe.roles.setup.server import SetupAbandoned
from mphe.roles.step import Step
from mphe.server import Server, SessionReady
from mphe.update import Counts, Mean, PublicRange, UpdateCodec
from mphe.wire.messages import SERVER

__version__ = "0.3.0"

__all__ = [
    "SERVER",
    "Abandoned",
    "Client",
    "Closed",
    "Counted",
    "Counts",
    "DuplicateMessage",
    "EncodingError",
    "Event",
    "Excluded",
    "Finished",
    "GroupSum",
    "Hedge",
    "Identity",
    "Judge",
    "Kept",
    "LocalProtocolError",
    "MalformedMessage",
    "Mean",
    "MpheError",
    "Opened",
    "OutOfRange",
    "Overlap",
    "ParameterError",
    "Plan",
    "ProtocolError",
    "PublicRange",
    "RandomSource",
    "RefusedDecryption",
    "Rejected",
    "RemoteProtocolError",
    "Retried",
    "Roster",
    "RoundEnded",
    "Server",
    "SessionParameters",
    "SessionReady",
    "SetupAbandoned",
    "SetupFailed",
    "Step",
    "Summed",
    "System",
    "TrainOn",
    "UnexpectedSender",
    "UpdateCodec",
    "__version__",
    "make_plan",
    "serial_of",
]
