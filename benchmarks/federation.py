"""All parties of a session in one process, for measuring."""

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from mphe.arithmetic.sampling import RandomSource
from mphe.plan.plan import Plan
from mphe.roles.machine import Output, Send
from mphe.roles.rounds.aggregator import Aggregator
from mphe.roles.rounds.contributor import Contributor
from mphe.roles.rounds.decryptor import Decryptor
from mphe.roles.setup.client import KeysReady, SetupClient
from mphe.roles.setup.common import PublicSession, SessionKeys
from mphe.roles.setup.server import SetupDone, SetupServer
from mphe.scheme.encryptor import Encryptor
from mphe.wire.messages import SERVER, DecryptionRequest, Message


class Federation:
    """All parties in one process."""

    def __init__(self, plan: Plan) -> None:
        """Run the set-up."""
        self.plan = plan
        signers = {i: Ed25519PrivateKey.generate() for i in range(1, plan.session.num_clients + 1)}
        identities = {i: key.public_key().public_bytes_raw() for i, key in signers.items()}
        self._server = SetupServer(plan, identities)
        self._clients = {
            i: SetupClient(i, plan, key, identities, RandomSource.from_system())
            for i, key in signers.items()
        }
        self.keys: dict[int, SessionKeys] = {}
        self.decryptors: dict[int, Decryptor] = {}
        self._session: PublicSession | None = None
        self._queue: list[tuple[int, int, Message]] = []
        for client in self._clients.values():
            self._emit(client.index, client.start())
        self._pump()
        if self._session is None:
            raise RuntimeError("the set-up did not finish")
        self.aggregator: Aggregator = Aggregator(self._session)
        self.contributors: dict[int, Contributor] = {
            i: Contributor(
                i,
                Encryptor(plan, k.key, k.crs_seed),
                RandomSource.from_system(),
                transcript=k.transcript,
            )
            for i, k in self.keys.items()
        }

    def _emit(self, sender: int, outputs: list[Output]) -> None:
        for output in outputs:
            if isinstance(output, Send):
                self._queue.append((sender, output.receiver, output.message))
            elif isinstance(output, KeysReady):
                self.keys[sender] = output.keys
                if output.keys.share is not None:
                    source = RandomSource.from_system()
                    self.decryptors[sender] = Decryptor(output.keys, source)
            elif isinstance(output, SetupDone):
                self._session = output.session

    def _pump(self) -> None:
        while self._queue:
            sender, receiver, message = self._queue.pop(0)
            if receiver == SERVER:
                self._emit(SERVER, self._server.receive(sender, message))
            elif isinstance(message, DecryptionRequest):
                self._emit(receiver, self.decryptors[receiver].receive(sender, message))
            else:
                self._emit(receiver, self._clients[receiver].receive(sender, message))


def sends(outputs: list[Output]) -> list[Send]:
    """Return what is to be delivered."""
    return [output for output in outputs if isinstance(output, Send)]
