"""Keras: gradients, evaluation, losses, and the server's optimizer."""
