"""Calls of earlier turns as text: what a family's parser would have read them from."""

import pytest

from cortex_core.canonical import Tool
from cortex_core.neuron_api import ToolParserName
from neurond.text.parsing.families import CALL_FORMATS
from neurond.text.parsing.json_formats import JsonFormat, SectionFormat, SpeltCall
from neurond.text.parsing.parser import MarkedParser
from neurond.text.parsing.segments import CallArguments, CallBegun, Segment, Text, Tools

CALLS = [SpeltCall("look", {"at": 'ä "b"\n', "n": 1}), SpeltCall("now", {})]
TOOLS = Tools(tuple(Tool(call.name, "", {"type": "object"}) for call in CALLS))
FAMILIES: list[tuple[ToolParserName, JsonFormat | SectionFormat]] = [
    (name, written)
    for name, written in CALL_FORMATS.items()
    if isinstance(written, JsonFormat | SectionFormat)
]


@pytest.mark.parametrize(("name", "written"), FAMILIES)
def test_a_parser_reads_what_its_format_spells(
    name: ToolParserName, written: JsonFormat | SectionFormat
) -> None:
    parser = MarkedParser(None, CALL_FORMATS[name], TOOLS, ())
    segments: list[Segment] = [*parser.push(written.spelt(CALLS)), *parser.flush()]
    names = [each.name for each in segments if isinstance(each, CallBegun)]
    arguments = "".join(each.text for each in segments if isinstance(each, CallArguments))
    assert names == ["look", "now"]
    assert arguments == '{"at": "ä \\"b\\"\\n", "n": 1}{}'
    assert not [each for each in segments if isinstance(each, Text)]
