"""First code of a new actor process. Imports nothing heavy before it is tied to its parent."""

import logging
import os
import signal
import sys
from pathlib import Path

from cortex_core.ipc.parent import die_with_parent, write_stacks_on_signal
from neurond.actor.launch import Launch


def actor_main(launch: Launch) -> None:
    """Run an actor until it is told to exit; the target of the spawned process.

    Terminals and service managers send INT and TERM to every process of a group, while it is the
    supervisor that drains and then ends its actors; so both are ignored here. An actor ends by
    `Shutdown`, by its parent's death, or by SIGKILL.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    die_with_parent(launch.death.fd, launch.parent_pid)
    write_stacks_on_signal()
    Path("/proc/self/comm").write_text(f"neuron:{launch.device}"[:15])
    os.environ.update(launch.environment)

    # Torch, and whatever else reads the environment when it is loaded, comes in from here on.
    from neurond.actor.process import run_actor

    status = run_actor(launch)
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    # Taking the interpreter and torch down piece by piece takes seconds and can hang; the end of
    # the process frees the same memory and the same device.
    os._exit(status)
