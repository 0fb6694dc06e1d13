"""The fleet: what is where, and where the next request goes."""
