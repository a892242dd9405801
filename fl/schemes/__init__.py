"""How updates are added up."""
