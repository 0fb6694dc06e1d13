"""`cortex serve`."""

import argparse

from cortexd.config_files import DEFAULT_CONFIG
from cortexd.serve import serve


def serve_gateway(options: argparse.Namespace) -> int:
    """Run the gateway until it is told to stop."""
    return serve(options.config or DEFAULT_CONFIG)
