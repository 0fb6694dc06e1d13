"""What is asked for becomes starts of servers, and a command that asks for the same."""

import shlex
import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from bench.peers.__main__ import FORMATS, PEERS, arguments, command
from bench.peers.cache import Cache
from bench.peers.cortex import Cortex
from bench.peers.plan import GEMMA3, MODELS, ORDER, SHAPES, SMOLLM2, USUAL, Plan, work_for
from bench.peers.weights import Weights
from cortex_core.ids import ModelId
from neurond.sources.store import ModelStore
from neurond.text.template import check_template


def test_workloads_that_need_the_same_share_a_start() -> None:
    found = Plan([SMOLLM2], ["start", "W1", "W2x64", "busy"], FORMATS).starts()
    assert found == {
        (SMOLLM2, USUAL): ["start", "W1", "busy"],
        (SMOLLM2, SHAPES["W2x64"]): ["W2x64"],
    }


def test_every_model_gets_all_work_that_it_has_room_for() -> None:
    found = Plan(list(MODELS.values()), ORDER, FORMATS).starts()
    names: dict[str, list[str]] = {}
    for (model, _), workloads in found.items():
        names.setdefault(model, []).extend(workloads)
    assert sorted(names[GEMMA3]) == sorted(ORDER)
    assert sorted([*names[SMOLLM2], "W6"]) == sorted(ORDER)


def test_formats_are_those_of_the_peer_and_the_model() -> None:
    llama = PEERS["llama.cpp"]
    assert llama.formats_of(SMOLLM2) == ("Q4_0", "Q4_1", "Q8_0", "BF16")
    assert llama.formats_of(GEMMA3) == ("Q4_K_M", "Q8_0", "BF16")
    assert set(PEERS["cortex"].formats_of(GEMMA3)) >= {"int4", "int8", "bf16"}
    assert PEERS["vllm"].formats_of(GEMMA3) == ("bf16",)


def test_drafts_are_measured_where_they_are_for() -> None:
    assert work_for("int4-drafts", ORDER) == ["copy", "prose"]
    assert work_for("int4", ORDER) == list(ORDER)


@pytest.mark.parametrize(
    "flags",
    [
        [],
        ["--repetitions", "3", "--peers", "vllm,cortex", "--models", "gemma3"],
        ["--workloads", "W1,W6", "--formats", "Q4_0,int4"],
    ],
)
def test_the_command_asks_for_the_same(flags: list[str]) -> None:
    options = arguments(flags)
    *make, assigned = shlex.split(command(options))
    assert make == ["make", "bench-peers"]
    assert arguments(assigned.removeprefix("PEERS_FLAGS=").split()) == options


def test_five_repetitions_are_the_rule() -> None:
    assert command(arguments([])) == 'make bench-peers PEERS_FLAGS="--repetitions 5"'


def test_a_format_that_nobody_has_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        arguments(["--formats", "Q2_K"])
    assert "cannot use 'Q2_K': there are Q4_0," in capsys.readouterr().err


@pytest.mark.parametrize(
    "flags",
    [
        ["--models", "smollm2", "--workloads", "W6"],
        ["--peers", "cortex", "--formats", "Q4_0"],
        ["--models", "gemma3", "--peers", "llama.cpp", "--formats", "Q4_0,int4"],
        ["--peers", "cortex", "--workloads", "W1", "--formats", "int4-drafts"],
    ],
)
def test_what_leaves_nothing_to_measure_is_told(
    flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        arguments(flags)
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert "nothing to measure by " in said
    assert " ".join(flags[-2:]) in said
    assert arguments([*flags, "--report-only"]).report_only


def test_a_source_is_served_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its name says the format, in capitals or not; no program has to make it."""

    source = SimpleNamespace(weights=[SimpleNamespace(name="gemma-3-270m-q4_k_m.gguf")])
    monkeypatch.setattr("bench.peers.weights.pull", lambda *_: source)
    weights = Weights(Cache(tmp_path), GEMMA3)
    expected = ModelStore(tmp_path).folder(GEMMA3) / "gemma-3-270m-q4_k_m.gguf"
    assert weights.gguf("Q4_K_M", tmp_path / "absent") == expected


@pytest.mark.parametrize("model", MODELS.values())
def test_a_node_can_answer_the_first_question_about_every_model(
    tmp_path: Path, model: ModelId
) -> None:
    """A base model gets a template for it."""

    capabilities = ("chat", "completions") if model == SMOLLM2 else ("completions",)
    manifest = SimpleNamespace(capabilities=capabilities)
    weights = SimpleNamespace(model_id=model, source=tmp_path, manifest=manifest)
    peer = Cortex(Cache(tmp_path), threads=2)
    launch = peer.launch(cast("Weights", weights), "int4-kv8", USUAL, fresh=False)
    (profile,) = tomllib.loads(f"models = {launch.env['NEURON_MODELS']}")["models"]
    assert (profile["dtype"], profile["kv_dtype"]) == ("int4", "int8")
    assert profile["speculation"] == "off"
    assert ("chat_template" in profile) == (model == GEMMA3)
    check_template(profile.get("chat_template", ""), model=model)
