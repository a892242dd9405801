"""Other systems on the same vectors; each script runs in an environment of its own."""
