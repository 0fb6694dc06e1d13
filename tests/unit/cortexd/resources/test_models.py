"""What the models lists show, and under which names."""

import msgspec

from cortex_core.ids import ModelId
from cortex_core.neuron_api import EmbeddingSizes, ModelLimit
from cortexd.fleet.index import FleetIndex
from cortexd.fleet.protocol import FleetSnapshot, ModelView
from cortexd.resources.models import anthropic_entries, list_entries

CHAT, VECTORS = ModelId("file:chat"), ModelId("file:vectors")
UNKNOWN = ModelId("file:unknown")
SIZES = EmbeddingSizes(384, 256)
INDEX = FleetIndex(
    FleetSnapshot(
        version=1,
        models=(
            ModelView(CHAT, (), None, ModelLimit(100, 90, 10), ("chat", "completions")),
            ModelView(VECTORS, (), None, ModelLimit(), ("embeddings",), embedding=SIZES),
            ModelView(UNKNOWN, (), None, ModelLimit()),
        ),
        nodes=(),
        replicas=(),
        aliases={"claude-mine": CHAT, "gone": ModelId("file:gone"), "small": CHAT},
        tiers={"opus": CHAT, "haiku": ModelId("file:gone")},
    )
)


def test_everything_that_can_be_asked_for_is_listed_once() -> None:
    entries = {entry.id: entry for entry in list_entries(INDEX, 7)}
    names = [CHAT, UNKNOWN, VECTORS, "claude-mine", "claude-opus", "small"]
    assert list(entries) == names
    assert all(entry.created == 7 for entry in entries.values())
    assert entries["small"].facts.alias_of == CHAT
    assert entries["claude-opus"].facts.alias_of == CHAT
    assert entries["claude-opus"].line == "opus"
    assert entries["claude-mine"].line is None
    assert entries[CHAT].facts.alias_of is msgspec.UNSET
    assert entries[CHAT].max_input_tokens == 90


def test_a_model_of_vectors_tells_their_sizes() -> None:
    entries = {entry.id: entry for entry in list_entries(INDEX, 7)}
    assert entries[VECTORS].capabilities == ("embeddings",)
    assert entries[VECTORS].facts.embedding == SIZES
    assert entries[CHAT].facts.embedding is msgspec.UNSET


def test_claude_code_gets_a_name_that_it_shows_for_each_model_that_generates() -> None:
    entries = anthropic_entries(INDEX, 7)
    shown = {e.id: e for e in entries if e.id.startswith(("claude", "anthropic"))}
    assert set(shown) == {
        "claude-mine",
        "claude-opus",
        f"anthropic/{CHAT}",
        f"anthropic/{UNKNOWN}",
        "anthropic/small",
    }
    assert shown[f"anthropic/{CHAT}"].display_name == CHAT
    assert [entry.id for entry in entries][: len(list_entries(INDEX, 7))] == [
        entry.id for entry in list_entries(INDEX, 7)
    ]
    assert all(INDEX.resolve(name) in INDEX.models for name in shown)


def test_an_alias_that_has_the_second_name_is_listed_once() -> None:
    aliases = {"small": CHAT, "anthropic/small": UNKNOWN}
    snapshot = msgspec.structs.replace(INDEX.snapshot, aliases=aliases)
    names = [entry.id for entry in anthropic_entries(FleetIndex(snapshot), 7)]
    assert names.count("anthropic/small") == 1
    assert len(names) == len(set(names))
