"""Real prose and code that is on every machine, so that anybody can measure the same again."""

import argparse
import inspect
import pydoc_data.topics
import tarfile
import textwrap
from typing import Final

from bench.serve.texts import LICENSE

TOPICS: Final = ("types", "exprlists", "naming", "import", "class", "exceptions")
"""Chapters of Python's own language reference, as `help()` shows them."""


def texts() -> dict[str, str]:
    """Return the texts by name, half of them prose, half of them code."""
    topics: dict[str, str] = pydoc_data.topics.topics
    return {
        "GPL 3": LICENSE.read_text(encoding="utf-8"),
        "Python's reference": "\n\n".join(topics[name] for name in TOPICS if name in topics),
        "argparse.py": inspect.getsource(argparse),
        "tarfile.py": inspect.getsource(tarfile),
        "textwrap.py": inspect.getsource(textwrap),
    }
