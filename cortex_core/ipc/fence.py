"""A memory barrier for shared memory that Python writes and another process reads.

x86-64 keeps stores in order and loads in order by itself. arm64 does not, and Python has no fence.
Releasing a lock and then taking it again is one: in ARMv8's model everything before a release is
seen before anything after a later acquire, and CPython's lock is a POSIX semaphore whose post
releases and whose wait acquires. It costs well under a microsecond, so it is done everywhere.

That a counter is never seen half written is a different matter: an aligned item of a memoryview
cast to "Q", "d" or "I" is written by one fixed-size memcpy, which compiles to one store.
"""

import threading


class Fence:
    """Call it between writes (or reads) whose order another process relies on.

    For one thread only; it never blocks, because nobody else has the lock.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def __call__(self) -> None:
        self._lock.release()
        self._lock.acquire()
