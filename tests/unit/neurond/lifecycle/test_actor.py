"""The lives of an actor, event by event."""

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from cortex_core.errors import ErrorInfo
from cortex_core.ids import DeviceName
from neurond.lifecycle.actor import (
    ActorEffect,
    ActorLifecycle,
    ActorState,
    ActorTiming,
    BecameReady,
    EndLife,
    Kill,
    SendConfigure,
    SendShutdown,
    Spawn,
    Stopped,
)

VERSION = 7
TIMING = ActorTiming(handshake_s=10.0, stop_grace_s=2.0, stable_s=60.0, backoff=lambda n: 1.0 * n)


def new() -> ActorLifecycle:
    return ActorLifecycle(DeviceName("cpu"), VERSION, TIMING)


def ready(now: float = 0.0) -> ActorLifecycle:
    actor = new()
    assert actor.start(now) == [Spawn()]
    assert actor.hello(VERSION, now) == [SendConfigure()]
    assert actor.ready(now) == [BecameReady()]
    return actor


def test_a_handshake_leads_to_ready() -> None:
    actor = ready()

    assert actor.device_state == "ready"
    assert actor.tick(1e9) == []


def test_another_protocol_version_is_killed() -> None:
    actor = new()
    actor.start(0.0)

    assert actor.hello(VERSION + 1, 0.0) == [
        Kill("it speaks protocol 8, the supervisor 7", hung=True),
    ]
    (end,) = actor.exited(-9, 0.0)
    assert isinstance(end, EndLife)
    assert "it speaks protocol 8" in end.error.message


@pytest.mark.parametrize("hello", [False, True])
def test_a_handshake_that_takes_too_long_is_killed(hello: bool) -> None:
    actor = new()
    actor.start(0.0)
    if hello:
        actor.hello(VERSION, 5.0)
    begun = 5.0 if hello else 0.0

    assert actor.tick(begun + 9.9) == []
    (kill,) = actor.tick(begun + 10.0)

    assert isinstance(kill, Kill)
    assert actor.tick(begun + 20.0) == []


def test_death_backs_off_and_respawns() -> None:
    actor = ready()

    (end,) = actor.exited(-9, 5.0)

    assert isinstance(end, EndLife)
    assert end.error.code == "device_failed"
    assert "was ended by signal 9" in end.error.message
    assert actor.device_state == "failed"
    assert actor.tick(5.9) == []
    assert actor.tick(6.0) == [Spawn()]
    assert actor.restarts == 1
    assert actor.device_state == "starting"


def test_back_off_grows_and_a_stable_life_clears_it() -> None:
    actor = ready()
    actor.exited(1, 0.0)
    actor.tick(1.0)
    actor.exited(1, 1.0)
    assert actor.tick(2.9) == []
    assert actor.tick(3.0) == [Spawn()]
    actor.hello(VERSION, 3.0)
    actor.ready(3.0)
    assert actor.last_error is None

    actor.exited(1, 63.0)

    assert actor.tick(64.0) == [Spawn()]


def test_a_hung_actor_is_killed_once() -> None:
    actor = ready()

    assert actor.hung("no sign of life") == [Kill("no sign of life", hung=True)]
    assert actor.hung("no sign of life") == []
    (end,) = actor.exited(-9, 1.0)
    assert isinstance(end, EndLife)
    assert "no sign of life" in end.error.message


def test_last_words_get_time_to_exit() -> None:
    actor = ready()
    why = ErrorInfo("internal_error", "the context is broken")

    assert actor.failed(why, 1.0) == []
    assert actor.tick(2.9) == []
    (kill,) = actor.tick(3.0)
    assert isinstance(kill, Kill)
    (end,) = actor.exited(70, 3.1)
    assert isinstance(end, EndLife)
    assert "exited with status 70 (the context is broken)" in end.error.message


def test_a_restart_asks_first_and_spawns_without_a_pause() -> None:
    actor = ready()

    assert actor.restart(10.0) == [SendShutdown()]
    assert actor.restart(10.0) == []
    assert actor.device_state == "starting"
    assert actor.hung("no sign of life") == []
    end, spawn = actor.exited(0, 10.1)

    assert isinstance(end, EndLife)
    assert end.asked_for
    assert spawn == Spawn()
    assert (actor.restarts, actor.last_error) == (1, None)


def test_a_restart_kills_who_does_not_go() -> None:
    actor = ready()
    actor.restart(10.0)

    (kill,) = actor.tick(12.0)

    assert isinstance(kill, Kill)
    assert actor.exited(-9, 12.1)[-1] == Spawn()


