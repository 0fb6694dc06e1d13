"""Reads a `DecoderPlan` off the modules of a causal language model.

Weights are found by the names that transformers' decoders share; what a layer asks of attention and
which rotary table it gets are observed while two tokens run through it. Whatever has parameters and
no place in the plan rules the plan out. What no structure shows, such as a multiplier in a forward
method, is left to `plan_check`.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Final

import torch
from torch import nn
from torch.nn import functional
from transformers import PreTrainedModel

from neurond.kernels.abi import GROUP, PANEL
from neurond.memory_plan import MAX_ROPE_POSITIONS
from neurond.models.architecture import AttentionLayer, trace_attention
from neurond.models.decoder_plan import DecoderPlan, NoPlan, PlanLayer, PlanLinear, Unplannable
from neurond.models.plan_ropes import Ropes, turns_neighbours, watch
from neurond.sources.positions import served_positions

SAME_ACTIVATION: Final = 1e-5
SAME_NORM: Final = 2.0**-7
"""Twice the step of bfloat16, in which a norm may answer."""
ACTIVATIONS: Final[dict[str, Callable[[torch.Tensor], torch.Tensor]]] = {
    "silu": functional.silu,
    "gelu_tanh": lambda x: functional.gelu(x, approximate="tanh"),
    "gelu": functional.gelu,
}
_NO_LAYERS: Final = "its decoder is not an embedding and a list of layers"


def read_plan(model: PreTrainedModel) -> DecoderPlan | NoPlan:
    """Read the plan of a loaded model whose attention goes through the hook; not yet checked."""
    try:
        return _read_decoder(model)
    except Unplannable as ex:
        return NoPlan(str(ex))


def beyond_plans(model: PreTrainedModel) -> NoPlan | None:
    """Say of a model without weights what shows before any are read.

    Every plan has a list of layers, and none has experts.
    """
    layers = getattr(model.get_decoder(), "layers", None)
    if not isinstance(layers, nn.ModuleList):
        return NoPlan(_NO_LAYERS)
    for name, parameter in layers.named_parameters():
        if parameter.ndim > 2:
            layer, _, part = name.partition(".")
            return NoPlan(f"layer {layer} has {part}, which the kernels have no place for")
    return None


def _read_decoder(model: PreTrainedModel) -> DecoderPlan:
    decoder = model.get_decoder()
    config = model.config.get_text_config()
    embedding = model.get_input_embeddings()
    layers = getattr(decoder, "layers", None)
    if not isinstance(embedding, nn.Embedding) or not isinstance(layers, nn.ModuleList):
        raise Unplannable(_NO_LAYERS)
    with watch(decoder, layers) as watched:
        attention = trace_attention(model)
    ropes = Ropes(watched, min(served_positions(config), MAX_ROPE_POSITIONS))
    eps: set[float] = set()
    plan_layers = tuple(
        _read_layer(f"layer {index}", layer, attending, ropes, eps)
        for index, (layer, attending) in enumerate(zip(layers, attention, strict=True))
    )
    if not ropes.found:
        raise Unplannable("its attention does not know positions")
    outside = _Reader("its decoder", model, eps)
    head = outside.linear(model.get_output_embeddings())
    if head.out_features != embedding.num_embeddings:
        raise outside.refuse(
            f"has {embedding.num_embeddings} tokens and {head.out_features} logits"
        )
    final_norm = outside.norm(getattr(decoder, "norm", None), embedding.embedding_dim)
    if len(eps) != 1:
        raise Unplannable(f"its norms have different epsilons: {sorted(eps)}")
    return DecoderPlan(
        embedding=embedding.weight,
        embedding_scale=_embedding_scale(embedding),
        layers=plan_layers,
        ropes=tuple(ropes.found),
        final_norm=final_norm,
        norm_eps=eps.pop(),
        head=head,
        final_softcap=getattr(config, "final_logit_softcapping", None),
    )


def _embedding_scale(embedding: nn.Embedding) -> float:
    """Return what Gemma multiplies embeddings by, rounded as it is there."""
    scale = getattr(embedding, "embed_scale", None)
    return scale.to(embedding.weight.dtype).item() if isinstance(scale, torch.Tensor) else 1.0


class _Reader:
    """Takes modules into a plan, and knows which parameters that used up."""

    def __init__(self, name: str, module: nn.Module, eps: set[float]) -> None:
        """`eps` collects the epsilons of norms."""
        self._name = name
        self._module = module
        self._eps = eps
        self._used: set[int] = set()

    def refuse(self, reason: str) -> Unplannable:
        return Unplannable(f"{self._name} {reason}")

    def linear(self, *modules: object) -> PlanLinear:
        """Take matrices that share their input."""
        linears = [module for module in modules if type(module) is nn.Linear]
        if len(linears) != len(modules):
            raise self.refuse("has a product that is no plain nn.Linear, or lacks one")
        plan = PlanLinear(
            tuple(linear.weight for linear in linears), tuple(linear.bias for linear in linears)
        )
        if plan.in_features % GROUP:
            raise self.refuse(f"has {plan.in_features} inputs, which {GROUP} does not divide")
        self.use(*plan.weights, *plan.biases)
        return plan

    def norm(self, module: object, size: int) -> torch.Tensor:
        """Take an RMS norm; return what it multiplies by, float32 [size]."""
        eps = getattr(module, "variance_epsilon", getattr(module, "eps", None))
        weight = getattr(module, "weight", None)
        if not isinstance(module, nn.Module) or not isinstance(weight, torch.Tensor) or not eps:
            raise self.refuse("lacks a norm")
        if weight.shape != (size,):
            raise self.refuse(f"has a norm of {tuple(weight.shape)} where {size} are normalised")
        with torch.inference_mode():
            found = module(weight.new_ones(1, size))[0].float()
        for multiplier in (weight.float(), 1.0 + weight.float()):
            if torch.allclose(found, multiplier, rtol=SAME_NORM, atol=SAME_NORM):
                self._eps.add(eps)
                self.use(weight)
                return multiplier
        raise self.refuse("has a norm that is no RMS norm")

    def optional_norm(self, module: object, size: int) -> torch.Tensor | None:
        return None if module is None else self.norm(module, size)

    def use(self, *tensors: torch.Tensor | None) -> None:
        """Count `tensors` as having their place in the plan."""
        self._used.update(id(tensor) for tensor in tensors)

    def refuse_unused(self) -> None:
        """Check that nothing is left over.

        Raises:
            Unplannable: something is.
        """
        for name, tensor in self._module.named_parameters():
            if id(tensor) not in self._used:
                raise self.refuse(f"has {name}, which the kernels have no place for")


def _read_layer(
    name: str, layer: nn.Module, attending: AttentionLayer, ropes: Ropes, eps: set[float]
) -> PlanLayer:
    reader = _Reader(name, layer, eps)
    attention, mlp = getattr(layer, "self_attn", None), getattr(layer, "mlp", None)
    if attention is not attending.module or mlp is None:
        raise reader.refuse("is not attention followed by a gated product")
    shape, params = attending.shape, attending.params
    head_dim = shape.key_dim
    if head_dim % PANEL or shape.value_dim != head_dim:
        raise reader.refuse(f"has heads of {head_dim} keys and {shape.value_dim} values")
    qkv, o = _read_products(reader, attention, attending)
    rope = ropes.index_of(layer) if attending.knows_positions else None
    if rope is not None and turns_neighbours(attention):
        if getattr(attention, "q_norm", None) or getattr(attention, "k_norm", None):
            raise reader.refuse("normalises heads whose neighbours it turns")
        qkv = replace(qkv, order=_halves_first(attending, ropes.found[rope].rotary_dim))
    gate_up, down = _read_mlp(reader, mlp)
    hidden = down.out_features
    sandwich = getattr(layer, "pre_feedforward_layernorm", None) is not None
    after_attention = getattr(layer, "post_attention_layernorm", None)
    reader.use(params.sinks)
    plan = PlanLayer(
        input_norm=reader.norm(getattr(layer, "input_layernorm", None), hidden),
        qkv=qkv,
        q_norm=reader.optional_norm(getattr(attention, "q_norm", None), head_dim),
        k_norm=reader.optional_norm(getattr(attention, "k_norm", None), head_dim),
        sinks=params.sinks,
        o=o,
        post_attention_norm=reader.norm(after_attention, hidden) if sandwich else None,
        pre_ffn_norm=reader.norm(
            layer.pre_feedforward_layernorm if sandwich else after_attention, hidden
        ),
        gate_up=gate_up,
        down=down,
        post_ffn_norm=reader.optional_norm(
            getattr(layer, "post_feedforward_layernorm", None), hidden
        ),
        num_heads=attending.num_heads,
        num_kv_heads=shape.num_kv_heads,
        head_dim=head_dim,
        rope=rope,
        window=params.window,
        activation=_activation(reader, mlp),
        scale=params.scale,
        softcap=params.softcap,
    )
    reader.refuse_unused()
    return plan


def _read_products(
    reader: _Reader, attention: nn.Module, attending: AttentionLayer
) -> tuple[PlanLinear, PlanLinear]:
    """Return the products before and after attention."""
    fused = getattr(attention, "qkv_proj", None)
    names = ("q_proj", "k_proj", "v_proj")
    parts = [getattr(attention, name, None) for name in names] if fused is None else [fused]
    qkv, o = reader.linear(*parts), reader.linear(getattr(attention, "o_proj", None))
    queries = attending.num_heads * attending.shape.key_dim
    keys = attending.shape.num_kv_heads * attending.shape.key_dim
    expected = (queries, keys, keys) if fused is None else (queries + 2 * keys,)
    if tuple(len(weight) for weight in qkv.weights) != expected or o.in_features != queries:
        raise reader.refuse("has queries, keys and values of other sizes than its heads")
    return qkv, o


def _halves_first(attending: AttentionLayer, rotary_dim: int) -> torch.Tensor:
    """Return the order of queries, keys and values in which neighbours to turn lie in two halves.

    What a query and a key have in common does not depend on their order.
    """
    head_dim, num_kv_heads = attending.shape.key_dim, attending.shape.num_kv_heads
    turned = torch.arange(rotary_dim).unflatten(0, (-1, 2)).T.flatten()
    head = torch.cat((turned, torch.arange(rotary_dim, head_dim)))
    heads = torch.arange(attending.num_heads + num_kv_heads)[:, None] * head_dim + head
    first_value = heads.numel()
    values = torch.arange(first_value, first_value + num_kv_heads * head_dim)
    return torch.cat((heads.flatten(), values))


def _read_mlp(reader: _Reader, mlp: nn.Module) -> tuple[PlanLinear, PlanLinear]:
    """Return the stacked product of gate and up, and the one after them."""
    fused = getattr(mlp, "gate_up_proj", None)
    pair = (getattr(mlp, "gate_proj", None), getattr(mlp, "up_proj", None))
    gate_up = reader.linear(*pair) if fused is None else reader.linear(fused)
    down = reader.linear(getattr(mlp, "down_proj", None))
    if gate_up.out_features != 2 * down.in_features:
        raise reader.refuse("has no gate as wide as what it gates")
    return gate_up, down


def _activation(reader: _Reader, mlp: nn.Module) -> str:
    """Return the name of the gate's activation, found by its values."""
    function = getattr(mlp, "act_fn", getattr(mlp, "activation_fn", None))
    x = torch.linspace(-8.0, 8.0, 321)
    if function is not None:
        for name, known in ACTIVATIONS.items():
            if torch.allclose(function(x), known(x), rtol=SAME_ACTIVATION, atol=SAME_ACTIVATION):
                return name
    raise reader.refuse("has an activation that the kernels do not know")
