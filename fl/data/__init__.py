"""Data sets: loading them, splitting them among clients, a user's own."""
