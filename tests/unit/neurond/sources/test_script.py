"""Scripts: which rule a prompt gets, what a file may say, and what its folder is prepared to."""

from pathlib import Path

import pytest
from tokenizers import Tokenizer

from cortex_core.canonical import (
    ChatPrompt,
    Message,
    ReasoningPart,
    TextPart,
    Tool,
    ToolCallPart,
    ToolResultPart,
)
from cortex_core.errors import ModelLoadFailed
from cortex_core.ids import ModelId
from neurond.sources.base import FetchProgress
from neurond.sources.file import FileSource
from neurond.sources.prepare import prepare
from neurond.sources.script import Rule, Script, read_script
from neurond.text.model_text import ModelText
from tests.fakes.scripted_models import call, write_script
from tests.fakes.tokenizers_made import byte_level

END = "<|im_end|>"


def chatml(*turns: str) -> str:
    """Turns of user and assistant by turns, and where the next answer begins."""
    roles = ("user", "assistant")
    said = "".join(
        f"<|im_start|>{roles[place % 2]}\n{text}{END}\n" for place, text in enumerate(turns)
    )
    return f"{said}<|im_start|>assistant\n"


def answer(prompt: str, *rules: Rule) -> str | None:
    return Script(rules=list(rules)).answer(prompt, END)


def test_the_first_rule_that_holds_is_taken() -> None:
    rules = Rule(answer="a", contains=["cat", "dog"]), Rule(answer="b", contains=["dog"])
    assert answer(chatml("a cat and a dog"), *rules) == "a"
    assert answer(chatml("a dog"), *rules) == "b"
    assert answer(chatml("a cat"), *rules) is None
    assert answer(chatml("a cat"), *rules, Rule(answer="c")) == "c"


def test_answers_are_counted_from_one() -> None:
    rules = [Rule(answer=str(turn), turn=turn) for turn in (1, 2)]
    assert answer(chatml("x"), *rules) == "1"
    assert answer(chatml("x", "1", "y"), *rules) == "2"
    assert answer(chatml("x", "1", "y", "2", "z"), *rules) is None


def test_the_latest_is_what_came_since_the_last_answer() -> None:
    rule = Rule(answer="yes", latest_contains=["18 degrees"])
    assert answer(chatml("18 degrees"), rule) == "yes"
    assert answer(chatml("weather?", "I look.", "18 degrees"), rule) == "yes"
    assert answer(chatml("18 degrees", "Thanks.", "next"), rule) is None
    assert answer(chatml("weather?", "18 degrees", "next"), rule) is None


def test_a_prompt_without_turns_is_a_first_one() -> None:
    assert answer("Once upon", Rule(answer="a time", turn=1, latest_contains=["Once"])) == "a time"


def test_all_conditions_of_a_rule_have_to_hold() -> None:
    rule = Rule(answer="yes", contains=["one"], latest_contains=["three"], turn=2)
    assert answer(chatml("one", "two", "three"), rule) == "yes"
    assert answer(chatml("one three"), rule) is None
    assert answer(chatml("one", "two", "four"), rule) is None
    assert answer(chatml("zero", "two", "three"), rule) is None


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "rules"),
        ("rules = []", "rules"),
        ("[[rules]]\nturn = 1", "answer"),
        ('[[rules]]\nanswer = "a"\nturn = 0', r"rules\[0\].turn"),
        ('[[rules]]\nanswer = "a"\nlatest_contain = ["x"]', "latest_contains"),
        ('tokens_per_second = 0\n[[rules]]\nanswer = "a"', "tokens_per_second"),
        ('[[rules]\nanswer = "a"', "script.toml"),
    ],
)
def test_a_wrong_script_is_named(tmp_path: Path, text: str, named: str) -> None:
    (tmp_path / "script.toml").write_text(text)
    with pytest.raises(ModelLoadFailed, match=named):
        read_script(tmp_path)


def test_a_script_alone_is_a_model(tmp_path: Path) -> None:
    text = prepared_text(tmp_path, context_tokens=4096)
    assert text.prepared.generates
    assert text.prepared.context_tokens == 4096
    assert text.prepared.capabilities == ("completions", "chat", "tools")
    ids = text.token_ids(ChatPrompt((Message("user", (TextPart("où?"),)),)))
    rendered = "<|im_start|>user\noù?<|im_end|>\n<|im_start|>assistant\n"
    assert len(ids) == len(rendered.encode()) - sum(map(len, ("<|im_start|>", END))) - 12 + 3
    (end,) = text.prepared.eos_token_ids
    assert text.tokenizer.pieces.content(end) == END.encode()


def test_the_template_gives_back_what_the_model_wrote(tmp_path: Path) -> None:
    text = prepared_text(tmp_path)
    said = f"<think>\nHm.\n</think>\n\nI look.\n{call('weather', city='Köln')}"
    parts = (
        ReasoningPart("Hm."),
        TextPart("I look."),
        ToolCallPart("c1", "weather", '{"city": "Köln"}'),
    )
    first = Message("user", (TextPart("Köln?"),))
    tools = (Tool("weather", "Tells it.", {"type": "object"}),)
    results = (Message("tool", (ToolResultPart("c1", (TextPart("18 degrees"),)),)),)
    asked = ChatPrompt((first,), tools=tools)
    before = text.token_ids(asked) + text.tokenizer.encode_rendered(said + END)
    later = ChatPrompt((first, Message("assistant", parts), *results), tools=tools)
    assert text.token_ids(later)[: len(before)] == before, "the prefix cache has it"


def test_a_folder_keeps_its_own_tokenizer_and_template(tmp_path: Path) -> None:
    own = tmp_path / "own"
    model_id = write_script(own, {"answer": "hi"})
    tokenizer = byte_level()
    tokenizer.save(str(own / "tokenizer.json"))
    (own / "chat_template.jinja").write_text("{{ messages[0].content }}")
    folder = fetched(model_id, tmp_path / "folder")
    made = prepare(folder, model_id)
    assert (folder / "chat_template.jinja").read_text() == "{{ messages[0].content }}"
    assert made.vocab_size == tokenizer.get_vocab_size()
    assert made.eos_token_ids == (tokenizer.token_to_id("<|end|>"),)
    assert made.capabilities == ("completions", "chat")


def test_a_tokenizer_that_ends_no_answer_is_refused(tmp_path: Path) -> None:
    model_id = write_script(tmp_path / "own", {"answer": "hi"})
    Tokenizer.from_str(byte_level().to_str().replace("<|end|>", "<|stop|>")).save(
        str(tmp_path / "own" / "tokenizer.json")
    )
    with pytest.raises(ModelLoadFailed, match="no token that ends an answer"):
        prepare(fetched(model_id, tmp_path / "folder"), model_id)


def fetched(model_id: ModelId, folder: Path) -> Path:
    folder.mkdir()
    FileSource().fetch(model_id.removeprefix("file:"), folder, quiet)
    return folder


def prepared_text(root: Path, **settings: int) -> ModelText:
    model_id = write_script(root / "own", {"answer": "hi"}, **settings)
    folder = fetched(model_id, root / "folder")
    return ModelText.read(folder, prepare(folder, model_id), None)


def quiet(_progress: FetchProgress) -> None: ...
