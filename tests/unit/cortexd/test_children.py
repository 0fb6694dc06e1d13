"""How the two children of the parent end where they cannot begin."""

from collections.abc import Callable

import pytest

from cortex_core.errors import ConfigError, CortexError, InternalError
from cortexd import fleet_actor, http_server
from cortexd.child_env import CONFIG_STATUS, ChildEnvironment


def failing(error: CortexError) -> Callable[[], ChildEnvironment]:
    def fail() -> ChildEnvironment:
        raise error

    return fail


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ConfigError("cannot read cortex.toml: no such file"), CONFIG_STATUS),
        (InternalError("cannot serve fleet.sock: too many open files"), 1),
    ],
)
def test_only_a_wrong_configuration_keeps_the_fleet_actor_from_being_started_again(
    error: CortexError,
    status: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(fleet_actor.ChildEnvironment, "from_environment", failing(error))
    assert fleet_actor.main() == status
    assert error.message in capsys.readouterr().err


def test_a_http_server_that_is_started_by_hand_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hint = "cannot start: this program is started by 'cortex serve'"
    monkeypatch.setattr(
        http_server.ChildEnvironment, "from_environment", failing(ConfigError(hint))
    )
    with pytest.raises(SystemExit) as ended:
        http_server.main()
    assert ended.value.code == CONFIG_STATUS
    assert hint in capsys.readouterr().err
