"""JSON schemas as their public test suite has them: held to, or refused by the keyword.

Of a schema that is accepted every valid instance of the suite can be said and no other, apart from
what is listed here. Instances are written as in RFC 8785, but their members in any order: grammars
want them in the schema's.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice, permutations, product
from typing import Any

import pytest
from jsonschema import Draft7Validator, Draft202012Validator

from cortex_core.errors import InvalidRequest
from neurond.engine.grammar import TokenGrammar
from tests.fakes.grammar_walks import Speller
from tests.fakes.schema_suite import Case, Instance, suite_cases
from tests.fakes.tokenizers_made import byte_level

pytestmark = pytest.mark.model

Names = set[tuple[str, str]]
"""Instances, by their file and what the suite calls them."""
DRAFT_7 = "http://json-schema.org/draft-07/schema#"
KEYWORDS = {
    *Draft7Validator.META_SCHEMA["properties"],
    *Draft202012Validator.VALIDATORS,
    *("$anchor", "$dynamicAnchor", "minContains", "maxContains"),
}
MOST_SPELLINGS = 150
"""Of one instance; a few have six members, in 720 orders."""
LEAST_EXPONENT = 10**21
"""RFC 8785 writes whole numbers below it by their digits."""


def of(file: str, *descriptions: str) -> Names:
    return {(file, description) for description in descriptions}


# Formats are regular expressions, which know no calendar and do not add the offset from UTC.
CALENDAR = (
    of(
        "optional/format/date.json",
        "a invalid date string with 29 days in February (normal)",
        "2021 is not a leap year",
    )
    | of(
        "optional/format/date-time.json",
        "an invalid date-time with leap second on a wrong minute, UTC",
        "an invalid date-time with leap second on a wrong hour, UTC",
    )
    | of(
        "optional/format/time.json",
        "an invalid time string with invalid leap second (wrong hour)",
        "an invalid time string with invalid leap second (wrong minute)",
        *(
            f"invalid leap second, {offset} (wrong {part})"
            for offset in (
                *("Zulu", "zero time-offset"),
                *("positive time-offset", "negative time-offset"),
            )
            for part in ("hour", "minute")
        ),
    )
)
# Draft 7 leaves it to validators whether they read what is encoded in a string; later ones do not.
CONTENT = of(
    "optional/content.json",
    "an invalid JSON document",
    "an invalid base64 string (% is not a valid character)",
    "a validly-encoded invalid JSON document",
    "an invalid base64 string that is valid JSON",
)
# U+FEFF is a blank in ECMA 262 and none in Unicode, which llguidance goes by.
BLANK = of("optional/ecmascript-regex.json", "zero-width whitespace does not match")
NO_BLANK = of("optional/ecmascript-regex.json", "zero-width whitespace matches")
# Later drafts have formats say something and hold to nothing; here they are held to.
ANNOTATED = of(
    "format.json",
    *(
        f"invalid {name} string is only an annotation by default"
        for name in (
            *("date", "date-time", "duration", "email", "hostname"),
            *("ipv4", "ipv6", "time", "uri", "uuid"),
        )
    ),
)
# Rarer spellings that llguidance's formats leave out.
QUOTED = of(
    "optional/format/email.json",
    "a quoted string with a space in the local part is valid",
    "a quoted string with a double dot in the local part is valid",
    "a quoted string with a @ in the local part is valid",
    "an IPv6-address-literal after the @ is valid",
)
MIXED = of(
    "optional/format/ipv6.json",
    "mixed format with the ipv4 section as decimal octets",
    "mixed format with double colons between the sections",
    "mixed format with leading double colons (ipv4-mapped ipv6 address)",
    "a long valid ipv6",
)
# Integers are written without an exponent.
EXPONENT = of("optional/float-overflow.json", "valid if optional overflow handling is implemented")
# Beside a reference other keywords count in every draft; in draft 7 they are to be passed over.
BESIDE = of("ref.json", "ref valid, maxItems ignored")
# Which, for a schema that does not say its draft, is so with the base of the reference, too.
BASE = of("ref.json", "$ref resolves to /definitions/base_foo, data does not validate")
OTHER_BASE = of("ref.json", "$ref resolves to /definitions/base_foo, data validates")


@dataclass(frozen=True)
class Suite:
    """Cases of one draft, and in what answers differ from instances."""

    draft: str
    told: bool
    """The schemas say which draft they are of."""
    accepted: int
    """At least so many schemas are."""
    instances: int
    """At least so many instances of these are told right."""
    looser: Names
    tighter: Names


SUITES = {
    "2020-12": Suite(
        *("draft2020-12", True, 200, 950),
        looser=CALENDAR | BLANK,
        tighter=ANNOTATED | QUOTED | MIXED | NO_BLANK | EXPONENT,
    ),
    "7": Suite(
        *("draft7", True, 195, 865),
        looser=CALENDAR | BLANK | CONTENT,
        tighter=MIXED | NO_BLANK | EXPONENT | BESIDE,
    ),
    "7 that does not say so": Suite(
        *("draft7", False, 190, 855),
        looser=CALENDAR | BLANK | CONTENT | BASE,
        tighter=MIXED | NO_BLANK | EXPONENT | BESIDE | OTHER_BASE,
    ),
}


def spellings(value: Any) -> Iterator[str]:
    """Yield the canonical texts of a value, one for each order of the members of its objects."""
    match value:
        case dict():
            for members in permutations(value.items()):
                for held in product(*(spellings(member) for _, member in members)):
                    pairs = zip(members, held, strict=True)
                    yield "{" + ",".join(f"{text(name)}:{one}" for (name, _), one in pairs) + "}"
        case list():
            for held in product(*map(spellings, value)):
                yield "[" + ",".join(held) + "]"
        case float() if value.is_integer() and abs(value) < LEAST_EXPONENT:
            yield text(int(value))
        case _:
            yield text(value)


def text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def members(schema: Any) -> set[str]:
    """Return the names of all members of a schema's objects."""
    match schema:
        case dict():
            return set(schema).union(*map(members, schema.values()))
        case list():
            return set().union(*map(members, schema))
        case _:
            return set()


