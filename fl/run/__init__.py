"""One run of a party, from its start to its exit code."""
