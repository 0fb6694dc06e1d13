"""The states of a model, event by event."""

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from cortex_core.errors import ErrorInfo
from cortex_core.ids import ModelId
from neurond.lifecycle.model import (
    MAX_RELOADS,
    Abandon,
    Fetch,
    Load,
    ModelEffect,
    ModelLifecycle,
    Settle,
    Unload,
)

DEATH = ErrorInfo("device_failed", "the actor died")
BROKEN = ErrorInfo("model_load_failed", "truncated")


def new() -> ModelLifecycle:
    return ModelLifecycle(ModelId("file:m"))


def loading() -> ModelLifecycle:
    model = new()
    assert model.load_requested() == [Fetch()]
    assert model.fetched() == [Load()]
    return model


def ready() -> ModelLifecycle:
    model = loading()
    assert model.loaded() == [Settle(None)]
    return model


def test_a_load_joins_the_one_under_way() -> None:
    model = new()
    model.load_requested()

    assert model.load_requested() == []
    model.fetched()
    assert model.load_requested() == []
    model.loaded()
    assert model.load_requested() == []
    assert model.state == "ready"


def test_a_load_is_not_blamed_for_a_restart_that_was_asked_for() -> None:
    model = loading()

    assert model.actor_died(DEATH, asked_for=True) == [Load()]
    assert model.loaded() == [Settle(None)]


def test_a_failed_load_keeps_its_error_and_can_be_tried_again() -> None:
    model = loading()

    assert model.load_failed(BROKEN) == [Settle(BROKEN)]
    assert (model.state, model.error) == ("failed", BROKEN)
    assert model.load_requested() == [Fetch()]
    assert model.error is None


def test_a_loaded_model_is_loaded_again_after_a_death() -> None:
    model = ready()

    assert model.actor_died(DEATH) == [Load()]
    assert model.state == "loading"
    assert model.loaded() == [Settle(None)]


def test_a_first_load_that_kills_the_actor_is_not_repeated() -> None:
    model = loading()

    assert model.actor_died(DEATH) == [Settle(DEATH)]
    assert model.state == "failed"


def test_reloads_end_after_some_deaths_in_a_row() -> None:
    model = ready()

    outcomes = [model.actor_died(DEATH) for _ in range(MAX_RELOADS + 1)]

    assert outcomes == [[Load()]] * MAX_RELOADS + [[Settle(DEATH)]]


def test_a_reload_that_succeeds_clears_the_count() -> None:
    model = ready()
    for _ in range(2 * MAX_RELOADS):
        assert model.actor_died(DEATH) == [Load()]
        model.loaded()

    assert model.state == "ready"


def test_a_busy_model_drains_before_it_goes() -> None:
    model = ready()

    assert model.unload_requested(busy=True, force=False) == []
    assert model.state == "draining"
    assert model.drained() == [Unload()]
    assert model.unloaded() == [Settle(None)]
    assert model.state == "unloaded"


def test_force_ends_a_drain() -> None:
    model = ready()
    model.unload_requested(busy=True, force=False)

    assert model.unload_requested(busy=True, force=True) == [Unload()]


def test_an_idle_model_goes_at_once() -> None:
    assert ready().unload_requested(busy=False, force=False) == [Unload()]


def test_unload_while_fetching_abandons_the_fetch() -> None:
    model = new()
    model.load_requested()

    abandon, settle = model.unload_requested(busy=False, force=False)

    assert abandon == Abandon()
    assert isinstance(settle, Settle)
    assert settle.error is not None
    assert model.fetched() == []
    assert model.state == "unloaded"


def test_unload_while_loading_waits_for_the_load() -> None:
    model = loading()

    assert model.unload_requested(busy=False, force=False) == []
    settle, unload = model.loaded()

    assert isinstance(settle, Settle)
    assert settle.error is not None
    assert unload == Unload()


def test_a_death_finishes_an_unload() -> None:
    for busy in (True, False):
        model = ready()
        model.unload_requested(busy=busy, force=False)

        assert model.actor_died(DEATH) == [Settle(None)]
        assert model.state == "unloaded"


class States(RuleBasedStateMachine):
    """Any order of events: effects come in pairs, and nobody waits for ever."""

    def __init__(self) -> None:
        super().__init__()
        self.model = new()
        self.fetching = False
        self.at_actor = False

    def carry_out(self, effects: list[ModelEffect]) -> None:
        for effect in effects:
            if isinstance(effect, Fetch):
                assert not self.fetching
                self.fetching = True
            elif isinstance(effect, Load):
                assert not self.at_actor
                self.at_actor = True
            elif isinstance(effect, Unload):
                assert self.at_actor
            elif isinstance(effect, Abandon):
                assert self.fetching
                self.fetching = False

    @rule()
    def load(self) -> None:
        self.carry_out(self.model.load_requested())

    @rule(fits=st.booleans())
    def fetched(self, fits: bool) -> None:
        if self.fetching:
            self.fetching = False
            event = self.model.fetched() if fits else self.model.load_failed(BROKEN)
            self.carry_out(event)

    @rule(works=st.booleans())
    def loaded(self, works: bool) -> None:
        if self.at_actor and self.model.state == "loading":
            self.at_actor = works
            self.carry_out(self.model.loaded() if works else self.model.load_failed(BROKEN))

    @rule(busy=st.booleans(), force=st.booleans())
    def unload(self, busy: bool, force: bool) -> None:
        self.carry_out(self.model.unload_requested(busy=busy, force=force))

    @rule()
    def drained(self) -> None:
        self.carry_out(self.model.drained())

    @rule()
    def unloaded(self) -> None:
        if self.model.state == "unloading":
            self.at_actor = False
            self.carry_out(self.model.unloaded())

    @rule()
    def die(self) -> None:
        self.at_actor = False
        self.carry_out(self.model.actor_died(DEATH))

    @invariant()
    def state_matches_who_works_on_it(self) -> None:
        assert self.fetching == (self.model.state == "fetching")
        held = ("loading", "ready", "draining", "unloading")
        assert self.at_actor == (self.model.state in held)


TestStates = States.TestCase
