"""`python -m bench.peers.convert FOLDER GGUF TARGET`: writes a bfloat16 checkpoint.

A process of its own: it needs torch, transformers and the memory for all weights.
"""

import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig


def convert(folder: Path, gguf: str, target: Path) -> None:
    """Write the model and its tokenizer to `target`."""
    model = AutoModelForCausalLM.from_pretrained(
        folder,
        gguf_file=gguf,
        dtype=torch.bfloat16,
        quantization_config=GgufConfig(dequantize=True),
    )
    model.save_pretrained(target)
    AutoTokenizer.from_pretrained(folder, gguf_file=gguf).save_pretrained(target)


if __name__ == "__main__":
    convert(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
