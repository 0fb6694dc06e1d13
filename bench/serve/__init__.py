"""Load client for OpenAI-style servers: `python -m bench.serve --help`."""
