"""The prepare process: writes what the daemon needs of a model so that it never needs transformers.

`python -m neurond.sources.prepare FOLDER MODEL_ID DEATH_FD PARENT_PID` reads the weights' own
description in FOLDER and writes tokenizer.json, config.json, chat_template.jinja and, last,
model.json. It is the only code outside the actor that imports transformers, inside functions
because that takes seconds, in a process that ends soon.

On failure it prints one JSON `ErrorInfo` on stdout and exits with status 1.
"""

import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

import msgspec

from cortex_core.errors import CortexError, ModelLoadFailed
from cortex_core.ids import ModelId
from cortex_core.ipc.parent import die_with_parent
from cortex_core.model_folder import MANIFEST, WeightsFile
from neurond.sources.download import sha256_of_file
from neurond.sources.gguf import GgufHeader, read_header, write_skeleton
from neurond.sources.layer_weights import StoredTensor, layer_weights
from neurond.sources.positions import served_positions
from neurond.sources.prepared import CHAT_TEMPLATE, ImageTokens, PreparedModel
from neurond.sources.safetensors_header import read_tensors
from neurond.sources.script import SCRIPT
from neurond.sources.scripted import prepare_script
from neurond.sources.sentence_transformers import DEFAULT_POOLING, max_tokens_of, pooling_of
from neurond.text.parsing.families import recognised

LARGE_ARRAYS: Final = frozenset(
    {
        "tokenizer.ggml.tokens",
        "tokenizer.ggml.scores",
        "tokenizer.ggml.token_type",
        "tokenizer.ggml.merges",
    }
)
TURN_ENDS: Final = ("<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<end_of_turn>", "<turn|>", "<|end|>")
"""Special tokens that end a turn; a GGUF names one end token only, and not always this one."""
IN_DECODER: Final = re.compile(r"(^|\.)(language_model|text_model|lm_head)\.")
"""Names of weights of models that take images which are of the language model."""
HARMONY_ENDS: Final = ("<|return|>", "<|call|>")
"""Those of gpt-oss, whose `<|end|>` ends a message of several."""


def prepare(folder: Path, model_id: ModelId) -> PreparedModel:
    """Prepare the weights, or the script, in `folder`; returns the manifest that was written.

    Raises:
        ModelLoadFailed: the files are corrupt, incomplete or of an unsupported kind; the message
            names the file.
    """
    ggufs = sorted(folder.glob("*.gguf"))
    safetensors = sorted(folder.glob("*.safetensors"))
    if (folder / SCRIPT).exists():
        prepared = prepare_script(folder, model_id, TURN_ENDS)
    elif len(ggufs) == 1 and not safetensors:
        prepared = _prepare_gguf(folder, model_id, ggufs[0])
    elif safetensors and not ggufs:
        prepared = _prepare_safetensors(folder, model_id, safetensors)
    else:
        raise ModelLoadFailed(
            f"cannot prepare {model_id}: {folder} holds {len(ggufs)} GGUF files and "
            f"{len(safetensors)} safetensors files; expected one GGUF or some safetensors"
        )
    write_whole(folder / MANIFEST, msgspec.json.format(msgspec.json.encode(prepared), indent=2))
    return prepared


def _prepare_gguf(folder: Path, model_id: ModelId, gguf: Path) -> PreparedModel:
    header = read_header(gguf)
    try:
        config = _gguf_config(gguf, header)
        tokenizer = _gguf_tokenizer(gguf, config)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, OSError) as ex:
        raise ModelLoadFailed(f"cannot prepare {gguf}: {ex}") from ex
    extra_ends = [
        header.metadata.get(f"tokenizer.ggml.{key}_token_id") for key in ("eos", "eot", "eom")
    ]
    ends = _end_ids(
        config, tokenizer, [id_ for id_ in extra_ends if id_ is not None], turn_ends=True
    )
    tensors = header.stored_tensors()
    return _finish(folder, model_id, config, tokenizer, "gguf", [gguf], tensors, ends)


