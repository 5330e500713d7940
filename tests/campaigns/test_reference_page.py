"""That the committed page of the reference results is what its command makes."""

from tests.campaigns.reference_page import PAGE, compared, write


def test_the_committed_page_is_what_the_command_makes(tmp_path):
    again = tmp_path / "reference.html"
    write(again)
    made, committed = (compared(page.read_text()).splitlines() for page in (again, PAGE))
    assert len(committed) > 500
    assert made == committed, "run `python -m tests.campaigns.reference_page`"
