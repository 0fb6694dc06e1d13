"""What a supervisor imports while it works, whatever imports it lazily."""

from pathlib import Path

from cortex_core.ipc.admin import AdminClient
from tests.fakes.neuron_process import IMPORTED, MODEL, neuron_process

HEAVY = {"torch", "transformers", "numpy", "safetensors", "gguf"}


def test_a_supervisor_that_has_done_everything_knows_no_torch(tmp_path: Path) -> None:
    with neuron_process(tmp_path) as node:
        node.load()
        messages = [{"role": "user", "content": "q"}]
        chat = {"model": MODEL, "messages": messages, "max_tokens": 2, "logprobs": True}
        for path, body in (
            ("/v1/chat/completions", chat),
            (f"/models/{MODEL}/count_tokens", {"prompt": {"type": "text", "text": "q"}}),
            ("/models/unload", {"model_id": MODEL}),
        ):
            answer = node.client.post(path, json=body)
            assert answer.status_code == 200, answer.text
        for path in ("/metrics", "/health", "/discovery", "/models"):
            assert node.client.get(path).status_code == 200
        missing = node.client.post("/models/load", json={"model_id": "file:/not/there"})
        assert missing.status_code == 404
        with AdminClient(node.runtime_dir / "admin.sock") as admin:
            assert admin.call("status")
        assert node.stop() == 0

    modules = set((tmp_path / IMPORTED).read_text().split())
    assert "neurond.supervisor.supervisor" in modules
    assert not modules & HEAVY
