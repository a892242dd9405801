"""The parties' parts in the protocol, as sans-I/O state machines."""
