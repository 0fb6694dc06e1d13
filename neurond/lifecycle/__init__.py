"""What the supervisor decides about actors and models: plain state machines, told the time."""
