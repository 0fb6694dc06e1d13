"""Log probabilities of a prompt's tokens, on their way from the engine to events. Pure."""

from collections.abc import Sequence

import msgspec

from cortex_core.canonical import (
    GenerateRequest,
    PromptScored,
    SamplingParams,
    TokenLogprob,
    TokensPrompt,
)
from neurond.stream_items import PromptToken, Token
from neurond.text.parsed_choice import logprobs_of, token_logprob
from neurond.text.pieces import TokenPieces


class PromptScores:
    """Gathers the scores of one request.

    Args:
        request: a request that is continued has had its scores.
        pieces: of the model's tokenizer.
    """

    def __init__(self, request: GenerateRequest, pieces: TokenPieces) -> None:
        self._wanted = engine_sampling(request).scores_prompt
        self._tells_text = isinstance(request.prompt, TokensPrompt)
        self._pieces = pieces
        self._scores: list[TokenLogprob] = []

    def first(self, prompt_token_ids: Sequence[int]) -> list[PromptScored]:
        """Return what is said of the prompt's first token, where scores are wanted."""
        if not self._wanted:
            return []
        token_id = prompt_token_ids[0]
        score = token_logprob(token_id, 0.0, self._pieces)
        text = self._pieces.text(prompt_token_ids) if self._tells_text else ""
        return [PromptScored(0, (score,), text)]

    def take(self, scored: PromptToken) -> None:
        """Take the next token's score."""
        token = Token(0, scored.token_id, scored.logprob, scored.top)
        self._scores += logprobs_of(token, self._pieces)

    def told(self) -> list[PromptScored]:
        """Return what was taken and not returned yet."""
        if not self._scores:
            return []
        scores, self._scores = tuple(self._scores), []
        return [PromptScored(0, scores)]


def engine_sampling(request: GenerateRequest) -> SamplingParams:
    """Return what the engine is told; it scores the prompt where that is wanted, and still is."""
    sampling = request.sampling
    may = sampling.logprobs is not None and request.continue_from is None
    if may or not sampling.scores_prompt:
        return sampling
    return msgspec.structs.replace(sampling, scores_prompt=False)
