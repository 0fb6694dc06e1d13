"""The contract fixtures beside the tests."""

import json
from pathlib import Path
from typing import Any

from cortex_core.dialects.anthropic_messages import AnthropicMessages
from cortex_core.dialects.base import Dialect
from cortex_core.dialects.openai_chat import OpenAIChat
from cortex_core.dialects.openai_completions import OpenAICompletions
from cortex_core.dialects.openai_responses import DecodedResponse, OpenAIResponses
from cortex_core.ids import RequestId


class Responses(OpenAIResponses):
    """Both steps of reading in one, where nothing is stored."""

    def decode_request(self, body: bytes, *, request_id: RequestId) -> DecodedResponse:
        return self.decode(self.read(body), request_id=request_id)


FOLDER = Path(__file__).parent / "fixtures"
DIALECTS: dict[str, Dialect] = {
    "openai_chat": OpenAIChat(),
    "openai_completions": OpenAICompletions(),
    "openai_responses": Responses(),
    "anthropic_messages": AnthropicMessages(),
}


def names(kind: str) -> list[str]:
    return sorted(path.stem for path in (FOLDER / kind).glob("*.json"))


def fixture(kind: str, name: str) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((FOLDER / kind / f"{name}.json").read_text("utf-8"))
    return read


def bad_requests() -> list[tuple[str, dict[str, Any]]]:
    groups = json.loads((FOLDER / "bad_requests.json").read_text("utf-8"))
    shared = groups.pop("any")
    return [(name, case) for name in DIALECTS for case in [*shared, *groups[name]]]
