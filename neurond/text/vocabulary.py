"""Token ids that a client wrote, against the model's vocabulary. Pure.

They go to the engine as they are, where one outside of the vocabulary would fail the step of
everybody whose request is in the same batch.
"""

from collections.abc import Collection

from cortex_core.canonical import SamplingParams
from cortex_core.errors import InvalidRequest


def check_token_ids(token_ids: Collection[int], vocab_size: int, *, param: str) -> None:
    """Raise `InvalidRequest`, naming `param`, unless every id is in the vocabulary."""
    if not token_ids or (min(token_ids) >= 0 and max(token_ids) < vocab_size):
        return
    wrong = next(id_ for id_ in token_ids if not 0 <= id_ < vocab_size)
    raise InvalidRequest(
        f"cannot use {param}: token id {wrong} is not in the vocabulary of {vocab_size}",
        param=param,
    )


def check_sampled_ids(sampling: SamplingParams, vocab_size: int) -> None:
    """Raise `InvalidRequest` unless the tokens that sampling is to treat in a special way exist."""
    check_token_ids(sampling.stop_token_ids, vocab_size, param="stop_token_ids")
    check_token_ids(sampling.logit_bias, vocab_size, param="logit_bias")
