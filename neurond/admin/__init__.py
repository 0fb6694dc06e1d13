"""The node's admin socket."""
