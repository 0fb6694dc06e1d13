"""The same work on other servers and on ours, side by side: `python -m bench.peers --help`."""
