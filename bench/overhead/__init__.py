"""What a token costs in processor time beside the engine's step that makes it."""
