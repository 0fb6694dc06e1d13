"""The device actor: one process that owns a device, its weights, its KV cache and its engines.

Importing this package, and `neurond.actor.main`, imports nothing heavy: a new process must be tied
to its parent first.
"""
