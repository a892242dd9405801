"""What a party keeps to go on after its process died."""
