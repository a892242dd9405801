"""One script per question; each prints what it measured and the command that made it."""
