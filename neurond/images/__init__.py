"""Images of requests: from the bytes that a client sent to what a model's vision tower takes."""
