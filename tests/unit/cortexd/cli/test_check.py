"""What `cortex check` says of files that can be read."""

from pathlib import Path

import pytest

from cortexd.cli.arguments import parser
from cortexd.cli.check import check

NODE = '[[neurons]]\nname = "n"\nendpoint = "http://n:13131"\n'


@pytest.mark.parametrize(
    ("key", "note"),
    [
        ('quant = "q6k"', "file:a: quant 'q6k': neurond takes weights as they are in files"),
        ("min_devices = 2", "file:a: min_devices 2: neurond runs a model on one device"),
        ('harness = "candle"', "file:a: harness 'candle': neurond has 'torch' alone"),
    ],
)
def test_what_no_node_can_do_is_noted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], key: str, note: str
) -> None:
    (tmp_path / "models.toml").write_text(f'[[models]]\nid = "file:a"\n{key}\n')
    config = tmp_path / "cortex.toml"
    config.write_text(f'models_config = "models.toml"\n{NODE}')

    assert check(parser().parse_args(["check", "--config", str(config)])) == 0

    assert f"note: {note}\n" in capsys.readouterr().out
