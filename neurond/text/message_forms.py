"""Forms of a conversation for templates that refuse it as it is, or show it in part. Pure."""

from collections.abc import Iterator
from itertools import chain

from neurond.text.call_forms import with_single_calls, with_text_before_calls
from neurond.text.image_marks import has_image, without_images
from neurond.text.messages import TemplateMessage
from neurond.text.shown_turns import ALL_SHOWN, ShownTurns


def forms(
    messages: list[TemplateMessage], shown: ShownTurns = ALL_SHOWN
) -> Iterator[list[TemplateMessage]]:
    """Yield the conversation as it is, then in forms that more templates take, the nearest first.

    A form whose system turns are not `shown` is left out: the template takes it, and loses them.
    Where it loses calls, or text beside them, the forms begin with the one that it shows.

    Turns that a template demands to alternate are counted by some without calls and their results
    (Mistral's): there a user turn behind a result is one too many. Others take one call in a turn
    (Llama's), or show no images of a result.
    """
    tried: list[list[TemplateMessage]] = []
    for form in chain(_candidates(_with_shown_calls(messages, shown)), _candidates(messages)):
        if form not in tried and _is_shown(form, shown):
            tried.append(form)
            yield form


def _with_shown_calls(messages: list[TemplateMessage], shown: ShownTurns) -> list[TemplateMessage]:
    if not shown.text_beside_calls:
        messages = with_text_before_calls(messages)
    return messages if shown.several_calls else with_single_calls(messages)


def _is_shown(messages: list[TemplateMessage], shown: ShownTurns) -> bool:
    systems = [at for at, message in enumerate(messages) if message["role"] == "system"]
    if not systems:
        return True
    return shown.leading_system and (shown.several_systems or systems == [0])


def _candidates(messages: list[TemplateMessage]) -> Iterator[list[TemplateMessage]]:
    yield messages
    alternating = accommodated(messages)
    for calls in (alternating, with_single_calls(alternating)):
        for form in (calls, with_text_in_results(calls)):
            yield form
            yield without_leading_system(form)
    if any(message["role"] == "tool" and has_image(message["content"]) for message in messages):
        yield from _candidates(with_images_behind_results(messages))


def accommodated(messages: list[TemplateMessage]) -> list[TemplateMessage]:
    """Return the conversation with one system message, in the first place, roles alternating.

    Those in front become one. Later ones become user turns, where they stand, so that the front of
    the prompt stays the same; adjacent turns of one role become one.
    """
    result: list[TemplateMessage] = []
    for message in messages:
        role = message["role"]
        if role == "system" and any(each["role"] != "system" for each in result):
            message = {**message, "role": "user"}
        if result and _mergeable(result[-1], message):
            joined = f"{result[-1]['content']}\n\n{message['content']}"
            result[-1] = {**result[-1], "content": joined}
        else:
            result.append(message)
    return result


def without_leading_system(messages: list[TemplateMessage]) -> list[TemplateMessage]:
    """Return the conversation with a leading system message put in front of the first user turn.

    Where that does not follow, it becomes a user turn.
    """
    if not messages or messages[0]["role"] != "system":
        return messages
    if len(messages) < 2 or messages[1]["role"] != "user":
        return [{**messages[0], "role": "user"}, *messages[1:]]
    system, user = messages[0], messages[1]
    joined = {**user, "content": f"{system['content']}\n\n{user['content']}"}
    return [joined, *messages[2:]]


def with_text_in_results(messages: list[TemplateMessage]) -> list[TemplateMessage]:
    """Return the conversation with user turns behind a tool's result as part of that result."""
    result: list[TemplateMessage] = []
    for message in messages:
        if message["role"] == "user" and result and result[-1]["role"] == "tool":
            joined = f"{result[-1]['content']}\n\n{message['content']}"
            result[-1] = {**result[-1], "content": joined}
        else:
            result.append(message)
    return result


def with_images_behind_results(messages: list[TemplateMessage]) -> list[TemplateMessage]:
    """Return the conversation with images of tools' results in a user turn behind them."""
    result: list[TemplateMessage] = []
    waiting = ""
    for message in messages:
        if message["role"] == "tool":
            text, marks = without_images(message["content"])
            waiting += marks
            result.append({**message, "content": text})
            continue
        if waiting:
            result.append({"role": "user", "content": waiting})
            waiting = ""
        result.append(message)
    if waiting:
        result.append({"role": "user", "content": waiting})
    return result


def _mergeable(first: TemplateMessage, second: TemplateMessage) -> bool:
    plain = {"role", "content"}
    return first["role"] == second["role"] and set(first) <= plain and set(second) <= plain
