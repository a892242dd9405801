"""Rings, noise bounds and sampling; knows no party."""
