"""Small random models that take images, with their processors, as files of a model's folder."""

import json
from collections.abc import Callable
from pathlib import Path

import torch
from tokenizers import AddedToken
from transformers import (
    AutoModelForImageTextToText,
    Gemma3Config,
    Gemma3Processor,
    Idefics3Config,
    Idefics3Processor,
    LlavaConfig,
    LlavaProcessor,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    ProcessorMixin,
    Qwen2_5_VLConfig,
    Qwen3VLConfig,
    SmolVLMConfig,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil

from tests.fakes.tiny_models import COMMON
from tests.fakes.tiny_vision_templates import (
    GEMMA_TEMPLATE,
    IDEFICS_TEMPLATE,
    LLAVA_TEMPLATE,
    QWEN_TEMPLATE,
)
from tests.fakes.tokenizers_made import EOS, byte_level

QWEN_TOKENS = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
TURN_TOKENS = ("<|im_start|>", "<|im_end|>")


def tokenizer_with(
    tokens: tuple[str, ...], named: dict[str, str] | None = None
) -> PreTrainedTokenizerFast:
    """Return a tokenizer with more special tokens, some of which have names."""
    tokenizer = byte_level()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in tokens])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=EOS, extra_special_tokens=named or {}
    )


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
    tokenizer.save_pretrained(folder)
    Qwen2VLImageProcessorPil(processor_class="Qwen2_5_VLProcessor").save_pretrained(folder)
    return saved_model(folder, qwen_config(tokenizer))


IDEFICS_TOKENS = (
    "<fake_token_around_image>",
    "<image>",
    "<end_of_utterance>",
    "<global-img>",
    *(f"<row_{row}_col_{col}>" for row in range(1, 7) for col in range(1, 7)),
)
TOWER = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "initializer_range": 0.2,
}


def text_config(tokenizer: PreTrainedTokenizerFast) -> dict[str, object]:
    return COMMON | {"vocab_size": len(tokenizer), "max_position_embeddings": 2048}


def make_idefics3(folder: Path) -> PreTrainedModel:
    """An image is cut into tiles, each with placeholders of its own and names between them."""
    tokenizer = tokenizer_with(IDEFICS_TOKENS)
    config = Idefics3Config(
        text_config={"model_type": "llama", **text_config(tokenizer)},
        vision_config={**TOWER, "image_size": 32, "patch_size": 8},
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        scale_factor=2,
        pad_token_id=None,
    )
    sizes = {"size": {"longest_edge": 96}, "max_image_size": {"longest_edge": 32}}
    images = Idefics3ImageProcessorPil(processor_class="Idefics3Processor", **sizes)
    processor = Idefics3Processor(images, tokenizer, image_seq_len=4)
    return write(folder, config, tokenizer, IDEFICS_TEMPLATE, processor)


def make_qwen3(folder: Path) -> PreTrainedModel:
    """Features go into the first layers too."""
    tokenizer = tokenizer_with((*QWEN_TOKENS, *TURN_TOKENS))
    tokenizer.chat_template = QWEN_TEMPLATE
    ids = tokenizer.convert_tokens_to_ids
    rope = {
        "rope_type": "default",
        "rope_theta": 10_000.0,
        "mrope_section": [2, 3, 3],
        "mrope_interleaved": True,
    }
    config = Qwen3VLConfig(
        text_config={**text_config(tokenizer), "rope_parameters": rope},
        vision_config={
            "depth": 3,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_heads": 2,
            "out_hidden_size": 64,
            "patch_size": 16,
            "num_position_embeddings": 64,
            "deepstack_visual_indexes": [0, 1],
            "initializer_range": 0.2,
        },
        image_token_id=ids("<|image_pad|>"),
        video_token_id=ids("<|video_pad|>"),
        vision_start_token_id=ids("<|vision_start|>"),
        vision_end_token_id=ids("<|vision_end|>"),
    )
    tokenizer.save_pretrained(folder)
    images = Qwen2VLImageProcessorPil(processor_class="Qwen3VLProcessor", patch_size=16)
    images.save_pretrained(folder)
    return saved_model(folder, config)


