"""Falcon resources: one file per family of routes."""
