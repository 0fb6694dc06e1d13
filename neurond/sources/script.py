"""A script in place of weights: what a scripted model answers, read from `script.toml`.

See docs/operations.md, "A scripted model".
"""

from pathlib import Path
from typing import Annotated, Final

import msgspec

from cortex_core.config.reader import read_config
from cortex_core.errors import ConfigError, ModelLoadFailed
from cortex_core.neuron_api import Count

SCRIPT: Final = "script.toml"

Rate = Annotated[float, msgspec.Meta(ge=0.5)]
PromptRate = Annotated[float, msgspec.Meta(ge=10)]
"""Slower ones would make a step of 512 tokens look like a device that hangs."""


class Rule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An answer, and the prompts that get it: those for which everything holds that is named."""

    answer: str
    """What the model writes: reasoning and tool calls in its own syntax, special tokens too."""
    contains: list[str] = []
    """Texts that stand in the rendered prompt."""
    latest_contains: list[str] = []
    """Texts that stand in what came since the model's last answer: a question, results of tools."""
    turn: Count | None = None
    """Which of the model's answers in the conversation it is, from 1."""


class Script(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole file."""

    rules: Annotated[list[Rule], msgspec.Meta(min_length=1)]
    """The first one that holds is taken."""
    tokens_per_second: Rate | None = None
    """Of each sequence; None is as fast as the engine steps."""
    prompt_tokens_per_second: PromptRate | None = None
    """Of all prompts together, without what the prefix cache has."""
    context_tokens: Count = 32_768
    answer_mark: Annotated[str, msgspec.Meta(min_length=1)] = "<|im_start|>assistant"
    """What the chat template writes in front of each answer of the model."""

    def answer(self, prompt: str, end: str) -> str | None:
        """Return the answer to a rendered prompt, None where no rule holds.

        Args:
            end: what the template writes behind each answer.
        """
        parts = prompt.split(self.answer_mark)
        asked = parts[:-1] or parts
        latest = asked[-1] if len(asked) == 1 else asked[-1].partition(end)[2]
        for rule in self.rules:
            if (
                rule.turn in (None, len(asked))
                and all(text in prompt for text in rule.contains)
                and all(text in latest for text in rule.latest_contains)
            ):
                return rule.answer
        return None


def read_script(folder: Path) -> Script:
    """Read the script of a model's folder.

    Raises:
        ModelLoadFailed: what is wrong, with file and key.
    """
    try:
        return read_config(folder / SCRIPT, Script, env_prefix=None)
    except ConfigError as ex:
        raise ModelLoadFailed(ex.message) from ex
