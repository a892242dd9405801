"""The collective key: made, confirmed, joined later, returned to."""