def names_a_keyword(message: str, schema: Any) -> bool:
    """Whether a refusal names a keyword of the schema, or of the meta-schema if it refers to it.

    Sentences have "not" in any case: as a keyword it stands in quotes.
    """
    _, _, why = message.partition(": ")
    refers = re.search(r'"\$ref": "https?://json-schema\.org/draft', json.dumps(schema))
    words = KEYWORDS if refers else KEYWORDS & members(schema)
    patterns = (
        '"not"' if word == "not" else rf"(?<![\w$]){re.escape(word)}(?!\w)" for word in words
    )
    return any(re.search(pattern, why) for pattern in patterns)


@dataclass
class Found:
    """What the grammars of a suite's schemas do."""

    refused: list[tuple[Case, str]] = field(default_factory=list)
    accepted: int = 0
    right: int = 0
    looser: Names = field(default_factory=set)
    tighter: Names = field(default_factory=set)

    def note(self, case: Case, instance: Instance, said: bool) -> None:
        if said == instance.valid:
            self.right += 1
        else:
            wrong = self.looser if said else self.tighter
            wrong.add((case.file, instance.description))


def compiled(speller: Speller, case: Case, suite: Suite) -> TokenGrammar:
    schema = case.schema if isinstance(case.schema, dict) else {"allOf": [case.schema]}
    if suite.told:
        schema = {"$schema": DRAFT_7, **schema}
    return speller.schema(schema)


@pytest.fixture(scope="module")
def speller(tmp_path_factory: pytest.TempPathFactory) -> Speller:
    return Speller(byte_level(), tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module", params=SUITES.values(), ids=SUITES)
def suite(request: pytest.FixtureRequest) -> Suite:
    return request.param


@pytest.fixture(scope="module")
def found(speller: Speller, suite: Suite) -> Found:
    found = Found()
    for case in suite_cases(suite.draft):
        try:
            grammar = compiled(speller, case, suite)
        except InvalidRequest as ex:
            found.refused.append((case, ex.message))
            continue
        found.accepted += 1
        for instance in case.instances:
            written = islice(spellings(instance.data), MOST_SPELLINGS)
            found.note(case, instance, any(speller.accepts(grammar, one) for one in written))
    return found


def test_what_can_be_said_are_the_valid_instances(suite: Suite, found: Found) -> None:
    assert found.looser == suite.looser
    assert found.tighter == suite.tighter
    assert found.accepted >= suite.accepted
    assert found.right >= suite.instances


def test_what_is_refused_is_named(found: Found) -> None:
    unnamed = [
        (case.file, case.description, message)
        for case, message in found.refused
        if not names_a_keyword(message, case.schema)
        and any(instance.valid for instance in case.instances)
    ]
    assert unnamed == []
