"""Small tokenizers of the two kinds that language models use, made without training."""

from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE

from cortex_core.ids import ModelId
from cortex_core.model_folder import WeightsFile
from neurond.sources.layer_weights import LayerWeights
from neurond.sources.prepared import PreparedModel
from neurond.text.tokenizer import ModelTokenizer

BOS = "<|begin|>"
EOS = "<|end|>"
WORDS = ("he", "ll", "o ", "wor", "ld", "ab", "abc", "bc", "stop", "\n\n", "STOP", " 1", ", ")


def byte_level() -> Tokenizer:
    """Every byte is a token, as in GPT-2, and there are two special and one plain added token."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {character: place for place, character in enumerate(alphabet)}
    tokenizer = Tokenizer(BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return _with_added(tokenizer)


def byte_fallback() -> Tokenizer:
    """Characters are tokens, unknown ones are spelled in bytes, as in Llama and Gemma."""
    vocabulary = {f"<0x{byte:02X}>": byte for byte in range(256)}
    for character in "▁abcdefghijklmnopqrstuvwxyz0123456789.,!?":
        vocabulary[character] = len(vocabulary)
    tokenizer = Tokenizer(BPE(vocab=vocabulary, merges=[], byte_fallback=True, unk_token=None))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never", split=False)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    return _with_added(tokenizer)


def _with_added(tokenizer: Tokenizer) -> Tokenizer:
    tokenizer.add_special_tokens([AddedToken(BOS, special=True), AddedToken(EOS, special=True)])
    tokenizer.add_tokens([AddedToken("<think>", special=False)])
    tokenizer.add_tokens([AddedToken(word, special=False) for word in WORDS])
    return tokenizer


def prepared(tokenizer: Tokenizer, *, adds_bos: bool = False, context: int = 256) -> PreparedModel:
    """The manifest of a model that has this tokenizer."""
    end = tokenizer.token_to_id(EOS)
    assert end is not None
    return PreparedModel(
        model_id=ModelId("file:/made"),
        kind="gguf",
        weights=(WeightsFile("made.gguf", 1, "0" * 64),),
        architecture="LlamaForCausalLM",
        context_tokens=context,
        vocab_size=tokenizer.get_vocab_size(),
        num_parameters=1,
        layers=LayerWeights(1, 1),
        hidden_size=1,
        num_layers=1,
        num_kv_heads=1,
        head_dim=1,
        eos_token_ids=(end,),
        bos_token=BOS,
        eos_token=EOS,
        adds_bos=adds_bos,
    )


def model_tokenizer(tokenizer: Tokenizer, *, adds_bos: bool = False) -> ModelTokenizer:
    """The tokenizer as the node uses it."""
    return ModelTokenizer(tokenizer, prepared(tokenizer, adds_bos=adds_bos))
