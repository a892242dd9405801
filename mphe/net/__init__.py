"""Frames, TLS and TCP between parties; knows no message."""
