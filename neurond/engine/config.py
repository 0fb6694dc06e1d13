"""Sizes that one model's engine is made with."""

from dataclasses import dataclass

from cortex_core.errors import ConfigError


@dataclass(slots=True, frozen=True)
class SchedulerConfig:
    """Sizes of one model's engine.

    Raises:
        ConfigError: on construction, where the sizes contradict each other.
    """

    num_blocks: int
    context_tokens: int
    """Longest sequence, prompt and output together, that the model can take."""
    block_tokens: int = 16
    max_sequences: int = 64
    """Most sequences in one step."""
    step_tokens: int = 512
    """Most query tokens in one step; beside decodes, prompts get fewer as steps take longer."""
    max_draft_rows: int = 0
    """Most query tokens of a step with drafts; 0 drafts nothing."""
    max_rows: int = 0
    """Rows that the runner has logits for; more than one for each sequence score prompts."""
    two_way_tokens: int = 0
    """Most of an image's tokens that see each other both ways, and so are computed in one step
    beside all decodes; 0 where images are seen causally."""
    max_waiting: int = 256
    """Most choices that wait beyond the places that are free."""

    def __post_init__(self) -> None:
        smallest = min(self.num_blocks, self.context_tokens, self.block_tokens, self.max_sequences)
        if smallest < 1 or min(self.max_waiting, self.max_draft_rows) < 0:
            raise ConfigError(f"cannot set up the engine: every size must be positive: {self}")
        if self.step_tokens < self.max_sequences + self.two_way_tokens:
            raise ConfigError(
                f"cannot set up the engine: step_tokens ({self.step_tokens}) must be at least "
                f"max_sequences ({self.max_sequences}), as each decodes one token per step, and "
                f"{self.two_way_tokens} tokens of an image"
            )

    @property
    def limit_tokens(self) -> int:
        """Longest sequence that both the model and the whole pool can take."""
        return min(self.context_tokens, self.num_blocks * self.block_tokens)
