"""The page in a headless browser: no complaint, no request, and what can be clicked works.

Needs Debian's `chromium` and `chromium-driver`. BENCH_BROWSER_RESULTS names further results, with
colons between them, whose pages are opened too.
"""

import functools
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench.report.content import contents
from bench.report.page import TITLE, render
from bench.store.open import open_results
from tests.campaigns.big_report import METHODS, MadeUp, measured
from tests.fixtures.browser import CHROMIUM, DRIVER, started
from tests.fixtures.pages import TRAINED
from tests.fixtures.runs import ARCHIVES, REFERENCE, SCORES, store_at
from tests.fixtures.times import ATACNET, GPU, PADIM, Held, scored, timed

By = pytest.importorskip("selenium.webdriver.common.by").By
WebDriverWait = pytest.importorskip("selenium.webdriver.support.ui").WebDriverWait
NAMED = [Path(p) for p in os.environ.get("BENCH_BROWSER_RESULTS", "").split(":") if p]
ARCHIVED = sorted(REFERENCE.iterdir())
PAGES = [*ARCHIVED, ARCHIVES / "smoke", *NAMED]


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if CHROMIUM is None or DRIVER is None:
        pytest.skip("needs chromium and chromium-driver")
    with started(tmp_path_factory.mktemp("profile"), 1300, 900) as driver:
        yield driver


@pytest.fixture
def opened(browser, tmp_path):
    """Return what opens a page and gives its size in bytes."""

    def show(text):
        path = tmp_path / "page.html"
        path.write_text(text)
        for log in ("browser", "performance"):
            browser.get_log(log)  # what earlier pages have said
        browser.get(path.as_uri())
        return path.stat().st_size

    return show


@pytest.fixture(scope="module")
def reported(tmp_path_factory):
    """Return what gives the page of an archive and the processor time of its command, once."""
    folder = tmp_path_factory.mktemp("pages")

    @functools.cache
    def report(archive):
        page = folder / f"{archive.name}.html"
        return page, measured(archive, page)["cpu_seconds"]

    return report


IMPORTS = """
import time
import matplotlib.pyplot, sklearn.manifold, scipy.stats, pyarrow.parquet, jinja2
print(time.process_time())
"""


def import_seconds():
    """Return the processor time of importing what a page needs, on this machine and now."""
    command = [sys.executable, "-c", IMPORTS]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@pytest.mark.parametrize("archive", ARCHIVED, ids=lambda p: p.name)
def test_the_reference_page_is_quick(reported, archive):
    """Ten seconds; on a slow or busy machine more, by what importing its libraries takes there."""
    taken = reported(archive)[1]
    assert taken < 10 or taken < 8 * (import_seconds() + import_seconds()) / 2


@pytest.fixture(scope="module")
def page_of_three(tmp_path_factory):
    """Three runs of one cell, and a row of another dataset."""
    better = replace(SCORES, score=np.array([0.1, 0.2, 0.35, 0.8, 0.9], np.float32))
    folder = tmp_path_factory.mktemp("three") / "r"
    store_at(folder, *(replace(TRAINED, seed=s) for s in range(3)))
    other = replace(TRAINED, dataset="brain_mri", category="brain_mri")
    return render(contents(store_at(folder, other, scores=better)))


@pytest.fixture
def shown(browser, opened, page_of_three):
    """Open a page with three runs of one cell, one of them in a row of its own."""
    opened(page_of_three)
    return browser


def complaints(browser):
    """Return what the console was told so far, and wait for what a busy browser writes down later.

    The log of requests is written by the same hand, in order.
    """
    found = []

    def all_there(browser):
        found.extend(line["message"] for line in browser.get_log("browser"))
        return any("the last word" in message for message in found)

    browser.execute_script("console.info('the last word')")
    WebDriverWait(browser, 10).until(all_there)
    return [message for message in found if "the last word" not in message]


