"""Engines over the fake runner, and requests for them."""

from cortex_core.canonical import FinishReason, SamplingParams
from cortex_core.ids import RequestId
from neurond.engine.config import SchedulerConfig
from neurond.engine.engine import Engine, EngineRequest, StepOutput
from neurond.engine.images import place_images, token_runs
from tests.fakes.fake_runner import VOCAB_SIZE, FakeRunner, expected_tokens

BLOCK_TOKENS = 4
PLACEHOLDER = 999


def new_engine(
    *,
    num_blocks: int = 64,
    context_tokens: int = 128,
    max_sequences: int = 8,
    step_tokens: int = 16,
    max_waiting: int = 64,
    max_draft_rows: int = 0,
    max_rows: int = 0,
    vocab_size: int = VOCAB_SIZE,
    two_way_tokens: int = 0,
) -> tuple[Engine, FakeRunner]:
    runner = FakeRunner(
        BLOCK_TOKENS, vocab_size, max_tokens=step_tokens, max_sequences=max_sequences
    )
    config = SchedulerConfig(
        num_blocks=num_blocks,
        context_tokens=context_tokens,
        block_tokens=BLOCK_TOKENS,
        max_sequences=max_sequences,
        step_tokens=step_tokens,
        max_waiting=max_waiting,
        max_draft_rows=max_draft_rows,
        max_rows=max_rows,
        two_way_tokens=two_way_tokens,
    )
    return Engine(runner, config), runner


def request(
    stream: int,
    prompt: range | list[int],
    *,
    max_tokens: int = 4,
    n: int = 1,
    sampling: SamplingParams | None = None,
    num_replayed_tokens: int = 0,
    eos_token_ids: tuple[int, ...] = (),
    priority: int = 0,
    principal: str | None = None,
    images: tuple[tuple[bytes, int], ...] = (),
) -> EngineRequest:
    """Return a request whose id and seed follow from its first stream.

    `images` are keys and numbers of tokens `PLACEHOLDER` in the prompt.
    """
    shown = [(key, num_tokens, {}) for key, num_tokens in images]
    return EngineRequest(
        request_id=RequestId(f"r{stream}"),
        first_stream=stream,
        prompt_token_ids=list(prompt),
        sampling=sampling or SamplingParams(),
        max_tokens=max_tokens,
        seed=stream,
        n=n,
        num_replayed_tokens=num_replayed_tokens,
        eos_token_ids=eos_token_ids,
        priority=priority,
        principal=principal,
        images=place_images(list(prompt), PLACEHOLDER, shown) if shown else None,
    )


def alone(
    asked: EngineRequest,
    choice: int = 0,
    vocab_size: int = VOCAB_SIZE,
    *,
    two_way: bool = False,
) -> list[int]:
    """Return the tokens a choice gets if nothing but `max_tokens` ends it."""
    images = asked.images
    return expected_tokens(
        asked.prompt_token_ids,
        num_tokens=asked.max_tokens,
        sampling=asked.sampling,
        seed=asked.seed,
        choice=choice,
        num_replayed_tokens=asked.num_replayed_tokens,
        vocab_size=vocab_size,
        images=images,
        two_way=token_runs(images) if two_way and images is not None else (),
    )


class Told:
    """All that an engine has told, stream by stream and request by request."""

    def __init__(self) -> None:
        self.tokens: dict[int, list[int]] = {}
        self.reasons: dict[int, FinishReason] = {}
        self.cached: dict[RequestId, int] = {}
        self.adopted: dict[RequestId, int] = {}
        self.failed: dict[RequestId, str] = {}

    def take(self, output: StepOutput) -> None:
        """Add a step's output, asserting that nothing comes after an end or twice."""
        for request_id, cached_tokens in output.admitted:
            assert request_id not in self.cached
            self.cached[request_id] = cached_tokens
        for request_id, cached_tokens in output.adopted:
            assert self.cached[request_id] < cached_tokens
            assert request_id not in self.adopted, "it is told once, when it is final"
            self.adopted[request_id] = self.cached[request_id] = cached_tokens
        for stream, token, reason in output.tokens:
            assert stream not in self.reasons
            self.tokens.setdefault(stream, []).append(token.token_id)
            if reason is not None:
                self.reasons[stream] = reason
        for stream, reason in output.finished:
            assert stream not in self.reasons
            self.reasons[stream] = reason
        for request_id, error in output.failed:
            assert request_id not in self.failed
            self.failed[request_id] = error.code


def run(engine: Engine, told: Told | None = None, *, max_steps: int = 500) -> Told:
    """Step until there is no work, checking the books after each step."""
    told = told or Told()
    for _ in range(max_steps):
        if not engine.has_work():
            return told
        told.take(engine.step())
        engine.check()
    raise AssertionError(f"still at work after {max_steps} steps")
