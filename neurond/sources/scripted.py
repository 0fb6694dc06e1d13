"""Preparing a scripted model: no weights, and a tokenizer and a template where it brings none."""

from pathlib import Path
from typing import Final

from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE

from cortex_core.errors import ModelLoadFailed
from cortex_core.ids import ModelId
from cortex_core.model_folder import WeightsFile
from neurond.sources.download import sha256_of_file
from neurond.sources.layer_weights import LayerWeights
from neurond.sources.prepared import CHAT_TEMPLATE, PreparedModel
from neurond.sources.script import SCRIPT, read_script

START: Final = "<|im_start|>"
END: Final = "<|im_end|>"
TEMPLATE: Final = """\
{%- macro say(role, text) %}<|im_start|>{{ role }}
{{ text }}<|im_end|>
{% endmacro %}
{%- if tools %}<|im_start|>system
# Tools

You may call one or more functions. Their signatures are within <tools></tools> tags:
<tools>
{% for tool in tools %}{{ tool | tojson }}
{% endfor %}</tools>

Return each call as a JSON object within <tool_call></tool_call> tags:
<tool_call>
{"name": <function-name>, "arguments": <args-json-object>}
</tool_call><|im_end|>
{% endif %}
{%- for message in messages %}
{%- if message.role == "tool" %}
{{- say("user", "<tool_response>\\n" ~ message.content ~ "\\n</tool_response>") }}
{%- elif message.role == "assistant" %}<|im_start|>assistant
{% if message.reasoning_content %}<think>
{{ message.reasoning_content }}
</think>

{% endif %}
{{- message.content }}
{%- for call in message.tool_calls or [] %}
{{- "\\n" if message.content or not loop.first }}<tool_call>
{"name": {{ call.function.name | tojson }}, "arguments": {{ call.function.arguments | tojson }}}
</tool_call>
{%- endfor %}<|im_end|>
{% else %}
{{- say(message.role, message.content) }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
"""Turns in ChatML, tool calls as the Hermes models write them."""


def prepare_script(folder: Path, model_id: ModelId, ends: tuple[str, ...]) -> PreparedModel:
    """Write what the folder of a script lacks; returns its manifest, not yet written.

    Args:
        ends: the tokens that can end an answer; the first that the tokenizer has does.

    Raises:
        ModelLoadFailed: script or tokenizer cannot be used.
    """
    script = read_script(folder)
    path = folder / "tokenizer.json"
    if not path.exists():
        byte_tokenizer().save(str(path))
    own = folder / CHAT_TEMPLATE
    if not own.exists():
        own.write_text(TEMPLATE, encoding="utf-8")
    template = own.read_text(encoding="utf-8")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as ex:  # the library raises bare Exception
        raise ModelLoadFailed(f"cannot read {path}: {ex}") from ex
    known = [(text, id_) for text in ends if (id_ := tokenizer.token_to_id(text)) is not None]
    if not known:
        raise ModelLoadFailed(
            f"cannot prepare {model_id}: {path} has no token that ends an answer, expected one of "
            f"{', '.join(ends)}; leave the file out for a tokenizer of bytes"
        )
    end, end_id = known[0]
    file = folder / SCRIPT
    return PreparedModel(
        model_id=model_id,
        kind="script",
        weights=(WeightsFile(SCRIPT, file.stat().st_size, sha256_of_file(file)),),
        architecture="Script",
        context_tokens=script.context_tokens,
        vocab_size=tokenizer.get_vocab_size(),
        num_parameters=0,
        layers=LayerWeights(0, 0),
        hidden_size=0,
        # Something for the K/V blocks to count: nobody computes with it, and it is not allocated.
        num_layers=1,
        num_kv_heads=1,
        head_dim=1,
        eos_token_ids=(end_id,),
        eos_token=end,
        capabilities=("completions", "chat", *(("tools",) if "tools" in template else ())),
    )


def byte_tokenizer() -> Tokenizer:
    """Return a tokenizer of which every byte is a token, with ChatML's two marks."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {character: place for place, character in enumerate(alphabet)}
    tokenizer = Tokenizer(BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(text, special=True) for text in (START, END)])
    return tokenizer
