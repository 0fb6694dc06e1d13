"""What can be copied from the terminal once the fleet runs. Pure text."""

from cortexd.up.defaults import DEFAULT_MODEL, SECOND_MODEL, UpPorts

TOKENS = 100
"""Longest answer to a copied line: small models like to go on for as long as they may."""


def hints(ports: UpPorts, model: str, ask: str) -> str:
    """Return lines for curl, both SDKs, Claude Code and codex."""
    url = f"http://127.0.0.1:{ports.gateway}"
    turns = f'[{{"role": "user", "content": "{_plain(ask)}"}}]'
    body = f'{{"model": "{model}", "max_tokens": {TOKENS}, "messages": {turns}}}'
    other = SECOND_MODEL if model == DEFAULT_MODEL else DEFAULT_MODEL
    return f"""
The fleet runs at {url} (metrics at http://127.0.0.1:{ports.metrics}/metrics).
{other} is loaded when it is asked for by name.

curl
  curl {url}/v1/chat/completions -H 'content-type: application/json' -d '{body}'
openai
  python -c "from openai import OpenAI; c = OpenAI(base_url='{url}/v1', api_key='none'); \
print(c.chat.completions.create(model='{model}', max_tokens={TOKENS}, \
messages=[dict(role='user', content='Hello')]).choices[0].message.content)"
anthropic
  python -c "from anthropic import Anthropic; c = Anthropic(base_url='{url}', api_key='none'); \
print(c.messages.create(model='{model}', max_tokens={TOKENS}, \
messages=[dict(role='user', content='Hello')]).content[0].text)"
Claude Code and codex (their own prompts have thousands of tokens: {SECOND_MODEL} can take them)
  ANTHROPIC_BASE_URL={url} ANTHROPIC_AUTH_TOKEN=none claude --model {SECOND_MODEL}
  codex -c model_provider=cortex -c model_providers.cortex.name=cortex \
-c model_providers.cortex.base_url={url}/v1 -c model_providers.cortex.wire_api=responses \
-m {SECOND_MODEL}
"""


def _plain(text: str) -> str:
    """Return `text` fit for JSON inside single quotes of a shell."""
    return "".join(char if char not in "'\"\\" and char.isprintable() else " " for char in text)
