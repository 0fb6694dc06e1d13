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


def test_a_model_whose_layers_have_no_numbers_counts_as_unquantised() -> None:
    assert layer_weights([StoredTensor("wte", (4, 4), 4)]).bits_per_weight == 32.0
