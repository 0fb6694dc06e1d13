"""A runner that reads its tokens off a script instead of computing them.

The next token is a function of prompt and output so far, as a real model's is. So an answer is the
same after preemption, in any company, and where another node goes on with it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final

from tokenizers import Tokenizer

from cortex_core.errors import ErrorInfo, InvalidRequest
from neurond.engine.batch import Row, SampledToken, ScheduledBatch
from neurond.engine.masks import masks_of
from neurond.sources.script import Script

KEPT_ANSWERS: Final = 1024
"""Of streams that may still be running; one that was dropped is found again."""


class ScriptedRunner:
    """Runs one script. Called from the actor's one thread, which it keeps as a device would."""

    def __init__(
        self,
        script: Script,
        tokenizer: Tokenizer,
        end: int,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`end` is the token behind each answer; `sleep` takes seconds."""
        self._script = script
        self._tokenizer = tokenizer
        self._end = end
        self._end_text = tokenizer.decode([end], skip_special_tokens=False)
        self._sleep = sleep
        self._answers: dict[int, list[int] | ErrorInfo] = {}

    def execute(self, batch: ScheduledBatch) -> Sequence[SampledToken | ErrorInfo]:
        """See `Runner.execute`."""
        self._sleep(self._duration_s(batch))
        masks = masks_of(batch.rows)
        chosen = [self._choose(row) for row in batch.rows]
        for index, mask in enumerate(masks.allowed):
            token = chosen[index]
            if mask is not None and isinstance(token, SampledToken):
                word, bit = divmod(token.token_id, 32)
                if not mask[word] >> bit & 1 and self._says(batch.rows[index]):
                    chosen[index] = self._outside(token.token_id)
        return masks.settle(chosen)

    def _duration_s(self, batch: ScheduledBatch) -> float:
        script, seconds = self._script, 0.0
        if script.prompt_tokens_per_second is not None:
            seconds += (batch.num_tokens - batch.num_decodes) / script.prompt_tokens_per_second
        if script.tokens_per_second is not None and batch.num_decodes:
            seconds += 1 / script.tokens_per_second
        return seconds

    def _choose(self, row: Row) -> SampledToken | ErrorInfo:
        if row.scored is not None:
            top = ((row.scored, 0.0),) if row.sampling.logprobs else ()
            return SampledToken(row.scored, 0.0, top)
        answer = self._answer(row)
        if isinstance(answer, ErrorInfo):
            return answer
        place = row.num_output_tokens
        token = answer[place] if place < len(answer) else self._end
        wanted = row.sampling.logprobs
        if wanted is None:
            return SampledToken(token)
        return SampledToken(token, 0.0, ((token, 0.0),) if wanted else ())

    def _answer(self, row: Row) -> list[int] | ErrorInfo:
        known = self._answers.get(row.stream)
        if known is None:
            if len(self._answers) >= KEPT_ANSWERS:
                del self._answers[next(iter(self._answers))]
            prompt = row.token_ids[: row.num_prompt_tokens].tolist()
            known = self._answers[row.stream] = self._find(prompt)
        return known

    def _says(self, row: Row) -> bool:
        """Tell whether the script has what was drafted; else nobody uses the row's token."""
        start, drafts = row.num_output_tokens - len(row.drafts), list(row.drafts)
        answer = self._answer(row)
        return isinstance(answer, list) and answer[start : start + len(drafts)] == drafts

    def _find(self, prompt: list[int]) -> list[int] | ErrorInfo:
        text = self._tokenizer.decode(prompt, skip_special_tokens=False)
        answer = self._script.answer(text, self._end_text)
        if answer is None:
            return InvalidRequest(
                "cannot answer: no rule of the model's script holds for the prompt; add one "
                "without conditions at its end"
            ).info()
        ids: list[int] = self._tokenizer.encode(answer, add_special_tokens=False).ids
        return ids

    def _outside(self, token_id: int) -> ErrorInfo:
        token = self._tokenizer.id_to_token(token_id)
        return InvalidRequest(
            f"cannot go on with {token!r}, which the model's script has next: the answer would "
            "leave the form that the request holds it to"
        ).info()
