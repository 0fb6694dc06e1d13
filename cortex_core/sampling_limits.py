"""The ranges of sampling parameters, checked once, where a request is decoded."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from cortex_core.canonical import SamplingParams
from cortex_core.errors import InvalidRequest
from cortex_core.sizes import MAX_COUNT

MAX_CHOICES: Final = 16
MAX_LOGPROBS: Final = 20
MAX_STOP_TEXTS: Final = 64
MAX_STOP_CHARS: Final = 1024
MAX_LOGIT_BIASES: Final = 4096
MAX_TOKEN_ID: Final = 2**31 - 1
MAX_SEED: Final = 2**64 - 1
MAX_SHOWN_CHARS: Final = 40

Check = tuple[str, Callable[[float], bool], str]

_RANGES: Final[tuple[Check, ...]] = (
    ("temperature", lambda value: 0 <= value < math.inf, "0 or more"),
    ("top_p", lambda value: 0 < value <= 1, "over 0 and at most 1"),
    ("top_k", lambda value: 1 <= value <= MAX_COUNT, "1 or more"),
    ("min_p", lambda value: 0 <= value <= 1, "0 to 1"),
    ("repetition_penalty", lambda value: 0 < value < math.inf, "over 0"),
    ("presence_penalty", lambda value: -2 <= value <= 2, "-2 to 2"),
    ("frequency_penalty", lambda value: -2 <= value <= 2, "-2 to 2"),
    ("seed", lambda value: 0 <= value <= MAX_SEED, "0 to 2^64 - 1"),
    ("logprobs", lambda value: 0 <= value <= MAX_LOGPROBS, f"0 to {MAX_LOGPROBS}"),
)


def check_sampling(
    sampling: SamplingParams,
    *,
    names: Mapping[str, str] | None = None,
    generates: bool = False,
) -> None:
    """Check every range that `SamplingParams` documents.

    Args:
        generates: the dialect has no requests for no tokens.
        names: field of `SamplingParams` to the client's own word for it, where they differ.

    Raises:
        InvalidRequest: `param` is the client's word for the first field out of range.
    """
    words = names or {}
    for field, holds, expected in _RANGES:
        value = getattr(sampling, field)
        if value is not None and not holds(value):
            raise _out_of_range(words.get(field, field), value, expected)
    least, most = int(generates), sampling.max_tokens
    if most is not None and not least <= most <= MAX_COUNT:
        raise _out_of_range(words.get("max_tokens", "max_tokens"), most, f"{least} or more")
    _check_stops(sampling, words.get("stop", "stop"))
    _check_token_ids(sampling, words)


def check_choices(n: int, *, param: str = "n") -> None:
    """Raise `InvalidRequest` unless `n` choices can be asked for."""
    if not 1 <= n <= MAX_CHOICES:
        raise _out_of_range(param, n, f"1 to {MAX_CHOICES}")


def check_token_ids(token_ids: Sequence[int], *, param: str) -> None:
    """Raise `InvalidRequest` unless each of `token_ids` can be one in some vocabulary.

    There may be millions of them: only a wrong one is looked for.
    """
    if not token_ids or (min(token_ids) >= 0 and max(token_ids) <= MAX_TOKEN_ID):
        return
    place = next(i for i, token_id in enumerate(token_ids) if not _is_token_id(token_id))
    raise _no_token_id(f"{param}[{place}]", token_ids[place])


def _is_token_id(token_id: int) -> bool:
    return 0 <= token_id <= MAX_TOKEN_ID


def _no_token_id(param: str, token_id: int) -> InvalidRequest:
    return _out_of_range(param, token_id, "a token id, 0 or more")


def _check_stops(sampling: SamplingParams, word: str) -> None:
    if len(sampling.stop) > MAX_STOP_TEXTS:
        raise _out_of_range(word, f"{len(sampling.stop)} texts", f"at most {MAX_STOP_TEXTS}")
    for place, text in enumerate(sampling.stop):
        if not 1 <= len(text) <= MAX_STOP_CHARS:
            got = f"a text of {len(text)} characters"
            raise _out_of_range(f"{word}[{place}]", got, f"1 to {MAX_STOP_CHARS}")


def _check_token_ids(sampling: SamplingParams, words: Mapping[str, str]) -> None:
    check_token_ids(sampling.stop_token_ids, param=words.get("stop_token_ids", "stop_token_ids"))
    word = words.get("logit_bias", "logit_bias")
    if len(sampling.logit_bias) > MAX_LOGIT_BIASES:
        got = f"{len(sampling.logit_bias)} entries"
        raise _out_of_range(word, got, f"at most {MAX_LOGIT_BIASES}")
    for token_id, bias in sampling.logit_bias.items():
        if not _is_token_id(token_id):
            raise _no_token_id(word, token_id)
        if not -100 <= bias <= 100:
            raise _out_of_range(f"{word}[{token_id}]", bias, "-100 to 100")


def _out_of_range(param: str, value: object, expected: str) -> InvalidRequest:
    got = str(value)
    shown = got if len(got) <= MAX_SHOWN_CHARS else f"{got[:MAX_SHOWN_CHARS]}..."
    return InvalidRequest(
        f"cannot read request: {param}: expected {expected}, got {shown}", param=param
    )
