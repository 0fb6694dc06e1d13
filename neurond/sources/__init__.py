"""Where models come from, and the prepared form in which they lie on disk."""
