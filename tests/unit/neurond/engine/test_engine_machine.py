"""Whatever happens around it, a stream's tokens are those it would get alone; and all ends.

A state machine adds, cancels, finishes, pauses and resumes requests between steps, over pools
from roomy to so small that sequences put each other out all the time.
"""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from cortex_core.canonical import SamplingParams
from cortex_core.errors import ContextLengthExceeded, ErrorInfo, OutOfMemory, QueueFull
from neurond.engine.engine import EngineRequest
from tests.fakes.fake_runner import VOCAB_SIZE
from tests.unit.neurond.engine.engines import PLACEHOLDER, Told, alone, new_engine, request

SAMPLINGS = (
    SamplingParams(),
    SamplingParams(frequency_penalty=0.5),
    SamplingParams(stop_token_ids=(1, 2)),
    SamplingParams(ignore_eos=True),
)
EOS_TOKEN_IDS = (VOCAB_SIZE - 1,)
# Few beginnings, so that prompts share blocks, and of all lengths around the block size.
TAILS = st.lists(st.integers(0, 2), min_size=1, max_size=3)
PROMPTS = st.builds(
    lambda beginning, length, tail: [*([beginning] * length), *tail],
    st.integers(0, 1),
    st.integers(0, 30),
    TAILS,
)
MOST_OF_AN_IMAGE = 7
IMAGES = st.lists(
    st.tuples(st.sampled_from((b"a", b"b")), st.integers(1, MOST_OF_AN_IMAGE), st.integers(1, 6)),
    max_size=2,
)
"""Key and number of placeholders, and so many tokens of text behind them."""


