"""Multiparty homomorphic encryption for secure aggregation: NumPy, the stdlib, `cryptography`."""
