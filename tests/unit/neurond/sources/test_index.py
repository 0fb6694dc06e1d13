"""Which index pip would ask."""

from pathlib import Path

import pytest

from neurond.sources.index import configured_indexes


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    return {"HOME": str(tmp_path), "PIP_CONFIG_FILE": str(tmp_path / "pip.conf")}


def test_the_environment_goes_before_the_file(home: dict[str, str]) -> None:
    Path(home["PIP_CONFIG_FILE"]).write_text(
        "[global]\nindex-url = https://file.example/simple\nextra-index-url = https://b\n"
    )
    assert configured_indexes(home)[:2] == ["https://file.example/simple", "https://b"]
    asked = home | {"PIP_INDEX_URL": "https://env.example/simple"}
    assert configured_indexes(asked)[0] == "https://env.example/simple"


def test_several_extra_indexes_come_in_order(home: dict[str, str]) -> None:
    env = home | {"PIP_EXTRA_INDEX_URL": "https://a\n https://b"}
    assert configured_indexes(env)[1:] == ["https://a", "https://b"]


def test_a_broken_file_is_pips_to_complain_about(home: dict[str, str]) -> None:
    Path(home["PIP_CONFIG_FILE"]).write_text("no ini at all")
    assert configured_indexes(home)[0].startswith("http")
