"""A small HTTP/1.1 client for streams: one event loop, keep-alive, no total timeouts."""
