"""Float vectors to small integers and back."""
