"""Images that were read: who may read on, and that all is given back."""

from neurond.images.held import HeldImages


class Held:
    def __init__(self) -> None:
        self.changes = 0
        self.images = HeldImages(100, self._changed)

    def _changed(self) -> None:
        self.changes += 1

    def may_read(self, *requests: str) -> list[bool]:
        return [self.images.may_read(request) for request in requests]


def test_a_full_room_stops_all_but_the_oldest() -> None:
    held = Held()
    for request in ("old", "young"):
        held.images.begin(request)
    held.images.hold("old", 40)
    assert held.may_read("old", "young") == [True, True]
    held.images.hold("young", 60)
    assert held.may_read("old", "young") == [True, False]
    held.images.hold("old", 500)
    assert held.may_read("old", "young") == [True, False]


def test_what_is_on_its_way_is_waited_for_by_all() -> None:
    held = Held()
    held.images.begin("done")
    lease = held.images.hold("done", 100)
    held.images.begin("next")
    assert held.may_read("done", "next") == [True, False]
    held.images.end("done")
    assert held.may_read("next") == [False]
    before = held.changes
    lease.release()
    lease.release()
    assert held.changes == before + 1
    assert held.may_read("next") == [True]
    assert held.images.held_bytes == 0


def test_one_that_fails_gives_back_while_it_is_read() -> None:
    held = Held()
    held.images.begin("a")
    held.images.begin("b")
    leases = [held.images.hold("a", 70), held.images.hold("a", 70)]
    assert held.may_read("b") == [False]
    for lease in leases:
        lease.release()
    held.images.end("a")
    assert held.may_read("b") == [True]
    assert held.images.held_bytes == 0
