"""The routes of the node's HTTP API."""
