"""What `cortex` refuses before it asks anybody."""

import pytest

from cortexd.cli.run import main


def test_a_conversation_is_not_printed_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["chat", "--json"]) == 2

    assert "cortex: cannot print a conversation as JSON: give a question" in capsys.readouterr().err
