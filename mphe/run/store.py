"""A client's state in its vault: replaced only by one that was made from it."""

from __future__ import annotations

from mphe.client import Client
from mphe.errors import EncodingError
from mphe.plan.plan import Plan
from mphe.roles.blob import serial_of
from mphe.roles.identity import Identity, Roster
from mphe.run.vault import StateError, Vault
from mphe.scheme.packing import BlockMap

CLIENT_FILE = "client"
NOT_BEGUN = -1
"""The serial number before anything was stored."""


class ClientStore:
    """One client of one vault, which this process alone uses."""

    def __init__(self, vault: Vault) -> None:
        self.vault = vault
        state = vault.read(CLIENT_FILE)
        self._serial = NOT_BEGUN if state is None else serial_of(state)

    def swap(self, old_serial: int, state: bytes) -> bool:
        """Replace the state of this serial number, for good; OSError when it is not written."""
        if old_serial != self._serial:
            return False
        self.vault.write(CLIENT_FILE, state)
        self._serial = serial_of(state)
        return True

    def keep(self, state: bytes) -> None:
        """Store a state unless it is stored already.

        Raises:
            StateError: what is stored is newer.
            OSError: it cannot be written for good.
        """
        serial = serial_of(state)
        if serial < self._serial:
            raise StateError(f"{self.vault.directory} holds a newer state of this client")
        if serial > self._serial:
            self.swap(self._serial, state)

    def restore(
        self, plan: Plan, identity: Identity, roster: Roster, blocks: BlockMap = map
    ) -> Client | None:
        """Return the client that was stored, None when none was.

        Raises:
            StateError: it is damaged, or of another session, identity or roster.
        """
        state = self.vault.read(CLIENT_FILE)
        if state is None:
            return None
        try:
            client = Client.restore(state, identity, blocks=blocks, journal=self.keep)
        except EncodingError as error:
            raise self.vault.refusal(CLIENT_FILE, str(error)) from error
        if client.plan != plan or client.roster != roster:
            raise self.vault.refusal(
                CLIENT_FILE, "it was written with other flags or another roster"
            )
        return client
