"""The node as its HTTP API and its admin socket see it."""

from typing import TypeVar

import msgspec

from cortex_core.canonical import CountTokensRequest, GenerateRequest
from cortex_core.canonical_embedding import EmbedRequest
from cortex_core.errors import ModelNotFound
from cortex_core.ids import DeviceName
from cortex_core.neuron_api import (
    CHAT,
    Discovery,
    Health,
    LoadRequest,
    LoadResponse,
    ModelsResponse,
    NodeModel,
    RestartRequest,
    RestartResponse,
    UnloadRequest,
    UnloadResponse,
)
from neurond.config import NeuronConfig
from neurond.embedding import Embedding
from neurond.generation import Generation
from neurond.profiles import Profiles
from neurond.supervisor.ports import ProgressCallback
from neurond.supervisor.supervisor import Supervisor
from neurond.text.template import check_template

COMPLETIONS = "completions"
TOOLS = "tools"
REASONING = "reasoning"
RequestT = TypeVar("RequestT", GenerateRequest, EmbedRequest)


class Node:
    """Puts full model ids and profiles in front of the supervisor. One per daemon.

    Attributes:
        config: what the node was started with.
        generation, embedding: serve requests, by full model id.
    """

    def __init__(
        self,
        config: NeuronConfig,
        supervisor: Supervisor,
        profiles: Profiles,
        generation: Generation,
        embedding: Embedding,
    ) -> None:
        self.config = config
        self.generation = generation
        self.embedding = embedding
        self._supervisor = supervisor
        self._profiles = profiles

    @property
    def draining(self) -> bool:
        return self._supervisor.draining

    def discovery(self) -> Discovery:
        return self._supervisor.discovery()

    def health(self) -> Health:
        return self._supervisor.health()

    def models(self) -> ModelsResponse:
        """Return every model on disk, on its way or in memory."""
        models = [self._with_profile(model) for model in self._supervisor.models()]
        return ModelsResponse(self._supervisor.state_version, models)

    def model(self, text: str) -> NodeModel:
        """Return one model by the name a user wrote.

        Raises:
            InvalidRequest: it is no model id.
            ModelNotFound: the node does not know it.
        """
        return self._with_profile(self._supervisor.model(self.config.model_id(text)))

    async def load(self, request: LoadRequest, on_progress: ProgressCallback) -> LoadResponse:
        """See `Supervisor.load`; the profile is completed from the node's own file.

        Raises:
            InvalidRequest: also where the profile's chat template is not valid.
        """
        model_id = self.config.model_id(request.model_id)
        if request.profile.chat_template is not None:
            check_template(request.profile.chat_template, model=model_id)
        completed = self.completed(msgspec.structs.replace(request, model_id=model_id))
        try:
            response = await self._supervisor.load(completed, on_progress)
        except ModelNotFound:
            self._profiles.forget(model_id)
            raise
        self.generation.open_ahead(model_id)  # it may have been fetched only now
        return msgspec.structs.replace(response, model=self._with_profile(response.model))

    def completed(self, request: LoadRequest) -> LoadRequest:
        """Return a load, by full model id, with what holds for the model, which is to be used."""
        completed = self._profiles.for_load(request)
        self.generation.open_ahead(request.model_id)  # with the template of this load
        return completed

    async def unload(self, request: UnloadRequest) -> UnloadResponse:
        """See `Supervisor.unload`."""
        model_id = self.config.model_id(request.model_id)
        return await self._supervisor.unload(msgspec.structs.replace(request, model_id=model_id))

    async def restart_device(self, device: DeviceName, request: RestartRequest) -> RestartResponse:
        """See `Supervisor.restart_device`."""
        await self._supervisor.restart_device(device, request.state_version)
        return RestartResponse(device, self._supervisor.state_version)

    async def count_tokens(self, text: str, request: CountTokensRequest) -> int:
        """Return how many tokens a prompt has for a model that is on disk."""
        return await self.generation.count_tokens(self.config.model_id(text), request)

    def addressed(self, request: RequestT) -> RequestT:
        """Return the request with its model's full id."""
        return msgspec.structs.replace(request, model=self.config.model_id(request.model))

    def _with_profile(self, model: NodeModel) -> NodeModel:
        """A template in the profile makes a model one to chat with, and those can call tools."""
        if COMPLETIONS not in model.capabilities:
            return model
        profile = self._profiles.of(model.id)
        can = dict.fromkeys(model.capabilities)
        if profile.chat_template is not None:
            can[CHAT] = None
        if CHAT in can:
            can[TOOLS] = None
        if profile.tool_parser == "none":
            can.pop(TOOLS, None)
        if profile.reasoning_parser == "none":
            can.pop(REASONING, None)
        parsers = self.generation.parsers_of(model.id)
        return msgspec.structs.replace(
            model,
            capabilities=list(can),
            tool_parser=parsers.tools if parsers is not None else None,
            reasoning_parser=parsers.reasoning if parsers is not None else None,
        )
