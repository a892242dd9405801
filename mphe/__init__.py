"""Multiparty homomorphic encryption for secure aggregation: NumPy, the stdlib, `cryptography`."""

__version__ = "0.3.0"