def make_smolvlm(folder: Path) -> PreTrainedModel:
    """As Idefics3, by a processor that wants another one for video."""
    tokenizer = tokenizer_with((*IDEFICS_TOKENS, "<video>"))
    tokenizer.chat_template = IDEFICS_TEMPLATE
    config = SmolVLMConfig(
        text_config={"model_type": "llama", **text_config(tokenizer)},
        vision_config={**TOWER, "image_size": 32, "patch_size": 8},
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        scale_factor=2,
        pad_token_id=None,
    )
    sizes = {"size": {"longest_edge": 64}, "max_image_size": {"longest_edge": 32}}
    SmolVLMImageProcessorPil(processor_class="SmolVLMProcessor", **sizes).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    settings = {"image_seq_len": 4, "processor_class": "SmolVLMProcessor"}
    (folder / "processor_config.json").write_text(json.dumps(settings))
    return saved_model(folder, config)


def make_llava(folder: Path) -> PreTrainedModel:
    """One size of image, one place."""
    tokenizer = tokenizer_with(("<image>",))
    config = LlavaConfig(
        text_config={"model_type": "llama", **text_config(tokenizer)},
        vision_config={
            "model_type": "clip_vision_model",
            **TOWER,
            "image_size": 32,
            "patch_size": 8,
        },
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-1,
    )
    images = CLIPImageProcessorPil(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
    )
    processor = LlavaProcessor(
        images,
        tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )
    return write(folder, config, tokenizer, LLAVA_TEMPLATE, processor)


def make_gemma3(folder: Path) -> PreTrainedModel:
    """Tokens of an image attend to each other both ways."""
    tokens = ("<start_of_image>", "<end_of_image>", "<image_soft_token>")
    names = ("boi_token", "eoi_token", "image_token")
    tokenizer = tokenizer_with(tokens, dict(zip(names, tokens, strict=True)))
    ids = tokenizer.convert_tokens_to_ids
    config = Gemma3Config(
        # An image is longer than the window, and than a block of the tests.
        text_config={
            **text_config(tokenizer),
            "sliding_window": 6,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
            "query_pre_attn_scalar": 16,
        },
        vision_config={**TOWER, "image_size": 32, "patch_size": 8},
        mm_tokens_per_image=16,
        boi_token_index=ids(tokens[0]),
        eoi_token_index=ids(tokens[1]),
        image_token_id=ids(tokens[2]),
        tie_word_embeddings=False,  # tied, a random one says one token for ever
    )
    images = Gemma3ImageProcessorPil(size={"height": 32, "width": 32})
    processor = Gemma3Processor(images, tokenizer, image_seq_length=16)
    return write(folder, config, tokenizer, GEMMA_TEMPLATE, processor)


def write(
    folder: Path,
    config: PreTrainedConfig,
    tokenizer: PreTrainedTokenizerFast,
    template: str,
    processor: ProcessorMixin,
) -> PreTrainedModel:
    """Write a random model to `folder`; return it."""
    tokenizer.chat_template = template
    model = saved_model(folder, config)
    processor.save_pretrained(folder)
    return model


def saved_model(folder: Path, config: PreTrainedConfig) -> PreTrainedModel:
    torch.manual_seed(20240229)
    model = AutoModelForImageTextToText.from_config(
        config, dtype=torch.float32, attn_implementation="eager"
    )
    projector = getattr(model.model, "multi_modal_projector", None)
    if hasattr(projector, "mm_input_projection_weight"):  # begins as zeros
        torch.nn.init.normal_(projector.mm_input_projection_weight)
    model.save_pretrained(folder)
    return model.eval()


TINY_VISION: dict[str, Callable[[Path], PreTrainedModel]] = {
    "qwen2.5-vl": make_qwen,
    "qwen3-vl": make_qwen3,
    "idefics3": make_idefics3,
    "smolvlm": make_smolvlm,
    "llava": make_llava,
    "gemma3": make_gemma3,
}
