# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The report's page as a person uses it, in a real browser, opened from a file."""

from __future__ import annotations

import pathlib
import typing as t

import browsing
import pytest
import report_facts
from report_model import report_model

from ansible_collections.dbfleet.audit.plugins.plugin_utils._report import report
from ansible_collections.dbfleet.audit.plugins.plugin_utils._report_html import html

if t.TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

EVIL = '"><img src=x onerror="window.struck = true"><script>window.struck = true</script>'
#: What the page shows for what is not known.
UNKNOWN = "\N{EN DASH}"
ROWS = "#hosts .listing > .scroll > table > tbody > tr.row"


@pytest.fixture(scope="module")
def browser() -> t.Iterator[Browser]:
    """Return the browser of this file."""
    pytest.importorskip("playwright", reason="Playwright is in the environment of the newest ansible-core only")
    if browsing.chromium() is None:
        pytest.skip("no Chromium on this machine")
    with browsing.browser() as started:
        yield started


@pytest.fixture(scope="module")
def model() -> dict[str, t.Any]:
    """Return the model of a small fleet."""
    return report_model()


@pytest.fixture
def visit(browser: Browser, tmp_path: pathlib.Path) -> t.Iterator[t.Callable[..., Page]]:
    """Give a function that opens the page of a model; what the page asked for and complained of is looked at."""
    path = tmp_path / "report.html"
    visits: list[browsing.Visit] = []

    def open_(model: dict[str, t.Any], **options: t.Any) -> Page:
        path.write_text(html(model), encoding="utf-8")
        visits.append(browsing.Visit(browser, path, **options))
        return visits[-1].page

    yield open_
    for made in visits:
        made.close()
        assert set(made.requests) == {path.as_uri()}
        assert made.complaints == []


def names(page: Page) -> list[str]:
    """Return the hosts that are shown, in their order."""
    return page.locator(f"{ROWS} > td:nth-child(2)").all_inner_texts()


def numbers(locator: Locator, attribute: str) -> list[float]:
    """Return a number of each element, in one request to the browser."""
    return locator.evaluate_all("(nodes, name) => nodes.map((node) => Number(node.getAttribute(name)))", attribute)


def sizes(locator: Locator) -> list[tuple[float, float]]:
    """Return width and height of each element as drawn."""
    boxes = locator.evaluate_all("(nodes) => nodes.map((node) => node.getBoundingClientRect().toJSON())")
    return [(box["width"], box["height"]) for box in boxes]


def unfold(summary: Locator) -> None:
    """Click on a summary; what is below it is made after the browser's own event, which comes later than the click."""
    summary.click()
    summary.locator("xpath=following-sibling::*").first.wait_for()


def test_hosts_are_filtered_sorted_and_searched(visit: t.Callable[..., Page], model: dict[str, t.Any]):
    page = visit(model)
    hosts, live = page.locator("#hosts"), page.locator("#live")
    by_posture = {
        name: [each["name"] for each in model["hosts"] if each["posture"] == name] for name in ("red", "green")
    }
    assert page.locator("h2").first.inner_text().startswith(f"{len(by_posture['red'])} hosts need action")
    assert names(page)[: len(by_posture["red"])] == by_posture["red"]

    hosts.get_by_role("button", name="Green").click()
    assert sorted(names(page)) == sorted(by_posture["green"])
    assert live.inner_text() == f"{len(by_posture['green'])} of 24 hosts"
    hosts.get_by_label("Engine").select_option("mariadb")
    assert names(page)
    assert all(name.startswith("maria-") for name in names(page))
    hosts.get_by_role("searchbox").fill("pharmacy stock")
    assert names(page) == ["maria-pharmacy-1"]
    hosts.get_by_role("searchbox").fill("nowhere")
    assert hosts.get_by_text("No host found").is_visible()

    hosts.get_by_role("searchbox").fill("")
    hosts.get_by_label("Engine").select_option("")
    hosts.get_by_role("button", name="All").click()
    changes = {each["name"]: sum(database["changes"] for database in each["databases"]) for each in model["hosts"]}
    header = hosts.get_by_role("columnheader", name="Changes")
    for direction, reverse in (("descending", True), ("ascending", False)):
        header.get_by_role("button").click()
        assert header.get_attribute("aria-sort") == direction
        assert [changes[name] for name in names(page)] == sorted(changes.values(), reverse=reverse)

    # From what was found to the hosts on which it was.
    page.locator("#overview").get_by_role("button", name="Drift from the inventory").click()
    assert sorted(names(page)) == sorted(
        each["name"] for each in model["hosts"] if any(found["check"] == "drift" for found in each["findings"])
    )


