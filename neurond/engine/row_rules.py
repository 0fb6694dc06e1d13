"""What holds for a row whichever sampler chooses its token."""

from cortex_core.canonical import SamplingParams
from cortex_core.errors import ErrorInfo, InternalError
from neurond.engine.batch import Row

MIN_TEMPERATURE = 1e-5
"""Below it the most likely token is taken: logits divided by less may be infinite in float32."""


def temperature_of(sampling: SamplingParams) -> float:
    """Return the temperature, by default 1; 0 is greedy, and so is what comes close to it."""
    temperature = 1.0 if sampling.temperature is None else sampling.temperature
    return temperature if temperature >= MIN_TEMPERATURE else 0.0


def not_finite(row: Row) -> ErrorInfo:
    """Return what a request is told whose logits are NaN or infinite."""
    return InternalError(
        f"cannot choose token {row.num_output_tokens + 1} of the answer: the model's logits are "
        "not finite; its weights may be damaged or overflow in this type"
    ).info()
