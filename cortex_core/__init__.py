"""What the gateway and the node daemon share: types, dialects, errors, config, ipc."""

__version__ = "0.1.0"
