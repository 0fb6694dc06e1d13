"""Serving a scripted model: the engine of any other model, over a script in place of weights."""

from pathlib import Path

from tokenizers import Tokenizer

from neurond.actor.backend import ServedModel
from neurond.actor.formats import ModelFormats
from neurond.engine.scripted_runner import ScriptedRunner
from neurond.kv_choice import kv_bytes_per_token
from neurond.memory_plan import draft_rows
from neurond.models.model_serving import ModelServing, kv_sizes, step_tokens_for
from neurond.protocol import LoadModel, ModelLoaded
from neurond.sources.download import sha256_of_file
from neurond.sources.prepared import PreparedModel
from neurond.sources.script import SCRIPT, read_script


def serve_script(command: LoadModel, manifest: PreparedModel) -> ServedModel:
    """Read the script anew and divide the K/V blocks that its prompts are counted in.

    Raises:
        ModelLoadFailed: the script cannot be read.
        OutOfMemory: not even one sequence finds blocks.
    """
    folder = Path(command.model_dir)
    script = read_script(folder)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    sizes = kv_sizes(
        command.block_tokens * kv_bytes_per_token(manifest, command.kv_dtype or command.dtype),
        context_tokens=min(command.context_tokens, script.context_tokens),
        max_sequences=command.max_sequences,
        kv_cache_bytes=command.kv_cache_bytes,
        block_tokens=command.block_tokens,
    )
    (end,) = manifest.eos_token_ids
    serving = ModelServing(
        ScriptedRunner(script, tokenizer, end),
        sizes,
        f"{sha256_of_file(folder / SCRIPT)[:16]}-script",
        command.max_sequences,
        step_tokens_for(command.max_sequences),
        draft_rows(command.speculation or "off"),
    )
    loaded = ModelLoaded(
        model_id=command.model_id,
        weights_id=serving.weights_id,
        weights_bytes=0,
        kv_cache_bytes=0,
        num_blocks=sizes.num_blocks,
        context_tokens=sizes.context_tokens,
        dtype=command.dtype,
        kernels="script",
    )
    formats = ModelFormats(folder, manifest.vocab_size, manifest.eos_token_ids)
    return ServedModel(loaded, serving.new_engine, serving.close, formats)
