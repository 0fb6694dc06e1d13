"""Images through the whole fleet, in every dialect, to a tiny random model made here."""

import base64
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anthropic
import msgspec
import numpy as np
import openai
import pytest
import torch
from PIL import Image
from transformers import PreTrainedModel

from cortex_core.canonical import (
    ChatPrompt,
    ContinueFrom,
    Finished,
    GenerateRequest,
    MediaPart,
    Message,
    SamplingParams,
    Started,
    TextDelta,
    TextPart,
)
from cortex_core.ids import ModelId, RequestId
from neurond.images.processor import ModelImageProcessor
from tests.fakes.fleet_process import FleetProcess
from tests.fakes.tiny_vision import make_gemma3, make_qwen
from tests.fakes.waiting import wait_until
from tests.fakes.wire import events_of

MAX_IMAGES = 3
MAX_TOKENS = 8


def png(number: int, width: int = 90, height: int = 60) -> bytes:
    pixels = np.random.default_rng(number).integers(0, 255, (height, width, 3), dtype=np.uint8)
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "PNG")
    return data.getvalue()


def plain(number: int, size: int) -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (size, size), (number, 0, 0)).save(data, "PNG")
    return data.getvalue()


def url(data: bytes, media_type: str = "image/png") -> str:
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"


def openai_image(data: bytes) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url(data)}}


def anthropic_image(data: bytes) -> dict[str, Any]:
    encoded = base64.b64encode(data).decode()
    source = {"type": "base64", "media_type": "image/png", "data": encoded}
    return {"type": "image", "source": source}


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


class VisionFleet:
    def __init__(self, fleet: FleetProcess, folder: Path) -> None:
        self.fleet = fleet
        self.folder = folder
        self.model = ModelId(f"file:{folder}")

    def generate(self, request: GenerateRequest) -> tuple[Started, list[int]]:
        answer = self.fleet.node.post("/generate", content=msgspec.json.encode(request))
        events = events_of(answer.content)
        (started,) = [event for event in events if isinstance(event, Started)]
        texts = [event for event in events if isinstance(event, TextDelta | Finished)]
        return started, [id_ for event in texts for id_ in event.token_ids]

    def chat(self, *parts: dict[str, Any], model: str = "vision", **options: Any) -> Any:
        return self.fleet.openai.chat.completions.create(
            model=model,
            messages=[{"role": "user", "content": list(parts)}],
            max_tokens=MAX_TOKENS,
            temperature=0,
            **options,
        )


@pytest.fixture(scope="module")
def vision(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VisionFleet]:
    root = tmp_path_factory.mktemp("vision")
    make_qwen(root / "qwen")
    make_gemma3(root / "gemma3")
    make_gemma3(root / "packed")
    dtypes = {"qwen": "float32", "gemma3": "float32", "packed": "bfloat16"}
    fleet = FleetProcess(
        root,
        models_toml="".join(
            f'[[models]]\nid = "file:{root / name}"\ndtype = "{dtype}"\n'
            for name, dtype in dtypes.items()
        )
        + f'[aliases]\n"vision" = "file:{root / "qwen"}"\n"gemma" = "file:{root / "gemma3"}"\n'
        + f'"packed" = "file:{root / "packed"}"\n',
        neuron_toml=f"[limits]\nmax_images = {MAX_IMAGES}\nmax_image_mb = 1",
    )
    try:
        fleet.start()
        fleet.wait_ready()
        fleet.load("vision")
        yield VisionFleet(fleet, root / "qwen")
        fleet.stop()
    finally:
        fleet.close()


TURNS = {
    "qwen": "<|im_start|>user\nwhat is <|vision_start|>{}<|vision_end|>?<|im_end|>\n"
    "<|im_start|>assistant\n",
    "gemma3": "<start_of_turn>user\nwhat is{}?<end_of_turn>\n<start_of_turn>model\n",
}


