"""A third scheme, to see that one file is enough: updates in clear, but for a mask all know."""

from dataclasses import replace
from typing import Any

import numpy as np

from fl.schemes.plain import PlainAgreement, PlainClient, PlainScheme, PlainServer
from fl.schemes.scheme import ClientSeat, Setting
from mphe import Identity, Step, Summed
from mphe.run import Payload, Vault

MASK = np.float32(64)


class MaskedClient(PlainClient):
    """Adds the mask to every value that it sends."""

    def encrypt(self, values: np.ndarray) -> Payload:
        return super().encrypt(values + MASK)


class MaskedServer(PlainServer):
    """Takes as many masks off a sum as there are contributors."""

    def receive(self, sender: int, data: bytes) -> Step:
        step = super().receive(sender, data)
        return Step(step.mail, [self._unmasked(event) for event in step.events])

    def _unmasked(self, event: Any) -> Any:
        if not isinstance(event, Summed):
            return event
        total: Any = event.total - len(event.contributors) * float(MASK)
        return replace(event, total=total)


class MaskedAgreement(PlainAgreement):
    """The parties that know the mask."""

    def server(self, *, joined: bool = False) -> MaskedServer:
        session = self.setting.session
        clients, minimum = session.num_clients, session.min_contributors
        return MaskedServer(self.setting.length, clients, minimum, joined=joined)

    def client(self, index: int, identity: Identity, vault: Vault | None) -> ClientSeat:
        return ClientSeat(MaskedClient(index))


class MaskedScheme(PlainScheme):
    """Codec as without the mask."""

    def agree(self, setting: Setting) -> MaskedAgreement:
        return MaskedAgreement(setting)
