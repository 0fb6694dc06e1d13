"""Benchmarks: pytest-benchmark suites, and a load client for any OpenAI-style server."""
