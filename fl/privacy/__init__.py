"""Differential privacy of a run: how much noise, and what it has cost."""
