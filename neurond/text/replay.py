"""Taking up a stream where it stopped: its earlier output is fed again, silently. Pure."""

from typing import Final

from cortex_core.canonical import ContinueFrom, Event, GenerateRequest
from cortex_core.errors import InvalidRequest
from neurond.stream_items import Token
from neurond.text.output import RequestOutput
from neurond.text.vocabulary import check_token_ids

MOST_SET_FREE: Final = 3
"""Events before `Finished` that the end of a choice can lead to: text that was held for a stop
string, and the beginning and the arguments of a call that it cut."""


def check_continuation(
    request: GenerateRequest, going_on: ContinueFrom, *, vocab_size: int
) -> None:
    """Refuse what cannot be continued.

    Raises:
        InvalidRequest: the request has several choices, no prompt, or ids that the model lacks.
    """
    if request.n != 1:
        raise InvalidRequest(
            f"cannot continue a request of {request.n} choices", param="continue_from"
        )
    if not going_on.prompt_token_ids:
        raise InvalidRequest(
            "cannot continue without the prompt's token ids",
            param="continue_from.prompt_token_ids",
        )
    for field in ("prompt_token_ids", "output_token_ids"):
        ids: tuple[int, ...] = getattr(going_on, field)
        check_token_ids(ids, vocab_size, param=f"continue_from.{field}")


def replay_output(
    output: RequestOutput, token_ids: tuple[int, ...], room: int, going_on: ContinueFrom | None
) -> list[Event]:
    """Feed earlier output; returns what was not sent yet, with the end if the answer has one.

    Args:
        output: fresh, made for `going_on.next_seq`.
        token_ids: the earlier output.
        room: tokens that may still follow it.
        going_on: None for a request that is not continued.

    Raises:
        InvalidRequest: so many events cannot have come of so few tokens.
    """
    events: list[Event] = []
    for token_id in token_ids:
        if not output.all_finished:
            events += output.feed(Token(0, token_id))
    if token_ids and not output.all_finished:
        if output.ends_at(token_ids[-1]):
            events += output.finish(0, "stop")
        elif room <= 0:
            events += output.finish(0, "length")
    # What the end of a choice sets free, text or a call that it cut, has numbers, but no tokens.
    if going_on is not None and going_on.next_seq > output.next_seq + MOST_SET_FREE:
        raise InvalidRequest(
            f"cannot continue at event {going_on.next_seq}: these {len(token_ids)} tokens make "
            f"{output.next_seq}",
            param="continue_from.next_seq",
        )
    return events
