"""The supervisor: one device actor per device, the models on them, and their token streams.

It runs on the daemon's only event loop, in the main thread, and imports no torch. `Supervisor` is
what the rest of the daemon calls; everything else here serves it.
"""
