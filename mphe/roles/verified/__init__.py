"""Verified aggregates: what convinces decryptors that do not trust the server."""