def _gguf_config(gguf: Path, header: GgufHeader) -> Any:
    from transformers import AutoConfig

    with tempfile.TemporaryDirectory() as scratch:
        skeleton = Path(scratch) / "skeleton.gguf"
        write_skeleton(gguf, header, skeleton, without=LARGE_ARRAYS)
        config = AutoConfig.from_pretrained(scratch, gguf_file=skeleton.name)
    architecture = header.metadata["general.architecture"]
    if f"{architecture}.vocab_size" not in header.metadata:
        config.vocab_size = header.metadata["tokenizer.ggml.tokens"]
    return config


def _gguf_tokenizer(gguf: Path, config: Any) -> Any:
    from transformers import TokenizersBackend
    from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING

    # AutoTokenizer ends at this same class, after reading the GGUF slowly once more. The folder
    # must not hold a tokenizer.json, which would be taken instead of the GGUF's own.
    kind: Any = TOKENIZER_MAPPING.get(type(config), TokenizersBackend)
    with tempfile.TemporaryDirectory() as scratch:
        (Path(scratch) / gguf.name).symlink_to(gguf.resolve())
        return kind.from_pretrained(scratch, gguf_file=gguf.name)


def _prepare_safetensors(folder: Path, model_id: ModelId, weights: list[Path]) -> PreparedModel:
    from transformers import AutoConfig, AutoTokenizer

    tensors = read_tensors(weights)
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except (ValueError, KeyError, TypeError, OSError) as ex:
        raise ModelLoadFailed(f"cannot prepare {folder}: {ex}") from ex
    generation = folder / "generation_config.json"
    named: list[int] = []
    if generation.exists():
        named = _as_ids(msgspec.json.decode(generation.read_bytes()).get("eos_token_id"))
    ends = _end_ids(config, tokenizer, named, turn_ends=not named)
    return _finish(folder, model_id, config, tokenizer, "safetensors", weights, tensors, ends)


def _finish(
    folder: Path,
    model_id: ModelId,
    config: Any,
    tokenizer: Any,
    kind: Any,
    weights: list[Path],
    tensors: list[StoredTensor],
    ends: tuple[int, ...],
) -> PreparedModel:
    """Write the files beside the weights; returns the manifest, not yet written."""
    text_config = config.get_text_config()
    architecture = _architecture(config)
    config.architectures = [architecture]
    write_whole(folder / "config.json", config.to_json_string().encode())
    if not tokenizer.is_fast:
        raise ModelLoadFailed(
            f"cannot prepare {folder}: its tokenizer has no form for the tokenizers library"
        )
    write_whole(folder / "tokenizer.json", tokenizer.backend_tokenizer.to_str().encode())
    template = _template_text(tokenizer.chat_template)
    if template:
        write_whole(folder / CHAT_TEMPLATE, template.encode())
    heads = text_config.num_attention_heads
    is_encoder = _is_encoder(config)
    images = _images(folder, config, tensors) if kind == "safetensors" else None
    pooling = pooling_of(folder)
    return PreparedModel(
        model_id=model_id,
        kind=kind,
        weights=tuple(
            WeightsFile(path.name, path.stat().st_size, sha256_of_file(path)) for path in weights
        ),
        architecture=architecture,
        context_tokens=_encoder_tokens(folder, config, tokenizer)
        if is_encoder
        else served_positions(text_config),
        vocab_size=text_config.vocab_size,
        num_parameters=sum(tensor.elements for tensor in tensors),
        layers=layer_weights(tensors),
        hidden_size=text_config.hidden_size,
        num_layers=text_config.num_hidden_layers,
        num_kv_heads=getattr(text_config, "num_key_value_heads", None) or heads,
        head_dim=getattr(text_config, "head_dim", None) or text_config.hidden_size // heads,
        eos_token_ids=ends,
        bos_token=tokenizer.bos_token,
        eos_token=tokenizer.eos_token,
        adds_bos=_adds_bos(tokenizer),
        capabilities=("embeddings",) if is_encoder else _capabilities(template, tokenizer, images),
        pooling=pooling or (DEFAULT_POOLING if is_encoder else None),
        images=images,
    )


