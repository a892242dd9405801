"""What a session agrees on, and what follows from it."""
