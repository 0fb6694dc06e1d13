"""Sizes of the two segments that the fleet actor and the HTTP workers share.

The parent process creates both, so that they outlive the actor and any worker. The in-flight
table has one row for each HTTP worker, written by that worker alone, and two columns for each
replica: what is in flight on it now, and how many requests it was ever given (wrapping).
"""

MAX_REPLICAS = 256
"""Replicas the fleet can know of at a time; more are not routed to, and that is logged."""

IN_FLIGHT_COLUMNS = 2 * MAX_REPLICAS

SNAPSHOT_BYTES = 4 * 1024 * 1024


def started_column(replica_column: int) -> int:
    """Return the column that counts the requests ever given to the replica."""
    return MAX_REPLICAS + replica_column
