"""`--aggregation mphe`: encrypted updates; decryptors open their sum."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from fl.config.configs import CodecConfig
from fl.privacy.privacy import Privacy
from fl.schemes.scheme import ClientSeat, Notices, Setting
from mphe import Client, EncodingError, Hedge, Identity, Server, SessionReady
from mphe.run import (
    ClientStore,
    ServerParty,
    Vault,
    longest_of_client,
    longest_of_server,
    name_clients,
)
from mphe.update import Codec, PrivateUpdateCodec, UpdateCodec


class MpheAgreement:
    """Parties that make a collective key and encrypt under it."""

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self._plan = setting.plan
        self.digest = self._plan.digest
        self.longest_of_server = longest_of_server(self._plan, setting.model_bytes)

    def longest_of_client(self, is_open: bool) -> int:
        """Return the bytes of the longest message that a client may send."""
        return longest_of_client(self._plan, is_open)

    @property
    def plan(self) -> Mapping[str, object]:
        """The ring, the noise and the slots of the run."""
        return dataclasses.asdict(self._plan)

    def server(self) -> ServerParty:
        """Return a server that waits for all clients."""
        setting = self._setting
        session, roster = self._plan.session, setting.roster
        return Server(session, roster, blocks=setting.blocks, judge=setting.judge)

    def restored_server(self, state: bytes) -> ServerParty:
        """Return the server whose key exists; EncodingError when it is damaged, or another."""
        setting = self._setting
        server = Server.restore(state, blocks=setting.blocks, judge=setting.judge)
        if server.plan.session != self._plan.session:
            raise EncodingError("it was written with other flags")
        if server.roster != setting.roster:
            raise EncodingError("it was written with other identities")
        return server

    def client(self, index: int, identity: Identity, vault: Vault | None) -> ClientSeat:
        """Return a client with an identity; with a vault, the one that is stored there, if any."""
        roster, blocks = self._setting.roster, self._setting.blocks
        store = ClientStore(vault) if vault else None
        keep = store.keep if store else None
        kept = store.restore(self._plan, identity, roster, blocks) if store else None
        if kept is not None:
            return ClientSeat(kept, keep, returns=True)
        parameters = self._plan.session
        client = Client(index, parameters, identity, roster, blocks=blocks, journal=keep)
        return ClientSeat(client, keep)

    def notices(self, ready: SessionReady) -> Notices:
        """Say whose key it is, and who cannot decrypt."""
        session = self._plan.session
        upload = self._plan.upload_bytes / self._setting.model_size
        line = (
            f"collective key of {len(ready.qualified)} clients, any {session.threshold} of "
            f"{len(ready.decryptors)} decrypt; {upload:.2f} bytes a value ({session.encryption})"
        )
        if session.proves:
            line += "; clients prove what they send"
        warnings = []
        if session.max_groups > 1 and not session.proves:
            warnings.append(
                "contributors are split into groups, and one that lies can read the key from what "
                "counted, or have others blamed: --verify_clients True rules that out"
            )
        if ready.unconfirmed:
            unfit = name_clients(ready.unconfirmed)
            warnings.append(f"{unfit} cannot decrypt: the shares dealt to them do not fit")
        return Notices((line,), tuple(warnings))


class MpheScheme:
    """Encrypted sums of integers, with noise where privacy is promised."""

    def codec(
        self,
        config: CodecConfig,
        size: int,
        privacy: Privacy | None = None,
        hedge: Hedge | None = None,
    ) -> Codec:
        """Return the codec of rounded updates of `size` values."""
        rate = config.compression_rate
        if privacy is None:
            return UpdateCodec(
                size,
                config.value_bits,
                config.clip_norm,
                compression_rate=rate,
                rotation=config.rotation,
                weighted=config.weighted,
            )
        return PrivateUpdateCodec(
            size,
            config.value_bits,
            config.clip_norm,
            noise_multiplier=privacy.noise_multiplier,
            honest=privacy.honest,
            sensitivity=privacy.sensitivity if privacy.unit == "sample" else None,
            compression_rate=rate,
            hedge=hedge,
        )

    def agree(self, setting: Setting) -> MpheAgreement:
        """Return a run's parties."""
        return MpheAgreement(setting)