def _is_encoder(config: Any) -> bool:
    """Tell whether the model looks both ways, as those that were trained on masked words do."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

    one_way = config.is_encoder_decoder or getattr(config, "is_decoder", False)
    causal = config.architectures[0].endswith(("ForCausalLM", "LMHeadModel"))
    return config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not (one_way or causal)


def _images(folder: Path, config: Any, tensors: list[StoredTensor]) -> ImageTokens | None:
    """Return what stands for images, None for a model that takes none."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

    takes = config.model_type in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
    configs = ("preprocessor_config.json", "processor_config.json")
    if not takes or not any((folder / name).exists() for name in configs):
        return None
    from neurond.images.processor import ModelImageProcessor

    tokens = ModelImageProcessor(folder).tokens
    if not tokens.in_place:
        return tokens
    of_tower = [tensor.elements for tensor in tensors if not IN_DECODER.search(tensor.name)]
    return msgspec.structs.replace(tokens, tower_parameters=sum(of_tower))


def _encoder_tokens(folder: Path, config: Any, tokenizer: Any) -> int:
    """Return the longest input; positions alone do not tell, as some begin behind the padding."""
    limits = (max_tokens_of(folder), config.max_position_embeddings, tokenizer.model_max_length)
    return min(limit for limit in limits if limit is not None)


def _architecture(config: Any) -> str:
    if config.architectures:
        return str(config.architectures[0])
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    )

    name = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(config.model_type)
    if name is None:
        raise ModelLoadFailed(
            f"cannot prepare a model of type {config.model_type!r}: it is no causal language model"
        )
    return str(name)


def _end_ids(config: Any, tokenizer: Any, named: list[int], *, turn_ends: bool) -> tuple[int, ...]:
    """Return all token ids that end an answer, each once, the main one first."""
    ends = [*_as_ids(config.get_text_config().eos_token_id), *named]
    if tokenizer.eos_token_id is not None:
        ends.append(tokenizer.eos_token_id)
    if turn_ends:
        special = {
            added.content: id_
            for id_, added in tokenizer.added_tokens_decoder.items()
            if added.special
        }
        is_harmony = "<|channel|>" in special
        texts = HARMONY_ENDS if is_harmony else TURN_ENDS
        ends += [special[text] for text in texts if text in special]
        if is_harmony:
            ends = [id_ for id_ in ends if id_ != special.get("<|end|>")]
    return tuple(dict.fromkeys(ends))


def _as_ids(value: Any) -> list[int]:
    if value is None:
        return []
    return [int(id_) for id_ in value] if isinstance(value, list | tuple) else [int(value)]


def _adds_bos(tokenizer: Any) -> bool:
    ids = tokenizer("a").input_ids
    return bool(ids) and tokenizer.bos_token_id is not None and ids[0] == tokenizer.bos_token_id


def _template_text(template: Any) -> str | None:
    """Return the template; of several named ones the default."""
    if isinstance(template, dict):
        template = template.get("default")
    return template or None


def _capabilities(
    template: str | None, tokenizer: Any, images: ImageTokens | None
) -> tuple[str, ...]:
    if template is None:
        return ("completions",)
    added = {token.content for token in tokenizer.added_tokens_decoder.values()}
    thinks = recognised(template, added, knows_tools=True).reasoning != "none"
    more = {"reasoning": thinks, "vision": images is not None}
    return ("completions", "chat", "tools", *(name for name, has in more.items() if has))


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that it is there whole or not at all.

    Raises:
        OSError: it could not be written; nothing of it is left.
    """
    growing = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        growing.write_bytes(content)
        growing.replace(path)
    except OSError:
        growing.unlink(missing_ok=True)  # what a full disk took of it would stay for good
        raise


def main(arguments: list[str]) -> int:
    """Run the process; returns its exit status."""
    os.environ["TRANSFORMERS_VERBOSITY"] = "error"
    os.environ["HF_HUB_OFFLINE"] = "1"
    folder, model_id, death_fd, parent_pid = arguments
    die_with_parent(int(death_fd), int(parent_pid))
    try:
        prepare(Path(folder), ModelId(model_id))
    except CortexError as ex:
        sys.stdout.write(msgspec.json.encode(ex.info()).decode() + "\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