class EngineMachine(RuleBasedStateMachine):
    """`asked` maps each stream to its request and choice; `told` is all that came back."""

    def __init__(self) -> None:
        super().__init__()
        self.told = Told()
        self.asked: dict[int, tuple[EngineRequest, int]] = {}
        self.cancelled: set[int] = set()
        self.stopped: set[int] = set()
        self.next_stream = 0

    @initialize(
        num_blocks=st.integers(1, 20),
        max_sequences=st.integers(1, 6),
        extra=st.integers(0, 14),
        max_draft_rows=st.sampled_from((0, 6, 12)),
        vocab_size=st.sampled_from((VOCAB_SIZE, 2)),  # of 2 tokens half of the drafts come true
        two_way=st.booleans(),
    )
    def start(
        self,
        num_blocks: int,
        max_sequences: int,
        extra: int,
        max_draft_rows: int,
        vocab_size: int,
        *,
        two_way: bool,
    ) -> None:
        self.vocab_size = vocab_size
        self.two_way = two_way
        two_way_tokens = MOST_OF_AN_IMAGE if two_way else 0
        self.engine, self.runner = new_engine(
            num_blocks=num_blocks,
            context_tokens=56,
            max_sequences=max_sequences,
            step_tokens=max_sequences + two_way_tokens + extra,
            max_waiting=8,
            max_draft_rows=max_draft_rows,
            vocab_size=vocab_size,
            two_way_tokens=two_way_tokens,
        )
        self.limit_tokens = min(56, num_blocks * 4)

    @rule(
        text=PROMPTS,
        images=IMAGES,
        n=st.integers(1, 3),
        max_tokens=st.integers(1, 24),
        num_replayed_tokens=st.integers(0, 4),
        sampling=st.sampled_from(SAMPLINGS),
        priority=st.integers(0, 1),
        principal=st.sampled_from((None, "a", "b")),
    )
    def add(self, text, images, n, max_tokens, num_replayed_tokens, sampling, priority, principal):
        prompt = []
        for _, num_placeholders, num_behind in images:
            prompt += [PLACEHOLDER] * num_placeholders + [0] * num_behind
        # Images come first, in the middle and, but for the tail, last.
        prompt = [*text[:-4], *prompt, *text[-4:]]
        asked = request(
            self.next_stream,
            prompt,
            n=n,
            max_tokens=max_tokens,
            num_replayed_tokens=min(num_replayed_tokens, len(text[-4:]) - 1),
            images=tuple((key, num_placeholders) for key, num_placeholders, _ in images),
            sampling=sampling,
            eos_token_ids=EOS_TOKEN_IDS,
            priority=priority,
            principal=principal,
        )
        self.next_stream += n
        try:
            self.engine.add(asked)
        except (ContextLengthExceeded, OutOfMemory):
            assert len(prompt) >= self.limit_tokens
        except QueueFull:
            assert self.engine.num_waiting > 0
        else:
            for choice in range(n):
                self.asked[asked.first_stream + choice] = (asked, choice)

    @rule(
        num_steps=st.integers(1, 8),
        seconds=st.sampled_from((0.0, 1e-4, 0.02, 10.0)),
        decoding_elsewhere=st.sampled_from(((), (0,), (1, 0))),
    )
    def step(self, num_steps: int, seconds: float, decoding_elsewhere: tuple[int, ...]) -> None:
        for _ in range(num_steps):
            self.take_step(decoding_elsewhere)
            self.engine.took(seconds)

    @rule(text=PROMPTS, max_tokens=st.integers(1, 24))
    def outrank(self, text: list[int], max_tokens: int) -> None:
        """Add one of a priority that nobody has: it waits for a step without prompts at most."""
        priority = 2 + self.next_stream
        asked = request(
            self.next_stream,
            text,
            max_tokens=max_tokens,
            eos_token_ids=EOS_TOKEN_IDS,
            priority=priority,
        )
        self.next_stream += 1
        try:
            self.engine.add(asked)
        except (OutOfMemory, QueueFull):
            return
        self.asked[asked.first_stream] = (asked, 0)
        for _ in range(2):
            self.take_step()
            self.engine.took(0.02)
        has_begun = asked.request_id in self.told.cached
        assert has_begun or asked.request_id in self.told.failed

    @rule(data=st.data())
    @precondition(lambda self: self.asked)
    def cancel(self, data: st.DataObject) -> None:
        asked, _ = self.asked[data.draw(st.sampled_from(sorted(self.asked)))]
        streams = range(asked.first_stream, asked.first_stream + asked.n)
        self.cancelled |= {stream for stream in streams if not self.has_ended(stream)}
        self.engine.cancel(asked.request_id)
        self.take_step()
        assert all(self.has_ended(stream) for stream in streams)

    @rule(data=st.data())
    @precondition(lambda self: self.asked)
    def finish(self, data: st.DataObject) -> None:
        stream = data.draw(st.sampled_from(sorted(self.asked)))
        if not self.has_ended(stream):
            self.stopped.add(stream)
        self.engine.finish(stream)
        self.take_step()
        assert self.has_ended(stream)

    @rule(data=st.data())
    @precondition(lambda self: self.asked)
    def pause(self, data: st.DataObject) -> None:
        stream = data.draw(st.sampled_from(sorted(self.asked)))
        self.engine.pause(stream)
        before = len(self.told.tokens.get(stream, ()))
        self.take_step()
        assert len(self.told.tokens.get(stream, ())) == before

    @rule(data=st.data())
    @precondition(lambda self: self.asked)
    def resume(self, data: st.DataObject) -> None:
        self.engine.resume(data.draw(st.sampled_from(sorted(self.asked))))

    @rule(data=st.data())
    @precondition(lambda self: self.engine.num_running > 2)
    def fail_row(self, data: st.DataObject) -> None:
        live = [stream for stream in sorted(self.asked) if not self.has_ended(stream)]
        stream = data.draw(st.sampled_from(live))
        self.runner.failing_streams[stream] = ErrorInfo("internal_error", "cannot sample: NaN")

    @rule()
    @precondition(lambda self: self.engine.num_waiting > 2)
    def fail_step(self) -> None:
        computed = self.runner.num_computed_tokens
        self.runner.raise_next = OutOfMemory("cannot compute the step: no memory")
        output = self.engine.step()
        self.told.take(output)
        assert output.failed
        assert not output.tokens
        assert self.runner.num_computed_tokens == computed

    @invariant()
    def books_are_right(self) -> None:
        self.engine.check()

    @invariant()
    def tokens_are_those_of_a_stream_alone(self) -> None:
        for stream, tokens in self.told.tokens.items():
            asked, choice = self.asked[stream]
            expected = alone(asked, choice, self.vocab_size, two_way=self.two_way)
            assert tokens == expected[: len(tokens)]

    def teardown(self) -> None:
        # Paused streams hold up nobody; when they are resumed they end as well.
        self.run_dry()
        for stream in self.asked:
            self.engine.resume(stream)
        self.run_dry()
        assert self.engine.scheduler.num_available_blocks == self.engine.scheduler.config.num_blocks
        for stream in self.asked:
            self.check_end(stream)

    def take_step(self, decoding_elsewhere: tuple[int, ...] = ()) -> None:
        had_work = self.engine.has_work()
        output = self.engine.step(decoding_elsewhere=lambda: decoding_elsewhere)
        self.told.take(output)
        told = output.tokens or output.finished or output.failed
        assert had_work or not told

    def run_dry(self) -> None:
        """Step until nothing is left; each step computes something or tells something."""
        bound = 100 + 20 * sum(
            len(asked.prompt_token_ids) + asked.max_tokens for asked, _ in self.asked.values()
        )
        for _ in range(bound):
            if not self.engine.has_work():
                break
            computed = self.runner.num_computed_tokens
            output = self.engine.step()
            self.told.take(output)
            self.engine.check()
            assert self.runner.num_computed_tokens > computed or output.finished
        assert not self.engine.has_work(), "sequences put each other out for ever"
        self.tokens_are_those_of_a_stream_alone()

    def has_ended(self, stream: int) -> bool:
        asked, _ = self.asked[stream]
        return stream in self.told.reasons or asked.request_id in self.told.failed

    def check_end(self, stream: int) -> None:
        asked, _ = self.asked[stream]
        reason = self.told.reasons.get(stream)
        tokens = self.told.tokens.get(stream, [])
        if reason is None:
            assert asked.request_id in self.told.failed
        elif reason == "cancelled":
            assert stream in self.cancelled
        elif stream not in self.stopped:
            eos = () if asked.sampling.ignore_eos else EOS_TOKEN_IDS
            stops = {*eos, *asked.sampling.stop_token_ids}
            assert not stops & set(tokens[:-1])
            assert (tokens[-1] in stops) == (reason == "stop")
            if reason == "length":
                most = min(asked.max_tokens, self.limit_tokens - len(asked.prompt_token_ids))
                assert len(tokens) == most


EngineMachine.TestCase.settings = settings(max_examples=80, stateful_step_count=30)
TestEngineMachine = EngineMachine.TestCase