def requests(browser):
    """Return what the page has asked for, itself and inline images left out.

    What Chromium's own first page asks for is of another document.
    """
    own = browser.current_url.partition("#")[0]
    events = (json.loads(line["message"])["message"] for line in browser.get_log("performance"))
    asked = [e["params"] for e in events if e["method"] == "Network.requestWillBeSent"]
    urls = [a["request"]["url"] for a in asked if a["documentURL"].partition("#")[0] == own]
    return [url for url in urls if url.partition("#")[0] != own and not url.startswith("data:")]


TITLES = {
    "smoke": "Anomaly detection on synthetic",
    "nightly-cpu": "The regression check of a push",
}
"""Of pages without a published number."""


@pytest.mark.parametrize("results", PAGES, ids=lambda p: p.name)
def test_a_page_opens_without_complaint_or_request(browser, opened, reported, results):
    archived = results in ARCHIVED
    text = reported(results)[0].read_text() if archived else render(contents(open_results(results)))
    assert opened(text) < 5e6
    own = (TITLE, "Anomaly detection on ") if results in NAMED else TITLES.get(results.name, TITLE)
    assert browser.title.startswith(own)
    buttons = browser.find_elements(By.CSS_SELECTOR, ".print button")
    next(button for button in buttons if button.is_displayed()).click()
    assert complaints(browser) == []
    assert requests(browser) == []


def test_what_the_rules_forbid_would_be_seen(browser, tmp_path):
    """Pages that break the rules show that the test above can fail."""
    path = tmp_path / "bad.html"
    path.write_text("<meta http-equiv=Content-Security-Policy content=\"default-src 'none'\">"
                    "<p style='color:red'>")  # fmt: skip
    browser.get_log("browser")
    browser.get(path.as_uri())
    assert complaints(browser)
    path.write_text("<img src='http://localhost:9/x.png'>")
    browser.get_log("performance")
    browser.get(path.as_uri())
    complaints(browser)
    assert requests(browser) == ["http://localhost:9/x.png"]


SEEN = """return [...document.querySelectorAll(arguments[0])]
    .filter((e) => e.getClientRects().length && e.checkVisibility({visibilityProperty: true}))
    .map((e) => e.innerText.trim())"""


def seen_texts(browser, selector):
    """Return the texts of what is displayed, asked for at once: the driver takes long for each."""
    return browser.execute_script(SEEN, selector)


def first_column(browser, shots=1, body=1):
    rows = f"#t-atacnet_table1 [data-shots='{shots}'] tbody:nth-of-type({body}) tr"
    return seen_texts(browser, f"{rows} th:first-of-type")


def tool(browser, selector):
    return browser.find_element(By.CSS_SELECTOR, f"[data-table=t-atacnet_table1] {selector}")


def heading(browser, column):
    return browser.find_element(By.CSS_SELECTOR, f"#t-atacnet_table1 button[data-sort='{column}']")


def show_all(browser):
    """Show the rows that were not run, too."""
    tool(browser, "[name=ran]").click()


def test_sorting_keeps_means_below_and_turns_round(shown):
    assert not first_column(shown), "most of the table was not run"
    show_all(shown)
    before = first_column(shown)
    assert before[0] == "carpet"
    assert before[-1] == "mean"
    heading(shown, 0).click()
    assert first_column(shown) == [*sorted(before[:-1]), "mean"]
    heading(shown, 0).click()
    assert first_column(shown) == [*sorted(before[:-1], reverse=True), "mean"]
    heading(shown, 1).click()  # DevNet at one shot, as published: .979 is the best
    assert first_column(shown)[0] == "hazelnut"
    aria_sort = heading(shown, 1).find_element(By.XPATH, "..").get_attribute
    assert aria_sort("aria-sort") == "descending"
    assert first_column(shown, shots=10)[0] == "hazelnut", "rows stay in line"
    heading(shown, 1).click()  # .399 is the least
    assert first_column(shown)[0] == "screw"
    assert aria_sort("aria-sort") == "ascending"
    assert heading(shown, 0).find_element(By.XPATH, "..").get_attribute("aria-sort") is None


