"""Conversations that are cut to a context: what goes, what stays, and how much."""

from cortex_core.canonical import (
    ChatPrompt,
    Message,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)
from cortex_core.errors import InvalidRequest
from neurond.text.truncation import shortened


def turn(role: str, text: str) -> Message:
    return Message(role, (TextPart(text),))  # type: ignore[arg-type]


def call(id_: str) -> Message:
    return Message("assistant", (ToolCallPart(id_, "look", "{}"),))


def result(id_: str) -> Message:
    return Message("tool", (ToolResultPart(id_, (TextPart("seen"),)),))


def names(prompt: ChatPrompt | None) -> list[str] | None:
    """What is left, by a word for each turn."""
    if prompt is None:
        return None
    words = []
    for message in prompt.messages:
        match message.content[0]:
            case TextPart(text):
                words.append(text)
            case ToolCallPart(id=id_):
                words.append(f"call {id_}")
            case ToolResultPart(call_id=id_):
                words.append(f"result {id_}")
    return words


def cut(messages: list[Message], most: int) -> list[str] | None:
    """Cut to so many turns, each counting one."""
    return names(
        shortened(
            ChatPrompt(tuple(messages)), most_tokens=most, count=lambda each: len(each.messages)
        )
    )


TALK = [
    turn("system", "be brief"),
    turn("user", "u1"),
    turn("assistant", "a1"),
    turn("user", "u2"),
    turn("developer", "mind this"),
    turn("assistant", "a2"),
    turn("user", "u3"),
]


def test_the_oldest_turns_go_and_system_turns_stay() -> None:
    assert cut(TALK, 6) == ["be brief", "u2", "mind this", "a2", "u3"]
    assert cut(TALK, 5) == ["be brief", "u2", "mind this", "a2", "u3"]
    assert cut(TALK, 4) == ["be brief", "mind this", "u3"]
    assert cut(TALK, 3) == ["be brief", "mind this", "u3"]


def test_the_last_turn_is_never_left_out() -> None:
    assert cut(TALK, 2) is None
    assert cut([turn("user", "u1")], 0) is None
    assert cut([turn("system", "s"), turn("user", "u1")], 1) is None


AGENT = [
    turn("user", "do it"),
    call("1"),
    result("1"),
    Message("assistant", (ToolCallPart("2", "look", "{}"), ToolCallPart("3", "look", "{}"))),
    result("2"),
    result("3"),
    call("4"),
    result("4"),
]


def test_a_call_goes_with_its_results() -> None:
    whole = ["do it", "call 1", "result 1", "call 2", "result 2", "result 3", "call 4", "result 4"]
    assert cut(AGENT, 7) == whole[1:]
    assert cut(AGENT, 6) == whole[3:]
    assert cut(AGENT, 4) == whole[6:]
    assert cut(AGENT, 1) is None


def test_a_result_that_comes_late_keeps_its_call() -> None:
    late = [turn("user", "u1"), call("1"), turn("user", "u2"), result("1"), turn("user", "u3")]
    assert cut(late, 4) == ["u3"], "the user's turns between are not for cutting at"
    assert cut(late[:-1], 3) == ["call 1", "u2", "result 1"]


def test_calls_that_have_the_same_id_in_each_turn_are_told_apart() -> None:
    again = [
        turn("user", "u1"),
        *(call("1"), result("1")),
        turn("user", "u2"),
        *(call("1"), result("1")),
        turn("user", "u3"),
    ]
    assert cut(again, 6) == ["u2", "call 1", "result 1", "u3"]
    assert cut(again, 3) == ["u3"]


def test_a_template_that_wants_a_user_first_decides() -> None:
    def count(prompt: ChatPrompt) -> int:
        if prompt.messages[0].role != "user":
            raise InvalidRequest("roles must alternate")
        return len(prompt.messages)

    talk = ChatPrompt(tuple(message for message in TALK if message.role != "system"))
    assert names(shortened(talk, most_tokens=4, count=count)) == ["u2", "mind this", "a2", "u3"]
    assert shortened(ChatPrompt(tuple(AGENT)), most_tokens=4, count=count) is None


def test_what_a_template_refuses_is_not_taken_for_short() -> None:
    talk = [turn("user", f"u{number}") for number in range(8)]

    def count(prompt: ChatPrompt) -> int:
        if len(prompt.messages) == 4:
            raise InvalidRequest("not so")
        return len(prompt.messages)

    for most in range(1, 8):
        short = shortened(ChatPrompt(tuple(talk)), most_tokens=most, count=count)
        assert short is not None
        assert len(short.messages) == (3 if most == 4 else most)

    def count_few(prompt: ChatPrompt) -> int:
        if len(prompt.messages) in (4, 5):
            raise InvalidRequest("not so")
        return 10 * len(prompt.messages) - 9 * (len(prompt.messages) == 6)

    short = shortened(ChatPrompt(tuple(talk)), most_tokens=10, count=count_few)
    assert short is not None
    assert count_few(short) <= 10
