"""What an operator can ask of the fleet actor over its admin socket."""