def test_the_filter_leaves_what_it_names(shown):
    show_all(shown)
    none = shown.find_element(By.CSS_SELECTOR, "#t-atacnet_table1 .no-row")
    tool(shown, "[name=filter]").send_keys("too")
    assert first_column(shown) == ["toothbrush"]
    assert not none.is_displayed()
    tool(shown, "[name=filter]").send_keys("x")
    assert none.text == "No category matches."
    tool(shown, "[name=filter]").clear()
    tool(shown, "[name=filter]").send_keys(" ")
    tool(shown, "[name=ran]").click()
    ran = [first_column(shown, shots=10, body=b) for b in (2, 3)]
    assert ran == [["brain_mri"], ["head_ct"]]
    assert first_column(shown, shots=10) == []


def test_the_switches_show_ours_printed_source_and_difference(shown):
    def texts(selector):
        return seen_texts(shown, f"#t-atacnet_table1 {selector}")

    show_all(shown)
    assert texts("a.ours")
    assert len(texts(".published")) == 180
    assert not texts(".gap")
    tool(shown, "[value=gap]").click()
    assert texts(".gap") == ["+0.021", "−0.235"]
    assert not texts(".published")
    tool(shown, "[value=source]").click()
    assert len(texts(".source")) == 102  # DevNet, DRA and SAOE in 17 rows, twice
    tool(shown, "[name=shots][value='1']").click()
    assert len(texts(".source")) == 51
    assert texts("[scope=colgroup]") == ["one labelled anomaly"]


def test_one_click_shows_the_runs_of_a_cell_and_escape_closes_them(shown):
    link = shown.find_element(By.CSS_SELECTOR, "a.ours[href$='head_ct-head_ct-10-atacnet']")
    link.click()
    dialog = shown.find_element(By.ID, "cell")
    dialog.find_element(By.CLASS_NAME, "copy").click()
    assert shown.execute_script("return getSelection().toString()").startswith("bench show ")
    assert dialog.is_displayed()
    assert "head_ct, ten labelled anomalies, ATAC-Net: 0.750" in dialog.text
    assert len(dialog.find_elements(By.CSS_SELECTOR, "tbody tr")) == 3
    for word in ("As published", "Verdict", "Basis", "stage 3, not 4", "hole/2.png"):
        assert word in dialog.text
    dialog.find_element(By.TAG_NAME, "summary").click()
    assert "fingerprint" in dialog.text
    shown.switch_to.active_element.send_keys("\ue00c")  # Escape
    assert not dialog.is_displayed()
    assert complaints(shown) == []


def test_a_link_to_a_cell_opens_its_runs(shown):
    name = "atacnet_table1-head_ct-head_ct-10-atacnet"
    shown.get(f"{shown.current_url.partition('#')[0]}#{name}")
    assert shown.find_element(By.ID, name).get_attribute("open") is not None


def test_all_can_be_reached_by_keyboard(shown):
    """Tab goes through links, switches, buttons and what scrolls; each of them is seen."""
    body = shown.find_element(By.TAG_NAME, "body")
    body.send_keys("\ue004")
    assert shown.switch_to.active_element.get_attribute("class") == "skip"
    seen = set()
    for _ in range(40):
        active = shown.switch_to.active_element
        seen.add((active.tag_name, active.get_attribute("name")))
        active.send_keys("\ue004")
    assert {("a", None), ("input", "show"), ("input", "filter"), ("summary", None)} <= {
        (tag, name or None) for tag, name in seen
    }
    show_all(shown)
    heading(shown, 0).send_keys("\ue007")  # Enter sorts
    assert first_column(shown)[0] == "bottle"


SEEDS = 3
WIDTHS = (1920, 1400, 820, 390)
RIGHT_EDGES = """return [...document.querySelectorAll("#t-atacnet_table1 thead th")]
    .map((head) => head.getBoundingClientRect().right)"""


def resized(browser, width):
    """Give the page a width, of a phone too, and return how wide it is."""
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    return browser.execute_script("return document.documentElement.scrollWidth")