@pytest.mark.parametrize(
    ("name", "make", "types"),
    [("qwen", make_qwen, "mm_token_type_ids"), ("gemma3", make_gemma3, "token_type_ids")],
)
def test_tokens_are_those_of_transformers(
    vision: VisionFleet, name: str, make: Callable[[Path], PreTrainedModel], types: str
) -> None:
    folder = vision.folder.with_name(name)
    picture = png(1)
    parts = (TextPart("what is "), MediaPart("image", "image/png", picture), TextPart("?"))
    vision.fleet.load("vision" if name == "qwen" else "gemma")
    request = GenerateRequest(
        RequestId("r"),
        ModelId(f"file:{folder}"),
        ChatPrompt((Message("user", parts),)),
        SamplingParams(temperature=0, max_tokens=MAX_TOKENS, ignore_eos=True),
        want_prompt_token_ids=True,
    )
    started, said = vision.generate(request)
    processor = ModelImageProcessor(folder)
    seen = processor.process(Image.open(io.BytesIO(picture)))
    expected_prompt = processor.tokenizer(
        TURNS[name].format(seen.replacement), add_special_tokens=False
    ).input_ids
    assert list(started.prompt_token_ids or ()) == expected_prompt
    token_ids = torch.tensor([expected_prompt])
    model = make(folder.with_name(f"{name}-again"))
    inputs = {name: torch.from_numpy(values) for name, values in seen.inputs.items()}
    inputs.pop("num_crops", None)  # was for the replacement
    inputs[types] = (token_ids == processor.tokens.token_id).long()
    model.generation_config.eos_token_id = None
    with torch.inference_mode():
        tokens = model.generate(
            token_ids,
            attention_mask=torch.ones_like(token_ids),
            do_sample=False,
            max_new_tokens=MAX_TOKENS,
            **inputs,
        )
    assert said == tokens[0, len(expected_prompt) :].tolist()


def test_a_continuation_sees_the_image(vision: VisionFleet) -> None:
    parts = (MediaPart("image", "image/png", png(7)), TextPart("tell me"))
    sampling = SamplingParams(temperature=1, seed=5, max_tokens=MAX_TOKENS, ignore_eos=True)
    whole = GenerateRequest(
        RequestId("r"),
        vision.model,
        ChatPrompt((Message("user", parts),)),
        sampling,
        want_prompt_token_ids=True,
    )
    started, said = vision.generate(whole)
    going_on = ContinueFrom(started.prompt_token_ids or (), tuple(said[:3]), 3)
    vision.fleet.unload(vision.model)  # what was computed is gone with it
    vision.fleet.load("vision")
    _, rest = vision.generate(msgspec.structs.replace(whole, continue_from=going_on))
    assert rest == said[3:]


@pytest.mark.parametrize("model", ["vision", "gemma", "packed"])
def test_all_dialects_say_the_same(vision: VisionFleet, model: str) -> None:
    picture = png(2)
    said = vision.chat(text("see"), openai_image(picture), model=model)
    answered = vision.fleet.openai.responses.create(
        model=model,
        input=[
            {
                "role": "user",
                "content": [
                    {"type": "input_text", "text": "see"},
                    {"type": "input_image", "image_url": url(picture), "detail": "auto"},
                ],
            }
        ],
        max_output_tokens=MAX_TOKENS,
        temperature=0,
    )
    message = vision.fleet.anthropic.messages.create(
        model=model,
        messages=[{"role": "user", "content": [text("see"), anthropic_image(picture)]}],
        max_tokens=MAX_TOKENS,
        extra_body={"temperature": 0},
    )
    assert said.choices[0].message.content == answered.output_text == message.content[0].text
    total = prompt_tokens(message)
    assert said.usage.prompt_tokens == answered.usage.input_tokens == total
    counted = vision.fleet.anthropic.messages.count_tokens(
        model=model,
        messages=[{"role": "user", "content": [text("see"), anthropic_image(picture)]}],
    )
    assert counted.input_tokens == total


def test_the_kernels_take_images_from_weights_that_were_packed_before(vision: VisionFleet) -> None:
    folder = vision.folder.with_name("packed")
    model = ModelId(f"file:{folder}")

    def say(number: int) -> str:
        vision.fleet.load("packed")
        answer = vision.chat(text("see"), openai_image(png(number)), model="packed")
        said: str = answer.choices[0].message.content
        return said

    first = say(2)
    assert vision.fleet.model(model).kernels not in (None, "torch")
    assert "vision" in vision.fleet.model(model).capabilities
    assert say(1) != first
    vision.fleet.unload(model)
    assert say(2) == first


