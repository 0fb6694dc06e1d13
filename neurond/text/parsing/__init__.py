"""What a model says, taken apart: answer, thoughts and calls of tools, by the model's format."""
