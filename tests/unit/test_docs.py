"""The documentation names what is there: paths, links, metrics, error codes, admin verbs."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from cortex_core import errors
from cortexd.admin.verbs import AdminVerbs
from cortexd.metrics import GatewayMetrics
from neurond.admin.verbs import admin_handlers

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
FOLDERS = ("bench", "cortex_core", "cortexd", "docs", "etc", "neurond", "rpm", "tests")

FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\[[^\]\n]*\]\(([^)\s]+)\)")
PATH = re.compile(rf"^(?:{'|'.join(FOLDERS)})/[\w./*<>{{}},-]+$")
CHOICE = re.compile(r"\{([^{}]*)\}")
METRIC = re.compile(r"^(?:cortex|neuron)_[a-z0-9_]+$")
CORE_ERRORS = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, errors.CortexError)
]


def read(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def prose(page: Path) -> str:
    return FENCE.sub("", page.read_text(encoding="utf-8"))


def alternatives(pattern: str) -> Iterator[str]:
    """Yield what `a/{b,c}` stands for: `a/b` and `a/c`."""
    choice = CHOICE.search(pattern)
    if choice is None:
        yield pattern
        return
    for option in choice[1].split(","):
        yield from alternatives(pattern[: choice.start()] + option + pattern[choice.end() :])


def exists(path: str) -> bool:
    """Say whether a path of the repository, with wildcards or without `.py`, is there."""
    pattern = re.sub(r"<[^<>]*>", "*", path).rstrip("/")
    return any(True for end in ("", ".py") for _ in ROOT.glob(pattern + end))


def heading_anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ +(.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in headings}


def metric_literals(path: str) -> set[str]:
    """Return the names of metrics that stand as text in a module."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    texts = (node.value for node in ast.walk(tree) if isinstance(node, ast.Constant))
    return {text for text in texts if isinstance(text, str) and METRIC.match(text)}


def worker_metrics() -> set[str]:
    registry = CollectorRegistry()
    GatewayMetrics(registry)
    families = registry.collect()
    return {one.name + ("_total" if one.type == "counter" else "") for one in families}


def verbs() -> list[tuple[str, str]]:
    nobody: Any = None
    conductor: Any = SimpleNamespace(dispatcher=None)
    gateway = AdminVerbs(conductor, nobody, lambda: 0).handlers()
    node = admin_handlers(nobody, nobody, 0.0)
    return [("cortexd", verb) for verb in gateway] + [("neurond", verb) for verb in node]


def test_the_checks_find_what_they_look_for() -> None:
    assert list(alternatives("a/{b,c}.py")) == ["a/b.py", "a/c.py"]
    assert exists("cortexd/fleet/router")
    assert exists("cortex_core/dialects/<dialect>.py")
    assert not exists("cortexd/fleet/no_such_module")
    assert "cortex_node_up" in metric_literals("cortexd/fleet/metrics.py")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_path_that_a_page_names_is_there(page: Path) -> None:
    named = [path for span in SPAN.findall(prose(page)) for path in alternatives(span)]
    missing = [path for path in named if PATH.match(path) and not exists(path)]
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_within_the_repository_leads_somewhere(page: Path) -> None:
    broken = []
    for target in LINK.findall(prose(page)):
        if "://" in target or target.startswith("mailto:"):
            continue
        name, _, anchor = target.partition("#")
        other = (page.parent / name).resolve() if name else page
        wrong_anchor = anchor and other.suffix == ".md" and anchor not in heading_anchors(other)
        if not other.exists() or wrong_anchor:
            broken.append(target)
    assert broken == []


def test_operations_names_every_metric() -> None:
    metrics = worker_metrics()
    metrics |= metric_literals("cortexd/fleet/metrics.py")
    metrics |= metric_literals("neurond/metrics.py")
    assert len(metrics) > 30
    text = read("operations.md")
    unnamed = [name for name in sorted(metrics) if not re.search(rf"`{name}(_total)?`", text)]
    assert unnamed == []


def test_protocol_has_a_row_for_every_error_code_with_its_status() -> None:
    text = read("protocol.md")
    missing = [
        (kind.code, kind.status)
        for kind in CORE_ERRORS
        if f"\n| `{kind.code}` | {kind.status} |" not in text
    ]
    assert missing == []


def test_protocol_has_a_row_for_every_admin_verb() -> None:
    sections = read("protocol.md").partition("## Admin sockets")[2].partition("\nneurond:\n")
    tables = {"cortexd": sections[0], "neurond": sections[2]}
    missing = [
        (daemon, verb) for daemon, verb in verbs() if f"\n| `{verb}` |" not in tables[daemon]
    ]
    assert missing == []
