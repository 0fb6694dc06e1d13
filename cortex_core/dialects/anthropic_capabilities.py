"""What a model can do, in the words of Anthropic's models list."""

from collections.abc import Collection

import msgspec


class Support(msgspec.Struct, frozen=True):
    supported: bool


class ServerToolsSupport(Support, frozen=True):
    code_execution: Support
    web_search: Support


class EffortSupport(Support, frozen=True):
    low: Support
    medium: Support
    high: Support
    max: Support


class ThinkingTypes(msgspec.Struct, frozen=True):
    adaptive: Support
    between_tools: Support
    disabled: Support
    enabled: Support


class ThinkingSupport(Support, frozen=True):
    types: ThinkingTypes


class ModelCapabilities(msgspec.Struct, frozen=True, kw_only=True):
    """Every member that the API has; what only its own servers do is not supported."""

    batch: Support
    citations: Support
    code_execution: Support
    context_management: Support
    effort: EffortSupport
    image_input: Support
    pdf_input: Support
    server_tools: ServerToolsSupport
    structured_outputs: Support
    thinking: ThinkingSupport


def capabilities_of(words: Collection[str]) -> ModelCapabilities:
    """Return them for a model whose abilities are `words` of `NodeModel.capabilities`."""
    no, thinks = Support(False), Support("reasoning" in words)
    return ModelCapabilities(
        batch=no,
        citations=no,
        code_execution=no,
        context_management=no,
        effort=EffortSupport(thinks.supported, thinks, thinks, thinks, thinks),
        image_input=Support("vision" in words),
        pdf_input=no,
        server_tools=ServerToolsSupport(False, no, no),
        structured_outputs=Support("completions" in words),
        thinking=ThinkingSupport(
            thinks.supported,
            ThinkingTypes(adaptive=thinks, between_tools=no, disabled=thinks, enabled=thinks),
        ),
    )
