"""The sampling fields that chat and completions requests share, and a few beyond OpenAI's own."""

from collections.abc import Mapping

import msgspec

from cortex_core.canonical import JsonObject, ResponseFormat, SamplingParams
from cortex_core.dialects.fields import as_texts, max_tokens_from, seed_from, top_k_from
from cortex_core.dialects.openai_wire import LeftOut
from cortex_core.dialects.reading import refuse
from cortex_core.sampling_limits import check_sampling


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
    max_tokens: int | None = None
    ignore_eos: bool | None = None
    n: int | None = None
    user: str | None = None
    safety_identifier: str | None = None
    response_format: WireFormat | None = None

    @property
    def include_usage(self) -> bool:
        return bool(self.stream_options and self.stream_options.include_usage)


def sampling_from(
    wire: SharedOptions,
    *,
    max_tokens: int | None,
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
        max_tokens=max_tokens_from(max_tokens),
        ignore_eos=bool(wire.ignore_eos),
        logprobs=logprobs,
        scores_prompt=scores_prompt,
    )
    check_sampling(sampling, names=words, generates=generates)
    return sampling


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
