"""The command line: flags, what they refuse, and what follows from them."""
