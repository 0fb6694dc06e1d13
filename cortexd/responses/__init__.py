"""Responses that are kept for clients: what of them, for how long, and where."""
