"""What is a template, and what names the file of one."""

from pathlib import Path

import pytest

from cortex_core.config.template import template_text
from cortex_core.errors import ConfigError

KEY = "models[0].chat_template"


@pytest.mark.parametrize("given", ["{{ messages }}", "{% if a %}", "{# none #}", "User:\nBot:"])
def test_jinja_text_is_taken_as_it_is(tmp_path: Path, given: str) -> None:
    assert template_text(given, file=tmp_path / "models.toml", key=KEY) == given


def test_a_path_is_relative_to_the_file_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "{t}.jinja").write_text("grüße {{ messages }}", encoding="utf-8")
    file = tmp_path / "models.toml"
    assert template_text("{t}.jinja", file=file, key=KEY) == "grüße {{ messages }}"
    assert template_text(str(tmp_path / "{t}.jinja"), file=file, key=KEY).startswith("grüße")


@pytest.mark.parametrize(
    ("given", "cause"),
    [
        ("gone.jinja", "No such file"),
        (".", "Is a directory"),
        ("latin1.jinja", "can't decode byte 0xff"),
        ("a\0b", "null byte"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, given: str, cause: str) -> None:
    (tmp_path / "latin1.jinja").write_bytes(b"\xff")
    with pytest.raises(ConfigError, match=rf"models\[0\]\.chat_template: cannot read .*{cause}"):
        template_text(given, file=tmp_path / "models.toml", key=KEY)
