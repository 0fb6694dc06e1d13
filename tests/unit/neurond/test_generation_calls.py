"""Calls that may be, through generation: held from their marker on where that can be."""

import msgspec

from cortex_core.canonical import (
    ChatPrompt,
    Event,
    Finished,
    GenerateRequest,
    Message,
    SamplingParams,
    TextPart,
    Tool,
    ToolCallDelta,
    ToolCallStarted,
    ToolChoice,
)
from cortex_core.ids import RequestId
from neurond.engine.triggers import DeviceFormat
from tests.fakes.generation_rig import MODEL, TOKENIZER, Rig, says, text_of

BEGUN = '<tool_call>\n{"name": "say", "arguments": {"it": "a'


async def events_of(rig: Rig, *tools: Tool) -> list[Event]:
    prompt = ChatPrompt(
        (Message("user", (TextPart("hi"),)),), tools=tools, tool_choice=ToolChoice("auto")
    )
    return await rig.run(GenerateRequest(RequestId("r"), MODEL, prompt, SamplingParams()))


async def test_a_call_behind_its_marker_is_held_and_told_as_it_is_written() -> None:
    rig = Rig(says(f"Well. {BEGUN}", end=False))
    events = await events_of(rig, Tool("say"))
    [job] = rig.engine.jobs
    wanted = msgspec.json.decode(job.response_format or b"", type=DeviceFormat)
    assert wanted.triggers is not None
    assert wanted.triggers.token_ids == (TOKENIZER.token_to_id("<tool_call>"),)
    assert [event.name for event in events if isinstance(event, ToolCallStarted)] == ["say"]
    told = [event.arguments for event in events if isinstance(event, ToolCallDelta)]
    assert "".join(told) == '{"it": "a'
    assert len([each for each in told if each]) > 1


async def test_where_nothing_can_be_held_a_spoilt_call_is_text() -> None:
    rig = Rig(says(f"Well. {BEGUN}"))
    events = await events_of(rig, Tool("bad"))
    assert [job.response_format for job in rig.engine.jobs] == [None]
    assert text_of(events) == f"Well. {BEGUN}"
    assert [event.reason for event in events if isinstance(event, Finished)] == ["stop"]


async def test_where_the_device_holds_nothing_a_spoilt_call_is_text() -> None:
    rig = Rig(says(f"Well. {BEGUN}", held=False))
    events = await events_of(rig, Tool("say"))
    assert all(job.response_format is not None for job in rig.engine.jobs)
    assert text_of(events) == f"Well. {BEGUN}"
    assert not [event for event in events if isinstance(event, ToolCallStarted)]
    assert [event.reason for event in events if isinstance(event, Finished)] == ["stop"]