def test_only_a_ready_actor_is_restarted() -> None:
    actor = new()
    actor.start(0.0)

    assert actor.restart(0.1) == []
    assert actor.device_state == "starting"


def test_stop_during_a_restart_has_no_next_life() -> None:
    actor = ready()
    actor.restart(10.0)

    assert [type(effect) for effect in actor.stop(10.1)] == [Kill]
    assert actor.exited(-9, 10.2)[-1] == Stopped()


def test_stop_asks_first_and_kills_later() -> None:
    actor = ready()

    assert actor.stop(10.0) == [SendShutdown()]
    assert actor.stop(10.0) == []
    assert actor.device_state == "draining"
    (kill,) = actor.tick(12.0)
    assert isinstance(kill, Kill)
    end, stopped = actor.exited(-9, 12.1)
    assert isinstance(end, EndLife)
    assert stopped == Stopped()
    assert actor.tick(1e9) == []


def test_stop_in_back_off_is_at_once_and_for_good() -> None:
    actor = ready()
    actor.exited(1, 0.0)

    assert actor.stop(0.1) == [Stopped()]
    assert actor.tick(1e9) == []
    assert actor.start(0.2) == []


@pytest.mark.parametrize("hello", [False, True])
def test_stop_of_a_starting_actor_kills_it_at_once(hello: bool) -> None:
    actor = new()
    actor.start(0.0)
    if hello:
        actor.hello(VERSION, 0.1)

    assert actor.stop(0.2) == [Kill("the node is shutting down")]
    assert actor.exited(-9, 0.3)[-1] == Stopped()


def test_stop_of_a_dying_actor_kills_it() -> None:
    actor = ready()
    actor.failed(ErrorInfo("internal_error", "broken"), 0.0)

    (kill,) = actor.stop(0.1)

    assert isinstance(kill, Kill)
    assert actor.exited(-9, 0.2)[-1] == Stopped()


class Lives(RuleBasedStateMachine):
    """Any order of events keeps processes and effects in step."""

    def __init__(self) -> None:
        super().__init__()
        self.actor = new()
        self.now = 0.0
        self.alive = False
        self.stopped = False
        self.stop_asked_s: float | None = None

    def carry_out(self, effects: list[ActorEffect]) -> None:
        for effect in effects:
            if isinstance(effect, Spawn):
                assert not self.alive
                assert self.stop_asked_s is None
                self.alive = True
            elif isinstance(effect, EndLife):
                assert not self.alive
            elif isinstance(effect, Stopped):
                assert not self.alive
                assert not self.stopped
                self.stopped = True
            else:
                assert self.alive

    @initialize()
    def begin(self) -> None:
        self.carry_out(self.actor.start(self.now))

    @rule(seconds=st.sampled_from([0.1, 1.0, 5.0, 100.0]))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.carry_out(self.actor.tick(self.now))

    @precondition(lambda self: self.alive)
    @rule(version=st.sampled_from([VERSION, 1]))
    def say_hello(self, version: int) -> None:
        self.carry_out(self.actor.hello(version, self.now))

    @precondition(lambda self: self.alive)
    @rule()
    def say_ready(self) -> None:
        self.carry_out(self.actor.ready(self.now))

    @precondition(lambda self: self.alive)
    @rule()
    def say_failed(self) -> None:
        self.carry_out(self.actor.failed(ErrorInfo("x", "x"), self.now))

    @precondition(lambda self: self.alive)
    @rule()
    def hang(self) -> None:
        self.carry_out(self.actor.hung("hung"))

    @rule()
    def restart(self) -> None:
        self.carry_out(self.actor.restart(self.now))

    @precondition(lambda self: self.alive)
    @rule(status=st.sampled_from([-9, 0, 1, 70]))
    def exit(self, status: int) -> None:
        self.alive = False
        self.carry_out(self.actor.exited(status, self.now))

    @rule()
    def stop(self) -> None:
        self.stop_asked_s = self.stop_asked_s or self.now
        self.carry_out(self.actor.stop(self.now))

    @invariant()
    def stopped_means_no_process(self) -> None:
        if self.stopped:
            assert not self.alive
            assert self.actor.state is ActorState.STOPPED
        if not self.alive and self.stop_asked_s is not None:
            assert self.stopped

    def teardown(self) -> None:
        """Whatever happened, a stop ends it within its grace time and one exit."""
        self.carry_out(self.actor.stop(self.now))
        if self.alive:
            killed = self.actor.tick(self.now + TIMING.stop_grace_s)
            assert all(isinstance(effect, Kill) for effect in killed)
            self.alive = False
            self.carry_out(self.actor.exited(-9, self.now))
        assert self.stopped


TestLives = Lives.TestCase
