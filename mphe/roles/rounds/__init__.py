"""Rounds: contributions, their sum, its decryption."""
