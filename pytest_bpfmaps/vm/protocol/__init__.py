"""What a guest and its gateway say to each other."""
