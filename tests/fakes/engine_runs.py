"""Engines over real runners, of any size, and running requests on them to the end."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count

from cortex_core.canonical import FinishReason, SamplingParams
from neurond.attention.base import AttentionBackend
from neurond.attention.reference import ReferenceBackend
from neurond.engine.batch import SampledToken
from neurond.engine.config import SchedulerConfig
from neurond.engine.engine import Engine, EngineRequest
from neurond.engine.kv_cache import KvCache
from neurond.engine.runner import ModelRunner
from neurond.models.loader import LoadedModel

GREEDY = SamplingParams(temperature=0.0, ignore_eos=True)
SAMPLED = SamplingParams(temperature=1.3, top_p=0.95, top_k=100, min_p=0.001, ignore_eos=True)


@dataclass
class EngineUnderTest:
    """An engine with a counter for streams, and what it said."""

    engine: Engine
    streams: count = field(default_factory=count)
    cached_tokens: list[int] = field(default_factory=list)
    reasons: dict[int, FinishReason] = field(default_factory=dict)
    scores: dict[int, list[SampledToken]] = field(default_factory=dict)

    def submit(
        self,
        prompt: Sequence[int],
        max_tokens: int,
        sampling: SamplingParams = GREEDY,
        *,
        seed: int = 7,
        replayed: Sequence[int] = (),
        **more: object,
    ) -> int:
        """Queue one choice; return its stream. `more` is of `EngineRequest`."""
        stream = next(self.streams)
        self.engine.add(
            EngineRequest(
                request_id=f"request-{stream}",
                first_stream=stream,
                prompt_token_ids=[*prompt, *replayed],
                num_replayed_tokens=len(replayed),
                sampling=sampling,
                max_tokens=max_tokens,
                seed=seed,
                **more,
            )
        )
        return stream

    def finish(self) -> dict[int, list[SampledToken]]:
        """Step until nothing is left to do; return the tokens of each stream."""
        tokens: dict[int, list[SampledToken]] = {}
        while self.engine.has_work():
            output = self.engine.step()
            assert not output.failed, output.failed
            self.cached_tokens += [cached for _, cached in output.admitted]
            for stream, token in output.scores:
                self.scores.setdefault(stream, []).append(token)
            for stream, token, reason in output.tokens:
                tokens.setdefault(stream, []).append(token)
                if reason is not None:
                    self.reasons[stream] = reason
        self.engine.check()
        return tokens

    def finish_one(self, prompt: Sequence[int], sampling: SamplingParams) -> SampledToken:
        """Run one choice alone, of one token; return that."""
        stream = self.submit(prompt, 1, sampling)
        return self.finish()[stream][0]

    def generate(
        self,
        prompt: Sequence[int],
        max_tokens: int,
        sampling: SamplingParams = GREEDY,
        *,
        seed: int = 7,
        replayed: Sequence[int] = (),
    ) -> list[int]:
        """Run one choice alone; return its token ids."""
        stream = self.submit(prompt, max_tokens, sampling, seed=seed, replayed=replayed)
        return ids(self.finish()[stream])


def ids(tokens: Sequence[SampledToken]) -> list[int]:
    return [token.token_id for token in tokens]


def make_engine(
    loaded: LoadedModel,
    *,
    num_blocks: int = 256,
    block_tokens: int = 8,
    max_sequences: int = 8,
    step_tokens: int = 512,
    context_tokens: int = 512,
    max_draft_rows: int = 0,
    max_rows: int = 0,
    backend: AttentionBackend | None = None,
    two_way_tokens: int | None = None,
) -> EngineUnderTest:
    """Return an engine over `loaded` with a KV cache of its own."""
    cache = KvCache(
        [layer.shape for layer in loaded.layers],
        num_blocks=num_blocks,
        block_tokens=block_tokens,
        dtype=loaded.dtype,
        device=loaded.device.torch_device,
    )
    device = loaded.device.torch_device
    backend = backend or ReferenceBackend()
    runner = ModelRunner(loaded.model, device, backend, cache, loaded.vision)
    if two_way_tokens is None:
        two_way_tokens = loaded.vision.two_way_tokens if loaded.vision is not None else 0
    config = SchedulerConfig(
        num_blocks=num_blocks,
        context_tokens=context_tokens,
        block_tokens=block_tokens,
        max_sequences=max_sequences,
        step_tokens=step_tokens,
        max_draft_rows=max_draft_rows,
        max_rows=max_rows,
        two_way_tokens=two_way_tokens,
    )
    return EngineUnderTest(Engine(runner, config))
