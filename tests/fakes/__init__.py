"""Doubles, and what several tests share."""
