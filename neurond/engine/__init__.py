"""The engine: continuous batching over paged K/V, its scheduler apart from its runner."""
