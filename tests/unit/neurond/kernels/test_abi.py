import re
import shutil
import subprocess
from pathlib import Path

import pytest

from neurond.kernels import abi

HEADER = Path(abi.__file__).parent / "csrc" / "abi.h"
COMPILER = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")


def c_name(struct) -> str:
    return f"cortex_{struct.__name__.lower()}"


def layout_program() -> str:
    """Return a C program that prints what the compiler makes of abi.h."""
    lines = []
    for struct in abi.STRUCTS:
        name = c_name(struct)
        lines.append(f'printf("{name} %zu\\n", sizeof({name}));')
        for field in struct._fields_:
            where = f"offsetof({name}, {field[0]}), sizeof((({name} *)0)->{field[0]})"
            lines.append(f'printf("{name}.{field[0]} %zu %zu\\n", {where});')
    constants = ("ABI", "BLOCK_TOKENS", "GROUP", *abi.FORMATS, *abi.ACTIVATIONS)
    lines += [f'printf("{name} %d\\n", CORTEX_{name.upper()});' for name in constants]
    body = "\n".join(lines)
    return f'#include "{HEADER}"\n#include <stdio.h>\nint main(void) {{\n{body}\nreturn 0;\n}}\n'


def expected_layout() -> list[str]:
    lines = []
    for struct in abi.STRUCTS:
        lines.append(f"{c_name(struct)} {abi.ctypes.sizeof(struct)}")
        for field in struct._fields_:
            place = getattr(struct, field[0])
            lines.append(f"{c_name(struct)}.{field[0]} {place.offset} {place.size}")
    lines += [f"ABI {abi.ABI}", f"BLOCK_TOKENS {abi.BLOCK_TOKENS}", f"GROUP {abi.GROUP}"]
    lines += [f"{name} {value}" for name, value in (abi.FORMATS | abi.ACTIVATIONS).items()]
    return lines


@pytest.mark.skipif(COMPILER is None, reason="needs a C compiler (Debian: apt-get install gcc)")
def test_structs_lie_in_memory_as_the_compiler_has_them(tmp_path):
    source, program = tmp_path / "layout.c", tmp_path / "layout"
    source.write_text(layout_program())
    subprocess.run([COMPILER, "-Wall", "-Werror", "-o", program, source], check=True)
    printed = subprocess.run([program], capture_output=True, text=True, check=True).stdout
    assert printed.splitlines() == expected_layout()


def test_every_function_of_the_header_is_declared_with_as_many_arguments():
    text = re.sub(r"/\*.*?\*/", "", HEADER.read_text(), flags=re.DOTALL)
    declared = {
        match[1]: 0 if match[2].strip() == "void" else match[2].count(",") + 1
        for match in re.finditer(r"^\w[\w \*]*?[ \*](cortex_\w+)\(([^)]*)\);", text, re.MULTILINE)
    }
    assert declared == {name: len(types[1]) for name, types in abi.FUNCTIONS.items()}


def test_every_struct_of_the_header_is_mirrored():
    named = re.findall(r"^\} (cortex_\w+);", HEADER.read_text(), re.MULTILINE)
    assert sorted(named) == sorted(c_name(struct) for struct in abi.STRUCTS)
