"""A plan is its model, or there is none."""

import time
from dataclasses import replace

import pytest
import torch

from bench.quality.oracle import reference_logits
from neurond.models.decoder_plan import DecoderPlan, NoPlan, PlanRope
from neurond.models.loader import load_model
from neurond.models.plan_check import plan_decoder, verify_plan
from neurond.models.plan_reader import read_plan
from tests.fakes.model_cache import GEMMA3, SMOLLM2, real_model
from tests.fakes.planned_models import PLANNED, REFUSED, make_model
from tests.fakes.tiny_models import VOCAB_SIZE, WINDOW

NUM_TOKENS = 3 * WINDOW


def planned(model) -> DecoderPlan:
    plan = plan_decoder(model)
    assert isinstance(plan, DecoderPlan), plan.reason
    return plan


def transformers_logits(model, ids: torch.Tensor) -> torch.Tensor:
    """Return what transformers' own attention gives."""
    model.set_attn_implementation("eager")
    with torch.inference_mode():
        return model(input_ids=ids[None], use_cache=False).logits[0]


@pytest.mark.parametrize("name", PLANNED)
def test_the_plan_computes_what_transformers_does(name):
    model = make_model(PLANNED[name]())
    plan = planned(model)
    ids = torch.randint(VOCAB_SIZE, (NUM_TOKENS,), generator=torch.Generator().manual_seed(1))
    found = reference_logits(plan, ids)
    expected = transformers_logits(model, ids)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())


@pytest.mark.parametrize("name", PLANNED)
def test_models_in_bfloat16_have_a_plan_too(name):
    planned(make_model(PLANNED[name](), torch.bfloat16))


@pytest.mark.parametrize("name", REFUSED)
def test_look_alikes_are_refused(name):
    config, reason = REFUSED[name]
    plan = plan_decoder(make_model(config()))
    assert isinstance(plan, NoPlan)
    assert reason in plan.reason


def test_what_gemma_differs_in():
    gemma2 = planned(make_model(PLANNED["gemma2"]()))
    assert [layer.window for layer in gemma2.layers] == [WINDOW, None, WINDOW]
    assert {layer.softcap for layer in gemma2.layers} == {5.0}
    assert {layer.scale for layer in gemma2.layers} == {32**-0.5}
    assert gemma2.final_softcap == 10.0
    assert gemma2.embedding_scale == 8.0
    assert {layer.activation for layer in gemma2.layers} == {"gelu_tanh"}
    gemma3 = planned(make_model(PLANNED["gemma3"]()))
    assert len(gemma3.ropes) == 2
    assert [layer.rope for layer in gemma3.layers] == [0, 0, 0, 0, 0, 1]


def change_layer(plan: DecoderPlan, index: int, **changes) -> DecoderPlan:
    layers = list(plan.layers)
    layers[index] = replace(layers[index], **changes)
    return replace(plan, layers=tuple(layers))


@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("layer 0", lambda plan: change_layer(plan, 0, window=WINDOW - 1)),
        ("layer 1", lambda plan: change_layer(plan, 1, window=WINDOW)),
        ("layer 2", lambda plan: change_layer(plan, 2, softcap=5.1)),
        ("layer 0", lambda plan: change_layer(plan, 0, activation="gelu")),
        ("layer 0", lambda plan: change_layer(plan, 0, post_ffn_norm=None)),
        ("layer 0", lambda plan: change_layer(plan, 0, o=plan.layers[1].o)),
        ("layer 0", lambda plan: replace(plan, norm_eps=1e-3)),
        ("the head", lambda plan: replace(plan, final_softcap=None)),
        ("the head", lambda plan: replace(plan, final_norm=plan.final_norm - 1)),
        ("the embedding", lambda plan: replace(plan, embedding_scale=7.9)),
        ("layer 0", lambda plan: replace(plan, ropes=(slower(plan.ropes[0]),))),
    ],
    ids=[
        *("window", "full", "softcap", "activation", "post-norm", "weights", "epsilon"),
        *("final softcap", "final norm", "embedding scale", "rope"),
    ],
)
def test_a_wrong_plan_is_found_out(what, change):
    model = make_model(PLANNED["gemma2"]())
    plan = read_plan(model)
    assert verify_plan(model, plan) is None
    assert verify_plan(model, change(plan)).startswith(what)


def test_layers_without_positions_have_no_table():
    plan = planned(make_model(PLANNED["smollm3"]()))
    assert [layer.rope for layer in plan.layers] == [0, 0, 0, None, 0]


def test_heads_that_turn_neighbours_are_put_in_another_order():
    layer = planned(make_model(PLANNED["ernie"]())).layers[0]
    half = layer.head_dim // 2
    first, order = layer.qkv.rows(0, layer.head_dim), layer.qkv.order
    assert order is not None
    assert order[: half + 1].tolist() == [*range(0, layer.head_dim, 2), 1]
    assert torch.equal(first, layer.qkv.weights[0][order[: layer.head_dim]].float())


def slower(rope: PlanRope) -> PlanRope:
    return replace(rope, compute=lambda positions: rope.compute(positions // 2))


def test_the_model_is_left_as_it_was():
    model = make_model(PLANNED["gemma3"](), torch.bfloat16)
    before = [(id(parameter), parameter.dtype) for parameter in model.parameters()]
    layers = list(model.get_decoder().layers)
    planned(model)
    assert [(id(parameter), parameter.dtype) for parameter in model.parameters()] == before
    assert list(model.get_decoder().layers) == layers
    assert not any(module._forward_hooks for module in model.modules())
    assert not any(module._forward_pre_hooks for module in model.modules())


@pytest.mark.model
@pytest.mark.parametrize(("model_id", "num_ropes"), [(SMOLLM2, 1), (GEMMA3, 2)])
def test_real_models_have_a_plan(cpu, model_id, num_ropes):
    folder, manifest = real_model(model_id)
    loaded = load_model(folder, manifest, "bfloat16", cpu, lambda _: None)
    started = time.process_time()
    plan = planned(loaded.model)
    assert time.process_time() - started < 5.0  # half a second of two cores
    assert len(plan.layers) == manifest.num_layers
    assert len(plan.ropes) == num_ropes
    assert plan.vocab_size == manifest.vocab_size
