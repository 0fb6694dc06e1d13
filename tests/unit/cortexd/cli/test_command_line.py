"""What `cortex` refuses before it asks anybody."""

import math

import pytest

from cortex_core.errors import InvalidRequest
from cortex_core.ipc.admin import ProgressSink, typed
from cortexd.admin.types import DrainArgs, UnloadArgs
from cortexd.cli.run import main


def test_a_conversation_is_not_printed_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["chat", "--json"]) == 2

    assert "cortex: cannot print a conversation as JSON: give a question" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "cause"),
    [
        (["chat", "Hi", "--max-tokens", "many"], "expected a whole number of 1 to 2147483647"),
        (["chat", "Hi", "--max-tokens", "0"], "expected a whole number of 1 to 2147483647"),
        (["up", "--gateway-port", "x"], "expected a whole number of 1 to 65535, got 'x'"),
        (["up", "--gateway-port", "65536"], "expected a whole number of 1 to 65535"),
        (["drain", "beast", "--timeout", "soon"], "expected 0 to 86400 seconds, got 'soon'"),
        (["drain", "beast", "--timeout", "-1"], "expected 0 to 86400 seconds"),
        (["drain", "beast", "--timeout", "nan"], "expected 0 to 86400 seconds"),
        (["drain", "beast", "--timeout", "inf"], "expected 0 to 86400 seconds"),
    ],
)
def test_a_wrong_number_is_named(
    capsys: pytest.CaptureFixture[str], arguments: list[str], cause: str
) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(arguments)

    assert exit_.value.code == 2
    assert f"argument {arguments[-2]}: {cause}" in capsys.readouterr().err


@pytest.mark.parametrize("timeout_s", [-1.0, math.nan, math.inf])
@pytest.mark.parametrize("args", [{"node": "beast"}, {"model": "small"}])
async def test_a_verb_refuses_a_wait_without_a_bound(
    args: dict[str, str], timeout_s: float
) -> None:
    async def run(args: object, progress: ProgressSink) -> object:
        raise AssertionError("was run")

    handler = typed(DrainArgs if "node" in args else UnloadArgs, run)

    expected = "timeout_s: expected a number >= 0 and <= 86400, got"
    with pytest.raises(InvalidRequest, match=expected):
        await handler({**args, "timeout_s": timeout_s}, lambda _: None)
