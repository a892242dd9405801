"""What is learnt: a client's updates and the server's model."""
