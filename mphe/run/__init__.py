"""Roles over a network and a clock."""
