"""From a launcher or from files to what a party knows when it starts."""
