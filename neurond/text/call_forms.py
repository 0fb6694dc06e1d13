"""Forms of turns with calls, for templates that do not show them as they are. Pure."""

from collections.abc import Iterator

from neurond.text.messages import TemplateMessage


def with_text_before_calls(messages: list[TemplateMessage]) -> list[TemplateMessage]:
    """Return the conversation with text that stands beside calls as a turn before them.

    Thoughts come first, and go with the text.
    """
    result: list[TemplateMessage] = []
    for message in messages:
        calls = message.get("tool_calls")
        if calls and message["content"]:
            result.append({key: value for key, value in message.items() if key != "tool_calls"})
            message = {"role": message["role"], "content": "", "tool_calls": calls}
        result.append(message)
    return result


def with_single_calls(messages: list[TemplateMessage]) -> list[TemplateMessage]:
    """Return the conversation with one call in a turn, its result behind it.

    The first of the turns that a turn becomes has its text and thoughts. Results of no call of the
    turn stay behind all of them.
    """
    result: list[TemplateMessage] = []
    at = 0
    while at < len(messages):
        message = messages[at]
        at += 1
        calls = message.get("tool_calls") or ()
        if len(calls) < 2:
            result.append(message)
            continue
        end = at
        while end < len(messages) and messages[end]["role"] == "tool":
            end += 1
        result += _single_calls(message, messages[at:end])
        at = end
    return result


def _single_calls(
    message: TemplateMessage, results: list[TemplateMessage]
) -> Iterator[TemplateMessage]:
    by_id: dict[str, list[TemplateMessage]] = {}
    for result in results:
        by_id.setdefault(result["tool_call_id"], []).append(result)
    turn = message
    for call in message["tool_calls"]:
        yield {**turn, "tool_calls": [call]}
        yield from by_id.pop(call["id"], ())
        turn = {"role": message["role"], "content": ""}
    for others in by_id.values():
        yield from others
