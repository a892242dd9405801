"""What a client keeps in its state directory: its keys, and what it answered."""

from fl.state.vault import JOURNAL, KEYS, Vault
from mphe.errors import EncodingError
from mphe.plan.plan import Plan
from mphe.roles import keyfile
from mphe.roles.rounds.decryptor import Memory
from mphe.roles.setup.common import Identities, SessionKeys


class ClientState:
    """Keys are written once, when the session opens; the journal before every answer."""

    def __init__(self, vault: Vault) -> None:
        self.vault = vault
        self._transcript = b""

    def load(
        self, plan: Plan, identities: Identities, index: int
    ) -> tuple[SessionKeys, Memory] | None:
        """Return what was kept, None when nothing was.

        Raises:
            StateError: it is damaged, incomplete or of something else.
        """
        texts = self.vault.read_all(KEYS, JOURNAL)
        if texts is None:
            return None
        name = KEYS
        try:
            keys = keyfile.read_keys(texts[0], plan, identities, index)
            name = JOURNAL
            memory = keyfile.read_memory(texts[1], keys.transcript)
        except EncodingError as error:
            raise self.vault.refusal(name, str(error)) from error
        self._transcript = keys.transcript
        return keys, memory

    def keep(self, keys: SessionKeys, memory: Memory) -> None:
        """Keep the keys of a session that is open; OSError when they cannot be written."""
        self._transcript = keys.transcript
        # Keys without a journal would be keys that forgot their answers, so it comes first.
        self.record(memory)
        self.vault.write(KEYS, keyfile.write_keys(keys))

    def record(self, memory: Memory) -> None:
        """Keep what the next answer means, before it is given; OSError when it is not written."""
        self.vault.write(JOURNAL, keyfile.write_memory(memory, self._transcript))
