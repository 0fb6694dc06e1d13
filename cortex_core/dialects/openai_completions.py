"""`POST /v1/completions`: OpenAI's older dialect of plain text."""

from typing import Final, cast

import msgspec

from cortex_core.canonical import (
    MAX_PROMPT_TOKENS,
    GenerateRequest,
    Prompt,
    TextPrompt,
    TokensPrompt,
)
from cortex_core.dialects.base import Decoded, ResponseEncoder
from cortex_core.dialects.fields import checked_model, principal_of
from cortex_core.dialects.openai_completion_answers import CompletionEncoder
from cortex_core.dialects.openai_errors import OpenAIReplies
from cortex_core.dialects.openai_options import (
    SharedOptions,
    response_format_from,
    sampling_from,
)
from cortex_core.dialects.reading import read_json, refuse
from cortex_core.dialects.service_tiers import left_out_tier, tier_from
from cortex_core.ids import ModelId, RequestId
from cortex_core.sampling_limits import check_choices, check_token_ids

MAX_PROMPTS: Final = 64
"""Of one request; each becomes a request of its own, which waits and counts like any other."""


class CompletionBody(SharedOptions, frozen=True, kw_only=True):
    """The body, by its wire names: all that OpenAI documents. Unknown fields are ignored."""

    prompt: str | list[str | int | list[int]]
    logprobs: int | None = None
    best_of: int | None = None
    suffix: str | None = None
    echo: bool | None = None


_decoder = msgspec.json.Decoder(CompletionBody)


class OpenAICompletions(OpenAIReplies):
    """The dialect; stateless, one object serves every request."""

    def decode_request(self, body: bytes, *, request_id: RequestId) -> Decoded:
        """Return the canonical request for a client's body."""
        wire = read_json(_decoder, body)
        n = 1 if wire.n is None else wire.n
        check_choices(n)
        prompts = _prompts(wire.prompt)
        _refuse_what_is_not_served(wire, n, prompts)
        request = GenerateRequest(
            request_id=request_id,
            model=ModelId(checked_model(wire.model)),
            prompt=prompts[0],
            sampling=sampling_from(
                wire,
                max_tokens=wire.max_tokens,
                logprobs=wire.logprobs,
                scores_prompt=bool(wire.echo) and wire.logprobs is not None,
                generates=False,
            ),
            n=n,
            response_format=response_format_from(wire),
            priority=tier_from(wire.service_tier).priority,
            principal=principal_of(wire.safety_identifier or wire.user),
        )
        return Decoded(
            request=request,
            model=wire.model,
            stream=bool(wire.stream),
            include_usage=wire.include_usage,
            ignored=left_out_tier(wire.service_tier),
            further_prompts=tuple(prompts[1:]),
            echo=bool(wire.echo),
        )

    def encoder(self, decoded: Decoded, *, created: int) -> ResponseEncoder:
        """Return a new encoder for one response."""
        return CompletionEncoder(decoded, created=created)


def _refuse_what_is_not_served(wire: CompletionBody, n: int, prompts: list[Prompt]) -> None:
    if wire.suffix:
        raise refuse("suffix", "not supported; put the text after the gap into the prompt")
    if wire.best_of is not None and wire.best_of > n:
        raise refuse("best_of", "not supported; ask for n choices and pick one")
    if wire.best_of is not None and wire.best_of < 1:
        raise refuse("best_of", f"expected 1 or more, got {wire.best_of}")
    is_text = all(isinstance(prompt, TextPrompt) for prompt in prompts)
    if wire.echo and wire.logprobs is None and not is_text:
        raise refuse("echo", "needs a prompt that is text, or logprobs: ids alone have no text")


def _prompts(wire: str | list[str | int | list[int]]) -> list[Prompt]:
    if isinstance(wire, str):
        return [_text_prompt(wire, "prompt")]
    if set(map(type, wire)) == {int}:
        return [_tokens_prompt(cast("list[int]", wire), "prompt")]
    if not 1 <= len(wire) <= MAX_PROMPTS:
        raise refuse("prompt", f"expected 1 to {MAX_PROMPTS} prompts, got a list of {len(wire)}")
    return [_one_of_several(each, f"prompt[{place}]") for place, each in enumerate(wire)]


def _one_of_several(wire: str | int | list[int], place: str) -> Prompt:
    if isinstance(wire, int):
        raise refuse(place, "expected a prompt like the others, got a token id")
    return _text_prompt(wire, place) if isinstance(wire, str) else _tokens_prompt(wire, place)


def _text_prompt(text: str, place: str) -> TextPrompt:
    if not text:
        raise refuse(place, "expected some text, got an empty one")
    return TextPrompt(text)


def _tokens_prompt(token_ids: list[int], place: str) -> TokensPrompt:
    if not token_ids:
        raise refuse(place, "expected token ids, got an empty list")
    if len(token_ids) > MAX_PROMPT_TOKENS:
        why = f"expected at most {MAX_PROMPT_TOKENS} token ids, got {len(token_ids)}"
        raise refuse(place, why)
    check_token_ids(token_ids, param=place)
    return TokensPrompt(tuple(token_ids))
