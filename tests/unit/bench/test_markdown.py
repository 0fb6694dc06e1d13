"""Programs write tables between markers, and touch nothing else of a page."""

from pathlib import Path

import pytest

from bench.markdown import NoPlace, table, with_section, write_section

PAGE = "# Page\n\n<!-- a: begin -->\nold\n<!-- a: end -->\n\ntext\n"


def test_a_table_has_a_rule_and_numbers_to_the_right() -> None:
    assert table(["server", "tokens/s"], [["a|b", "1"]]) == (
        "| server | tokens/s |\n| --- | ---: |\n| a/b | 1 |"
    )


def test_a_section_is_replaced_and_can_be_again() -> None:
    once = with_section(PAGE, "a", "new")
    assert once == "# Page\n\n<!-- a: begin -->\n\nnew\n\n<!-- a: end -->\n\ntext\n"
    assert with_section(once, "a", "new") == once


@pytest.mark.parametrize(
    "page",
    [
        "no markers",
        "<!-- a: begin -->",
        "<!-- a: end --><!-- a: begin -->",
        PAGE + "<!-- a: begin -->",
        PAGE + "<!-- a: end -->",
    ],
)
def test_a_page_without_its_markers_is_left_alone(tmp_path: Path, page: str) -> None:
    path = tmp_path / "page.md"
    path.write_text(page)
    with pytest.raises(NoPlace, match="<!-- a: begin -->"):
        write_section(path, "a", "new")
    assert path.read_text() == page


def test_the_page_of_benchmarks_has_its_sections() -> None:
    page = (Path(__file__).parents[3] / "docs" / "benchmarks.md").read_text()
    for section in ("overhead", "peers", "quality", "speculation"):
        assert "new" in with_section(page, section, "new")
