"""What is to hold for a model: the node's own file, and what the last load said. Pure."""

from collections.abc import Mapping

import msgspec

from cortex_core.ids import ModelId
from cortex_core.neuron_api import LoadRequest, ModelProfile


class Profiles:
    """One profile per model. The daemon's loop is its only writer."""

    def __init__(self, configured: Mapping[ModelId, ModelProfile]) -> None:
        self._configured = dict(configured)
        self._asked: dict[ModelId, ModelProfile] = {}

    def for_load(self, request: LoadRequest) -> LoadRequest:
        """Remember what a load says of its model; returns the load with the gaps filled in.

        A load that says nothing changes nothing: it may be of a model that somebody else loaded.
        """
        if request.profile != ModelProfile():
            self._asked[request.model_id] = request.profile
        return msgspec.structs.replace(request, profile=self.of(request.model_id))

    def forget(self, model_id: ModelId) -> None:
        """Drop what a load said: there is no such model."""
        self._asked.pop(model_id, None)

    def of(self, model_id: ModelId) -> ModelProfile:
        """Return what holds now: what a load said last goes before what the file says."""
        merged = self._configured.get(model_id, ModelProfile())
        asked = self._asked.get(model_id)
        if asked is None:
            return merged
        said = {
            field: value
            for field in asked.__struct_fields__
            if (value := getattr(asked, field)) is not None
        }
        return msgspec.structs.replace(merged, **said)
