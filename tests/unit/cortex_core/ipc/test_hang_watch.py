"""When silence counts."""

from cortex_core.ipc.liveness import HangWatch, Liveness, Phase

STEP = Liveness(step=7, phase=Phase.STEPPING, entered_monotonic_s=100.0, deadline_s=5.0)


def test_silence_counts_at_the_second_look() -> None:
    watch = HangWatch()

    assert watch.look(STEP, 105.0) is None
    assert watch.look(STEP, 105.1) is None
    assert watch.look(STEP, 105.2) == (
        "no sign of life for 5.2 s while stepping, allowed are 5 s (after step 7)"
    )


def test_a_sign_of_life_between_two_looks_clears_it() -> None:
    watch = HangWatch()
    assert watch.look(STEP, 1000.0) is None

    # The whole host had slept; the actor woke and went on.
    assert watch.look(STEP._replace(step=8, entered_monotonic_s=1000.05), 1000.1) is None
    assert watch.look(STEP._replace(step=8, entered_monotonic_s=1000.05), 1004.0) is None


def test_no_record_and_no_deadline_are_no_hang() -> None:
    watch = HangWatch()

    for now in (1e6, 1e6 + 1, 1e6 + 2):
        assert watch.look(None, now) is None
        assert watch.look(STEP._replace(deadline_s=None), now) is None
