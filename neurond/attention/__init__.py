"""Paged attention: one contract, a reference that is easy to believe, and faster backends."""
