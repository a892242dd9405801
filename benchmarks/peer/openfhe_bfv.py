"""OpenFHE threshold BFV: all n clients decrypt together (n of n), 16-bit values packed in slots."""

import importlib.metadata
import time
from typing import Any

import numpy as np
import openfhe
from numpy.typing import NDArray

from benchmarks.peer.common import Result, run

REACH = 0.25
LARGEST = (1 << 16) - 1
MODULUS = 786433
"""Prime, 1 modulo 2^18, above a sum of eight 16-bit values."""


class OpenFHE:
    """Keys are made one after the other, as its interface wants it."""

    def setup(self, vectors: NDArray[np.float32]) -> None:
        """Make the collective key."""
        self._n, self._length = vectors.shape
        if self._n * LARGEST >= MODULUS:
            raise ValueError("too many clients for this plaintext modulus: use at most 11")
        parameters = openfhe.CCParamsBFVRNS()
        parameters.SetPlaintextModulus(MODULUS)
        parameters.SetMultiplicativeDepth(0)
        parameters.SetSecurityLevel(openfhe.SecurityLevel.HEStd_128_classic)
        parameters.SetMultipartyMode(openfhe.MultipartyMode.NOISE_FLOODING_MULTIPARTY)
        parameters.SetThresholdNumOfParties(self._n)
        self._context: Any = openfhe.GenCryptoContext(parameters)
        for feature in ("PKE", "LEVELEDSHE", "ADVANCEDSHE", "MULTIPARTY"):
            self._context.Enable(getattr(openfhe.PKESchemeFeature, feature))
        pairs = [self._context.KeyGen()]
        for _ in range(self._n - 1):
            pairs.append(self._context.MultipartyKeyGen(pairs[-1].publicKey))
        self._public = pairs[-1].publicKey
        self._secrets = [pair.secretKey for pair in pairs]
        self._slots = self._context.GetRingDimension()

    @property
    def degree(self) -> int:
        """N, which the library chose."""
        return int(self._slots)

    def begin(self) -> None:
        """Start a round."""
        self._total: list[Any] = []

    def encrypt(self, client: int, vector: NDArray[np.float32]) -> list[bytes]:
        """Return serialised ciphertexts."""
        scaled = (vector + np.float32(REACH)) * np.float32(LARGEST / (2 * REACH))
        values = np.rint(np.clip(scaled, 0, LARGEST, out=scaled)).astype(np.int64)
        # The library's slots are signed.
        values[values > MODULUS // 2] -= MODULUS
        uploads = []
        for start in range(0, self._length, self._slots):
            part = values[start : start + self._slots].tolist()
            plaintext = self._context.MakePackedPlaintext(part)
            ciphertext = self._context.Encrypt(self._public, plaintext)
            uploads.append(openfhe.Serialize(ciphertext, openfhe.BINARY))
        return uploads

    def size(self, upload: list[bytes]) -> int:
        """Return the bytes of an upload."""
        return sum(map(len, upload))

    def add(self, client: int, upload: list[bytes]) -> None:
        """Read and add."""
        read = [openfhe.DeserializeCiphertextString(part, openfhe.BINARY) for part in upload]
        if not self._total:
            self._total = read
            return
        for index, part in enumerate(read):
            self._total[index] = self._context.EvalAdd(self._total[index], part)

    def shares(self) -> list[float]:
        """Let every client decrypt in part; the first leads."""
        seconds = []
        self._parts = []
        for client, secret in enumerate(self._secrets):
            started = time.perf_counter()
            partial = (
                self._context.MultipartyDecryptMain
                if client
                else self._context.MultipartyDecryptLead
            )
            self._parts.append(partial(self._total, secret))
            seconds.append(time.perf_counter() - started)
        return seconds

    def recover(self) -> NDArray[np.float64]:
        """Fuse the parts."""
        slots: list[int] = []
        for index in range(len(self._total)):
            plaintext = self._context.MultipartyDecryptFusion([p[index] for p in self._parts])
            plaintext.SetLength(self._slots)
            slots += plaintext.GetPackedValue()
        values = np.array(slots[: self._length], np.int64) % MODULUS
        return np.asarray(values * (2 * REACH / LARGEST) - self._n * REACH, np.float64)


if __name__ == "__main__":
    run(
        OpenFHE(),
        Result(
            "OpenFHE threshold BFV",
            importlib.metadata.version("openfhe"),
            "RLWE 128 bits, noise flooding, n of n decrypt",
            "server sees the sum, and more if it lies; one dropout and nothing can be decrypted",
        ),
    )