def test_a_host_is_opened_with_the_keyboard_alone(visit: t.Callable[..., Page], model: dict[str, t.Any]):
    page = visit(model)
    host = next(each for each in model["hosts"] if each["posture"] == "red")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the report"
    page.keyboard.press("Enter")
    while not page.evaluate("document.activeElement.matches('#hosts .opener')"):
        page.keyboard.press("Tab")
    opener = page.locator("#hosts").get_by_role("button", name=f"Details of {host['name']}")
    assert opener.evaluate("node => node === document.activeElement && getComputedStyle(node).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    assert opener.get_attribute("aria-expanded") == "true"
    detail = page.locator(f"#{opener.get_attribute('aria-controls')}")
    finding = host["findings"][0]
    assert detail.get_by_text(finding["text"]).is_visible()
    assert detail.locator("pre").first.inner_text() == finding["fix"]
    copy = detail.get_by_role("button", name="Copy the command that mends it")
    copy.evaluate("(node) => node.click()")
    detail.get_by_text("Copied").wait_for()
    opener.focus()
    page.keyboard.press("ArrowDown")
    assert page.evaluate("document.activeElement.getAttribute('aria-expanded')") == "false"
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowLeft")
    assert opener.get_attribute("aria-expanded") == "false"
    assert not detail.is_visible()
    page.keyboard.press("ArrowRight")

    # The tables of a database, which are unpacked for it, the ones without audit first.
    database = host["databases"][0]
    detail = page.locator(f"#{opener.get_attribute('aria-controls')}")
    while not page.evaluate("document.activeElement.matches('#hosts summary')"):
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    shown = detail.locator("details").first.locator("tr.row")
    shown.first.wait_for()
    assert shown.count() == len(database["tables"])
    assert sum("No" in text.split() for text in shown.all_inner_texts()) == database["auditable"] - database["audited"]


def test_every_chart_shows_the_numbers_of_the_model(visit: t.Callable[..., Page], model: dict[str, t.Any]):
    page = visit(model, viewport={"width": 1280, "height": 900})
    activity = model["activity"]
    expected = {
        "Changes by day": [day["changes"] for day in activity["by_day"]],
        "Changes by hour of the day": activity["by_hour"],
    }
    for title, values in expected.items():
        figure = page.get_by_role("figure").filter(has=page.get_by_role("heading", name=title))
        figure.scroll_into_view_if_needed()
        assert numbers(figure.locator(".mark"), "data-value") == values
        heights = [height for _width, height in sizes(figure.locator(".mark .value"))]
        scale = max(heights) / max(values)
        assert max(heights) > 50
        assert all(abs(height - value * scale) <= 1 for height, value in zip(heights, values))
        # What is drawn is also there: without the marks, the picture is another one.
        drawn = figure.screenshot()
        figure.locator("svg").evaluate("node => node.querySelectorAll('.mark').forEach((mark) => mark.remove())")
        assert figure.screenshot() != drawn
        unfold(figure.locator("summary"))
        cells = figure.locator("tbody td.number")
        assert cells.all_inner_texts() == [f"{value:,}" for value in values]

    summary = model["summary"]
    marks = page.locator(".posture .mark")
    shown = [summary[posture] for posture in ("red", "amber", "unknown", "green")]
    assert numbers(marks, "data-value") == shown
    widths = [width for width, _height in sizes(marks)]
    assert all(abs(width / sum(widths) - hosts / summary["hosts"]) < 0.01 for width, hosts in zip(widths, shown))
    growth = page.get_by_role("figure").filter(has=page.get_by_role("heading", name="Growth of the log"))
    growth.scroll_into_view_if_needed()
    expected = sum(database["projected_bytes"] for host in model["hosts"] for database in host["databases"])
    kept = sum(month["bytes"] for month in model["growth"])
    assert numbers(growth.locator(".mark:not(.expected)"), "data-value")[-1] == kept
    assert numbers(growth.locator(".mark.expected"), "data-value")[-1] == expected
    charts = page.locator("svg[role=img]")
    assert all(width > 20 and height >= 5 for width, height in sizes(charts))
    assert charts.count() == page.locator("svg[role=img]:is([aria-label], [aria-labelledby])").count() > 30


def test_no_name_of_a_server_becomes_markup(visit: t.Callable[..., Page]):
    model = report_model(6)
    host = model["hosts"][4]
    host.update(name=EVIL, reason=EVIL)
    host["findings"] = [{"level": "red", "check": EVIL, "database": EVIL, "text": EVIL, "fix": EVIL}]
    host["databases"][0].update(name=EVIL)
    host["databases"][0]["tables"][0].update(table=EVIL, policy=EVIL, problem=EVIL, tags=[EVIL])
    host["checks"][EVIL] = {"level": "red", "text": EVIL}
    for name in ("users", "tables", "bulk", "applications"):
        model["activity"][name][0].update(dict.fromkeys(("name", "table", "changed_by", "host"), EVIL))
    model["controls"][0].update(control=EVIL, evidence=[{"host": EVIL, "text": EVIL}], source="javascript:struck=true")
    model["proposals"][0].update(yaml=EVIL, host=EVIL)
    model["discovery"][0].update(table=EVIL, columns={EVIL: EVIL}, categories=[EVIL])
    model["alerts"] = [{"name": EVIL, "host": EVIL, "text": EVIL}]
    model.update(title=EVIL, profiles=[EVIL])
    page = visit(model)
    page.locator("#hosts").get_by_role("button", name='Details of "><img').click()
    for summary in page.locator("#hosts .detail summary").all():
        unfold(summary)
    page.locator("#controls .opener").first.click()
    page.locator("#discovery .opener").first.click()
    assert page.locator("h1").inner_text() == EVIL
    assert page.get_by_text(EVIL).count() > 25
    assert page.evaluate("[window.struck, document.images.length, document.scripts.length]") == [None, 0, 3]
    assert page.locator("a[href^=javascript]").count() == 0


def test_what_the_report_makes_of_facts_is_shown(visit: t.Callable[..., Page]):
    estimate = {"counted_since": None, "rows_per_day": 120.0, "bytes_per_day": 48_000.0, "basis": "From the counters."}
    trails = [
        {**report_facts.trail(), "estimate": estimate},
        report_facts.trail(database="clinic", error="permission denied"),
    ]
    bulk = [{"at": report_facts.NOW, "table": "public.users", "action": "TRUNCATE", "rows": None, "changed_by": "ann"}]
    unknown = report_facts.trail(coverage=None, activity=None, seals=None, partitions=None, settings=None)
    excuse = {"reason": "emptied every night", "approved_by": "dba", "until": "2027-03-31", "expired": False}
    tables = [report_facts.table("public.users"), report_facts.table("public.tmp_load", False, exception=excuse)]
    coverage = {"auditable": 2, "audited": 1, "excepted": 1, "tables": tables}
    truncated = report_facts.trail(activity={"bulk": bulk}, coverage=coverage)
    facts = {"pg1": report_facts.host(*trails), "pg2": report_facts.host(unknown), "pg3": report_facts.host(truncated)}
    options = {**report_facts.OPTIONS, "profiles": ["hipaa", "gdpr"]}
    page = visit(report(facts, ["pg1", "pg2", "pg3", "pg4"], options))
    assert sorted(names(page)) == ["pg1", "pg2", "pg3", "pg4"]
    # What is not known is no number: neither of the host's row nor of its databases.
    assert page.locator(ROWS).filter(has_text="pg2").locator("td").all_inner_texts()[4:8] == [UNKNOWN] * 4
    assert page.locator("#activity tr.row").filter(has_text="TRUNCATE").locator("td").nth(4).inner_text() == UNKNOWN
    for opener in page.locator("#hosts .opener").all():
        opener.click()
    assert page.locator("#hosts").get_by_text(f"{UNKNOWN} of {UNKNOWN}").count() == 1
    assert page.locator("#hosts").get_by_text("not known: Every table that could be audited is").is_visible()
    assert page.locator("#hosts").get_by_text("clinic could not be read: permission denied").is_visible()
    assert page.locator("#hosts").get_by_text("not asked in this run").is_visible()
    assert page.locator("#hosts").get_by_text("would add about 120 rows and 46.9 KiB a day").is_visible()
    unfold(page.locator("#hosts").get_by_text("shop: 2 tables").last)
    assert page.locator("#hosts").get_by_text("emptied every night (dba, until 2027-03-31)").is_visible()
    assert page.get_by_role("heading", name="GDPR").is_visible()
    page.locator("#controls .opener").first.click()
    assert page.locator("#controls").get_by_text("It leaves open").is_visible()


def test_the_policy_stops_requests_and_markup(browser: Browser, model: dict[str, t.Any], tmp_path: pathlib.Path):
    path = tmp_path / "report.html"
    path.write_text(html(model), encoding="utf-8")
    visit = browsing.Visit(browser, path)
    stopped = visit.page.evaluate(
        """async () => {
            const stopped = [];
            document.addEventListener("securitypolicyviolation", (event) => stopped.push(event.effectiveDirective));
            document.body.append(Object.assign(new Image(), { src: "http://127.0.0.1:9/image.png" }));
            await fetch("http://127.0.0.1:9/").catch(() => null);
            try { document.body.innerHTML = "<b>text</b>"; } catch { stopped.push("markup"); }
            await new Promise((done) => setTimeout(done, 100));
            return stopped;
        }"""
    )
    visit.close()
    assert {"img-src", "connect-src", "markup"} <= set(stopped)


def test_colours_are_switched_and_paper_has_everything_open(visit: t.Callable[..., Page], model: dict[str, t.Any]):
    page = visit(model, color_scheme="dark")
    paper = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(paper)
    page.get_by_role("radio", name="Light").check(force=True)
    assert page.evaluate(paper) == "rgb(255, 255, 255)"
    page.reload()
    assert page.evaluate(paper) == "rgb(255, 255, 255)"
    page.get_by_role("radio", name="Auto").press("ArrowLeft")
    assert page.get_by_role("radio", name="Dark").is_checked()
    assert page.evaluate(paper) == dark != "rgb(255, 255, 255)"

    page.emulate_media(media="print")
    page.locator("#hosts tr.detail").nth(23).wait_for()
    assert page.evaluate(paper) == "rgb(255, 255, 255)"
    assert page.locator("#activity details:not([open])").count() == 0
    findings = [finding for host in model["hosts"] for finding in host["findings"]]
    assert page.locator("#hosts .findings > li").count() == len(findings)
    assert set(sizes(page.locator("nav, .toolbar, .copy, .more"))) == {(0, 0)}
    page.emulate_media(media="screen")
    page.locator("#hosts tr.detail").first.wait_for(state="detached")
    assert page.locator("#activity details[open]").count() == 0


def test_a_thousand_hosts_are_no_more_work_than_what_is_looked_at(visit: t.Callable[..., Page]):
    model = report_model(1000, databases=5)
    page = visit(model)
    nodes = "document.querySelectorAll('*').length"
    assert page.evaluate(nodes) < 4000
    assert len(names(page)) == 50
    page.locator("#hosts").get_by_role("columnheader", name="Log").get_by_role("button").click()
    page.locator("#hosts").get_by_role("button", name="Green").click()
    assert len(names(page)) == 50
    page.locator("#hosts").get_by_role("button", name="Show 50 more").click()
    assert len(names(page)) == 100
    assert page.evaluate("document.activeElement.matches('.opener')")
    page.locator("#hosts").get_by_role("searchbox").fill(model["hosts"][999]["name"])
    assert model["hosts"][999]["name"] in names(page)
    page.locator(f"{ROWS} .opener").first.click()
    page.locator("#hosts .detail summary").first.wait_for()
    assert page.locator("#hosts .detail summary").count() == 6
    assert page.evaluate(nodes) < 4000


def test_a_narrow_screen_scrolls_in_one_direction_only(visit: t.Callable[..., Page], model: dict[str, t.Any]):
    page = visit(model, viewport={"width": 390, "height": 844})
    page.locator("#hosts .opener").first.click()
    unfold(page.locator("#hosts .detail summary").first)
    page.locator("#checks").scroll_into_view_if_needed()
    assert page.evaluate("document.documentElement.scrollWidth") == 390


def test_without_javascript_the_page_says_what_it_is(visit: t.Callable[..., Page], model: dict[str, t.Any]):
    page = visit(model, java_script_enabled=False)
    text = page.locator("main").inner_text()
    assert "need JavaScript" in text
    assert f"{model['summary']['audited']} of {model['summary']['auditable']}" in text
    assert all(host["name"] in text for host in model["hosts"] if host["posture"] == "red")
