"""`cortex up`: gateway, fleet actor and one neuron on this machine, in the foreground.

Starts both daemons as commands of their own and imports neither.
"""
