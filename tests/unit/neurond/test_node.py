"""What a load does besides having the supervisor load."""

from cortex_core.ids import ModelId
from cortex_core.neuron_api import LoadProgress, LoadRequest, LoadResponse, ModelProfile, NodeModel
from neurond.config import NeuronConfig
from neurond.node import Node
from neurond.profiles import Profiles

MODEL = ModelId("pypi:made")


class Recorder:
    """Supervisor and generation; takes note of the order, and of the template that holds then."""

    def __init__(self, profiles: Profiles) -> None:
        self._profiles = profiles
        self.seen: list[tuple[str, str | None]] = []

    def _note(self, what: str, model_id: ModelId) -> None:
        self.seen.append((what, self._profiles.of(model_id).chat_template))

    def open_ahead(self, model_id: ModelId) -> None:
        self._note("open", model_id)

    async def load(self, request: LoadRequest, _on_progress: object) -> LoadResponse:
        self._note("load", request.model_id)
        return LoadResponse(NodeModel(request.model_id, "torch", "ready"), False, 2)


def ignore(_progress: LoadProgress) -> None: ...


async def test_a_tokenizer_is_opened_with_a_load_and_again_when_that_has_fetched_it() -> None:
    profiles = Profiles({})
    parts = Recorder(profiles)
    node = Node(NeuronConfig(), parts, profiles, parts, parts)  # type: ignore[arg-type]
    await node.load(LoadRequest(MODEL, profile=ModelProfile(chat_template="t")), ignore)
    assert parts.seen == [("open", "t"), ("load", "t"), ("open", "t")]
