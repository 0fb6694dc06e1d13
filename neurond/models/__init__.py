"""Model files to modules that answer: reading weights, checking architectures, running layers."""