def test_a_full_table_1_is_seen_whole_at_any_width(browser, opened, monkeypatch):
    """All columns of 17 rows, six methods, two numbers of shots, at the width of a monitor."""
    monkeypatch.setattr("bench.report.content.draw_figures", lambda sources: ())
    monkeypatch.setattr("tests.campaigns.big_report.SEEDS", SEEDS)
    opened(render(contents(MadeUp(17 * len(METHODS) * 2 * SEEDS))))
    try:
        for width in WIDTHS:
            assert resized(browser, width) <= width
            edges = browser.execute_script(RIGHT_EDGES)
            assert len(edges) == 2 * (2 + len(METHODS))
            assert max(edges) <= width or width == 390, "on a phone a table scrolls by itself"
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    runs = browser.find_element(By.ID, "run-table")
    assert len(runs.find_elements(By.CSS_SELECTOR, "tbody tr")) == 200
    browser.find_element(By.CSS_SELECTOR, "#run-filter input").send_keys("devnet carpet")
    shown = runs.find_elements(By.CSS_SELECTOR, "tbody tr")
    assert len(shown) == 2 * SEEDS
    runs.find_element(By.CSS_SELECTOR, "th:nth-child(6) button").click()  # AUROC, best first
    aurocs = [float(r.find_elements(By.TAG_NAME, "td")[5].text.rstrip("\N{DAGGER}"))
              for r in runs.find_elements(By.CSS_SELECTOR, "tbody tr")]  # fmt: skip
    assert aurocs == sorted(aurocs, reverse=True)
    assert complaints(browser) == []


@pytest.mark.parametrize("width", [360, 1300])
def test_nothing_is_wider_than_the_window(shown, width):
    shown.set_window_size(width, 900)
    wide, window = shown.execute_script(
        "return [document.documentElement.scrollWidth, document.documentElement.clientWidth]"
    )
    shown.set_window_size(1300, 900)
    assert wide <= window


@pytest.fixture(scope="module")
def page_of_times():
    """Two methods of Table 2, timed on two machines."""
    runs = [scored(PADIM, 0.91, auroc_full=0.95), scored(ATACNET, 0.99)]
    times = [timed(s, t, on=GPU, seed=9) for s, t in ((PADIM, 0.01), (ATACNET, 0.02))]
    times += [timed(s, 0.1 + seed, seed=seed) for s in (PADIM, ATACNET) for seed in range(3)]
    return render(contents(Held([*runs, *times])))


@pytest.fixture
def of_times(browser, opened, page_of_times):
    """Open that page."""
    opened(page_of_times)
    return browser


def test_a_switch_shows_table_2_on_the_test_set_of_atacnet(of_times):
    def texts(selector):
        texts = seen_texts(of_times, f"#t-atacnet_table2 {selector}")
        return [text.rstrip("\N{DAGGER}") for text in texts]

    assert texts("a.ours") == ["0.950", "0.990"]
    assert not texts(".same")
    of_times.find_element(By.CSS_SELECTOR, "[data-table=t-atacnet_table2] [value=same]").click()
    assert texts(".same") == ["0.910", "0.990"]
    assert not texts("a.ours") + texts(".published") + texts(".word")
    head = of_times.find_element(By.CSS_SELECTOR, "#t-atacnet_table2 button[data-sort='3']")
    head.click()  # PaDiM: the one row that has a number comes first
    first = of_times.find_element(By.CSS_SELECTOR, "#t-atacnet_table2 tbody tr th")
    assert first.text == "bottle"
    assert complaints(of_times) == []


def test_another_machine_is_one_click_away(of_times):
    section = of_times.find_element(By.ID, "time")
    assert len([t for t in section.find_elements(By.TAG_NAME, "table") if t.is_displayed()]) == 1
    section.find_elements(By.CSS_SELECTOR, "h4 ~ details > summary")[0].click()
    shown = [t for t in section.find_elements(By.TAG_NAME, "table") if t.is_displayed()]
    assert len(shown) == 2
    assert "20.0" in shown[1].text
    assert len(section.find_elements(By.TAG_NAME, "figure")) == 2
    assert (complaints(of_times), requests(of_times)) == ([], [])


@pytest.mark.parametrize("width", [360, 1300])
def test_tables_of_times_scroll_within_the_window(of_times, width):
    of_times.set_window_size(width, 900)
    wide, window = of_times.execute_script(
        "return [document.documentElement.scrollWidth, document.documentElement.clientWidth]"
    )
    of_times.set_window_size(1300, 900)
    assert wide <= window
