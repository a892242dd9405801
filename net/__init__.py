"""Moves bytes between the server and its clients; knows no protocol message."""
