"""The cryptography of one party: packing, encryption, shares, proofs."""
