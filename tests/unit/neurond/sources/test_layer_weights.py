from neurond.sources.layer_weights import LayerWeights, StoredTensor, layer_weights


def test_only_matrices_of_layers_are_counted() -> None:
    tensors = [
        StoredTensor("token_embd.weight", (64, 1000), 64_000),
        StoredTensor("blk.0.attn_q.weight", (64, 64), 2304),
        StoredTensor("model.layers.11.mlp.gate_proj.weight", (64, 128), 4608),
        StoredTensor("blk.0.attn_norm.weight", (64,), 256),
        StoredTensor("output.weight", (64, 1000), 64_000),
    ]
    found = layer_weights(tensors)
    assert found == LayerWeights(parameters=64 * 192, size_bytes=6912)
    assert found.bits_per_weight == 4.5


def made(name: str, bits: float) -> StoredTensor:
    return StoredTensor(f"blk.0.{name}.weight", (64, 64), int(64 * 64 * bits / 8))


def test_a_matrix_is_wide_when_a_part_of_what_is_stacked_with_it_is() -> None:
    tensors = [made("attn_q", 4.5), made("attn_k", 4.5), made("attn_v", 6.5625)]
    tensors += [made("ffn_gate", 5), made("ffn_up", 5), made("ffn_down", 5.5)]
    found = layer_weights(tensors)
    assert found.wide_parameters == found.int8_parameters == 4 * 64 * 64


def test_where_all_is_wide_int4_is_for_all() -> None:
    found = layer_weights([made("attn_output", 8.5), made("ffn_down", 5.5)])
    assert found.wide_parameters == found.parameters
    assert found.int8_parameters == 0


def test_a_model_whose_layers_have_no_numbers_counts_as_unquantised() -> None:
    assert layer_weights([StoredTensor("wte", (4, 4), 4)]).bits_per_weight == 32.0
