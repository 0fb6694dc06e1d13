"""Small GGUF files and wheels that hold them."""

import hashlib
import struct
import zipfile
from pathlib import Path

STRING = 8


def _text(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def gguf_bytes(*, architecture: str = "llama", tensor_elements: int = 64) -> bytes:
    """A whole GGUF with some metadata and one float32 tensor."""
    entries = [
        _text("general.architecture") + struct.pack("<I", STRING) + _text(architecture),
        _text("general.name") + struct.pack("<I", STRING) + _text("made"),
        _text("llama.block_count") + struct.pack("<II", 4, 2),
        _text("tokenizer.ggml.tokens")
        + struct.pack("<IIQ", 9, STRING, 3)
        + b"".join(_text(token) for token in ("a", "b", "é")),
        _text("tokenizer.ggml.scores") + struct.pack("<IIQ3f", 9, 6, 3, 0.0, 1.0, 2.0),
    ]
    table = _text("token_embd.weight") + struct.pack("<IQIQ", 1, tensor_elements, 0, 0)
    head = b"GGUF" + struct.pack("<IQQ", 3, 1, len(entries)) + b"".join(entries) + table
    padding = -len(head) % 32
    return head + b"\0" * padding + b"\1" * (4 * tensor_elements)


def write_wheel(path: Path, members: dict[str, bytes], *, requires: tuple[str, ...] = ()) -> bytes:
    """Write a wheel at `path`; returns its bytes. The project's name is that of the file."""
    project, version = path.name.split("-")[:2]
    metadata = f"Metadata-Version: 2.1\nName: {project.replace('_', '-')}\nVersion: {version}\n"
    metadata += "".join(f"Requires-Dist: {line}\n" for line in requires)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{project}-{version}.dist-info/METADATA", metadata)
        for name, content in members.items():
            archive.writestr(name, content)
    return path.read_bytes()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
