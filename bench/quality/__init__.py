"""What weight formats cost in quality: `python -m bench.quality --help`."""
