"""The sampling fields that chat and completions requests share, and a few beyond OpenAI's own."""

from collections.abc import Mapping

import msgspec

from cortex_core.canonical import JsonObject, ResponseFormat, SamplingParams
from cortex_core.dialects.fields import as_texts, max_tokens_from, seed_from, top_k_from
from cortex_core.dialects.openai_wire import LeftOut
from cortex_core.dialects.reading import refuse
from cortex_core.sampling_limits import check_sampling

TokenLimit = int | float | None
"""Also 4096.0, as clients in JavaScript send it, and -1, llama.cpp's word for no limit."""


class StreamOptions(msgspec.Struct, frozen=True):
    include_usage: bool | None = None
    include_obfuscation: LeftOut = None


class JsonSchemaFormat(msgspec.Struct, frozen=True):
    schema: JsonObject | None = None
    strict: bool | None = None
    name: LeftOut = None
    description: LeftOut = None


class TextFormat(msgspec.Struct, frozen=True, tag="text"):
    pass


class JsonObjectFormat(msgspec.Struct, frozen=True, tag="json_object"):
    pass


class JsonSchemaResponse(msgspec.Struct, frozen=True, tag="json_schema"):
    json_schema: JsonSchemaFormat


class RegexFormat(msgspec.Struct, frozen=True, tag="regex"):
    """Beyond OpenAI's own: the whole answer matches."""

    regex: str


class GrammarFormat(msgspec.Struct, frozen=True, tag="grammar"):
    """Beyond OpenAI's own: Lark's notation, with `start` as the rule of the answer."""

    grammar: str


WireFormat = TextFormat | JsonObjectFormat | JsonSchemaResponse | RegexFormat | GrammarFormat


class SharedOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Fields of the wire, by their wire names. Null is the same as absent."""

    model: str
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: dict[int, float] | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    stop_token_ids: list[int] | None = None
    max_tokens: TokenLimit = None
    ignore_eos: bool | None = None
    n: int | None = None
    user: str | None = None
    safety_identifier: str | None = None
    service_tier: str | None = None
    response_format: WireFormat | None = None

    @property
    def include_usage(self) -> bool:
        return bool(self.stream_options and self.stream_options.include_usage)


def sampling_from(
    wire: SharedOptions,
    *,
    max_tokens: TokenLimit,
    logprobs: int | None,
    words: Mapping[str, str] | None = None,
    scores_prompt: bool = False,
    generates: bool = True,
) -> SamplingParams:
    """Return checked sampling parameters.

    `logprobs` is the canonical count; `words` names the fields that `max_tokens` and `logprobs`
    came from, where they differ; `generates` refuses to make no tokens.

    Raises:
        InvalidRequest: a value is out of its range.
    """
    place = (words or {}).get("max_tokens", "max_tokens")
    sampling = SamplingParams(
        temperature=wire.temperature,
        top_p=wire.top_p,
        top_k=top_k_from(wire.top_k),
        min_p=wire.min_p,
        repetition_penalty=wire.repetition_penalty,
        presence_penalty=wire.presence_penalty or 0.0,
        frequency_penalty=wire.frequency_penalty or 0.0,
        logit_bias=wire.logit_bias or {},
        seed=seed_from(wire.seed),
        stop=as_texts(wire.stop),
        stop_token_ids=tuple(wire.stop_token_ids or ()),
        max_tokens=max_tokens_from(whole_limit(max_tokens, place=place)),
        ignore_eos=bool(wire.ignore_eos),
        logprobs=logprobs,
        scores_prompt=scores_prompt,
    )
    check_sampling(sampling, names=words, generates=generates)
    return sampling


def whole_limit(limit: TokenLimit, *, place: str) -> int | None:
    """Return a limit of tokens as a whole number, None where there is none.

    Raises:
        InvalidRequest: naming `place`, where it is no whole number.
    """
    if limit is None or limit == -1:
        return None
    if isinstance(limit, float) and not limit.is_integer():
        raise refuse(place, f"expected a whole number, got {limit}")
    return int(limit)


def response_format_from(wire: SharedOptions) -> ResponseFormat | None:
    """Return the form the answer is held to, as chat and completions ask for it.

    Raises:
        InvalidRequest: `json_schema` comes without a schema.
    """
    return format_from(wire.response_format, schema_place="response_format.json_schema.schema")


def format_from(wire: WireFormat | None, *, schema_place: str) -> ResponseFormat | None:
    """Return the form that `wire` asks for; `text` is no form.

    Raises:
        InvalidRequest: naming `schema_place`, where `json_schema` comes without a schema.
    """
    match wire:
        case JsonObjectFormat():
            return ResponseFormat(kind="json_object")
        case JsonSchemaResponse(json_schema=wanted):
            if wanted.schema is None:
                raise refuse(schema_place, "this field is required")
            strict = wanted.strict is not False
            return ResponseFormat(kind="json_schema", schema=wanted.schema, strict=strict)
        case RegexFormat(regex=regex):
            return ResponseFormat(kind="regex", text=regex)
        case GrammarFormat(grammar=grammar):
            return ResponseFormat(kind="grammar", text=grammar)
        case _:
            return None
