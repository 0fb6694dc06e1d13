"""Client dialects: bytes to canonical requests, canonical events to bytes, on both daemons."""
