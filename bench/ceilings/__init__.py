"""What this machine can do at most: reading memory, multiplying floats, multiplying bytes."""
