"""Small random models that take images, with their processors, as files of a model's folder."""

from collections.abc import Callable
from pathlib import Path

import torch
from tokenizers import AddedToken
from transformers import (
    AutoModelForImageTextToText,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
)
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from tests.fakes.tokenizers_made import EOS, byte_level

QWEN_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.content is string %}{{ m.content }}{% else %}{% for c in m.content %}"
    "{% if c.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %}{{ c.text }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
QWEN_TOKENS = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
TURN_TOKENS = ("<|im_start|>", "<|im_end|>")


def tokenizer_with(tokens: tuple[str, ...]) -> PreTrainedTokenizerFast:
    tokenizer = byte_level()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in tokens])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=EOS)


def qwen_config(tokenizer: PreTrainedTokenizerFast) -> PreTrainedConfig:
    ids = tokenizer.convert_tokens_to_ids
    return Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": 64,
            "intermediate_size": 96,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 2048,
            "initializer_range": 0.2,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10_000.0,
                "mrope_section": [2, 3, 3],
            },
            "bos_token_id": None,
            "eos_token_id": None,
            "pad_token_id": None,
        },
        vision_config={
            "depth": 3,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_heads": 2,
            "out_hidden_size": 64,
            "fullatt_block_indexes": [1],
            "window_size": 56,
            "initializer_range": 0.2,
        },
        image_token_id=ids("<|image_pad|>"),
        video_token_id=ids("<|video_pad|>"),
        vision_start_token_id=ids("<|vision_start|>"),
        vision_end_token_id=ids("<|vision_end|>"),
        tie_word_embeddings=False,
    )


def make_qwen(folder: Path) -> PreTrainedModel:
    """Write a tiny Qwen2.5-VL to `folder` as its hub's repositories are; return it."""
    tokenizer = tokenizer_with((*QWEN_TOKENS, *TURN_TOKENS))
    tokenizer.chat_template = QWEN_TEMPLATE
    torch.manual_seed(20240229)
    model = AutoModelForImageTextToText.from_config(
        qwen_config(tokenizer), dtype=torch.float32, attn_implementation="eager"
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    Qwen2VLImageProcessorPil(processor_class="Qwen2_5_VLProcessor").save_pretrained(folder)
    return model.eval()


TINY_VISION: dict[str, Callable[[Path], PreTrainedModel]] = {"qwen2.5-vl": make_qwen}