def test_a_second_turn_reuses_the_image(vision: VisionFleet) -> None:
    first: list[Any] = [
        {"role": "user", "content": [openai_image(png(3, 200, 200)), text("what is it")]}
    ]
    create = vision.fleet.openai.chat.completions.create
    answer = create(model="vision", messages=first, max_tokens=4, temperature=0)
    said = {"role": "assistant", "content": answer.choices[0].message.content}
    more = create(
        model="vision",
        messages=[*first, said, {"role": "user", "content": "and now"}],
        max_tokens=4,
        temperature=0,
    )
    cached = more.usage.prompt_tokens_details.cached_tokens
    assert cached >= answer.usage.prompt_tokens // 16 * 16 - 16
    other: list[Any] = [
        {"role": "user", "content": [openai_image(png(4, 200, 200)), text("what is it")]}
    ]
    fresh = create(model="vision", messages=other, max_tokens=4, temperature=0)
    assert fresh.usage.prompt_tokens == answer.usage.prompt_tokens
    assert fresh.usage.prompt_tokens_details.cached_tokens <= 16


def test_an_image_in_a_tools_result_is_seen(vision: VisionFleet) -> None:
    def ask(picture: bytes) -> anthropic.types.Message:
        return vision.fleet.anthropic.messages.create(
            model="vision",
            messages=[
                {"role": "user", "content": "look"},
                {
                    "role": "assistant",
                    "content": [{"type": "tool_use", "id": "t1", "name": "look", "input": {}}],
                },
                {
                    "role": "user",
                    "content": [
                        {
                            "type": "tool_result",
                            "tool_use_id": "t1",
                            "content": [text("here"), anthropic_image(picture)],
                        }
                    ],
                },
            ],
            tools=[{"name": "look", "input_schema": {"type": "object"}}],
            max_tokens=MAX_TOKENS,
            extra_body={"temperature": 0},
        )

    small, large = ask(png(5, 56, 56)), ask(png(5, 112, 112))
    assert prompt_tokens(large) - prompt_tokens(small) == (112 // 28) ** 2 - (56 // 28) ** 2


def prompt_tokens(message: anthropic.types.Message) -> int:
    return message.usage.input_tokens + (message.usage.cache_read_input_tokens or 0)


def test_streams_and_choices(vision: VisionFleet) -> None:
    picture = openai_image(png(6))
    whole = vision.chat(picture, text("tell"), n=3)
    assert len({choice.message.content for choice in whole.choices}) == 1
    chunks = list(vision.chat(picture, text("tell"), stream=True))
    streamed = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert streamed == whole.choices[0].message.content


def test_the_models_list_says_so(vision: VisionFleet) -> None:
    headers = {"anthropic-version": "2023-06-01"}
    listed = vision.fleet.api.get("/v1/models", headers=headers).json()["data"]
    (model,) = [entry for entry in listed if entry["id"] == "vision"]
    assert model["capabilities"]["image_input"]["supported"] is True
    assert "vision" in vision.fleet.model(vision.model).capabilities


def edge_cases() -> dict[str, bytes]:
    def saved(image: Image.Image, form: str, **options: Any) -> bytes:
        data = io.BytesIO()
        image.save(data, form, **options)
        return data.getvalue()

    frames = [Image.new("P", (40, 40), number) for number in range(3)]
    return {
        "one pixel": png(1, 1, 1),
        "cmyk": saved(Image.new("CMYK", (60, 60), (10, 20, 30, 40)), "JPEG"),
        "animated": saved(frames[0], "GIF", save_all=True, append_images=frames[1:]),
        "alpha": saved(Image.new("RGBA", (60, 60), (10, 20, 30, 40)), "PNG"),
        "palette": saved(Image.new("P", (60, 60), 3), "PNG"),
        "bits": saved(Image.new("1", (60, 60), 1), "PNG"),
        "sixteen bits": saved(Image.new("I;16", (60, 60), 9000), "PNG"),
        "webp": saved(Image.new("RGB", (60, 60), (9, 9, 9)), "WEBP"),
    }


@pytest.mark.parametrize("name", edge_cases())
def test_odd_images_work(vision: VisionFleet, name: str) -> None:
    answer = vision.chat(openai_image(edge_cases()[name]), text("see"))
    assert answer.usage.completion_tokens > 0


def bomb() -> bytes:
    data = io.BytesIO()
    Image.new("1", (40_000, 40_000)).save(data, "PNG")
    return data.getvalue()


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"hello", "it is none of PNG, JPEG, WEBP, GIF, BMP, or broken"),
        (png(1)[:300], "it is broken"),
        (png(1, 4000, 3), "aspect ratio"),
        (bomb(), "it has too many pixels, 100000000 in all is the most"),
        (bytes(1024 * 1024 + 1), "the image has 1048577 bytes, 1048576 is the most"),
    ],
    ids=["text", "truncated", "proportions", "bomb", "large"],
)
def test_images_that_are_refused(vision: VisionFleet, data: bytes, why: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        vision.chat(text("see"), openai_image(png(1)), openai_image(data))
    assert why in caught.value.message
    assert "messages[0].content[2]" in caught.value.message
    assert caught.value.param == "messages[0].content[2].image_url.url"
    assert vision.chat(openai_image(png(1)), text("see")).usage.completion_tokens > 0


def test_a_model_that_sees_embeds_text_too(vision: VisionFleet) -> None:
    answer = vision.fleet.openai.embeddings.create(model="vision", input=["hello"])
    assert len(answer.data[0].embedding) == 64


def test_too_many_images(vision: VisionFleet) -> None:
    with pytest.raises(openai.BadRequestError, match="4 images, 3 is the most") as caught:
        vision.chat(*(openai_image(png(n)) for n in range(4)))
    assert caught.value.param == "messages[0].content[3].image_url.url"


def test_an_image_that_is_only_pointed_at(vision: VisionFleet) -> None:
    image = {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}
    with pytest.raises(openai.BadRequestError, match="not fetched from URLs"):
        vision.chat(image)


def test_sound_is_refused(vision: VisionFleet) -> None:
    sound = {"type": "input_audio", "input_audio": {"data": "aGk=", "format": "wav"}}
    with pytest.raises(openai.UnprocessableEntityError, match="the model takes text and images"):
        vision.chat(sound)


def test_a_placeholder_that_a_user_wrote_is_text(vision: VisionFleet) -> None:
    plain = vision.chat(openai_image(png(1)), text("a pad"))
    answer = vision.chat(openai_image(png(1)), text("a <|image_pad|> pad"))
    assert answer.choices[0].finish_reason
    more = answer.usage.prompt_tokens - plain.usage.prompt_tokens
    assert more > 1, "it is no special token"
    assert vision.chat(text("<|image_pad|>")).usage.prompt_tokens > more


def test_a_context_that_images_overflow(vision: VisionFleet) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        vision.chat(*(openai_image(plain(n, 700)) for n in range(3)), text("x" * 700))
    assert caught.value.code == "context_length_exceeded"


def test_the_image_process_is_killed(vision: VisionFleet) -> None:
    (reader,) = vision.fleet.neuron.children("neurond.images.process")
    reader.kill()
    reader.wait()
    assert vision.chat(openai_image(png(1)), text("see")).usage.completion_tokens > 0


def test_the_actor_is_killed(vision: VisionFleet) -> None:
    before = vision.chat(openai_image(png(1)), text("see"))
    vision.fleet.actor().kill()
    after = vision.chat(openai_image(png(1)), text("see"))
    assert after.choices[0].message.content == before.choices[0].message.content


def test_who_holds_an_image_when_all_is_done(vision: VisionFleet) -> None:
    vision.chat(openai_image(png(1)), text("see"))
    processes = vision.fleet.neuron.process.pid, vision.fleet.actor().pid

    def held() -> list[str]:
        maps = "".join(Path(f"/proc/{pid}/maps").read_text() for pid in processes)
        return [line for line in maps.splitlines() if "neuron-image" in line]

    # The answer's last byte is not the last thing that is done for it.
    wait_until(lambda: not held())
