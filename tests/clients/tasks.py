"""What each agent is asked to do, and how its file and its answer look in the end."""

from pathlib import Path

TASK = "Correct the sum in notes.txt."
WRONG, RIGHT = "Two and two are five.", "Two and two are four."
DONE = "The sum in notes.txt is corrected."


def wrong_file(root: Path) -> Path:
    """Return the file to correct, alone in a folder of its own."""
    path = root / "work" / "notes.txt"
    path.parent.mkdir()
    path.write_text(f"{WRONG}\n", encoding="utf-8")
    return path


def assert_right(file: Path) -> None:
    assert file.read_text(encoding="utf-8") == f"{RIGHT}\n"
