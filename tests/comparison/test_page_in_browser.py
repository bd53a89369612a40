"""The page as people have it: opened from a folder in Chromium, with a mouse, with a keyboard, in light and in dark."""

import json
import shutil
from contextlib import contextmanager
from urllib.parse import unquote

import pytest
from comparison_cases import FAILURE, comparison_json

from snnsl_plugin.comparison import publish

pytestmark = pytest.mark.slow

# Every element that shows words of its own, with its colour and that of the first ground behind it that is opaque.
SHOWN_COLOURS = """
const found = [];
for (const element of document.querySelectorAll("body *")) {
  if (element.closest("script, style, .hush, .skip, [hidden]") || !element.getClientRects().length) continue;
  if (![...element.childNodes].some(node => node.nodeType === 3 && node.data.trim())) continue;
  let behind = element, ground = "rgba(0, 0, 0, 0)";
  while (behind && ground === "rgba(0, 0, 0, 0)") {
    ground = getComputedStyle(behind).backgroundColor;
    behind = behind.parentElement;
  }
  const style = getComputedStyle(element);
  const ink = element.ownerSVGElement ? style.fill : style.color;
  found.push([ink, ground, element.tagName + "." + (element.getAttribute("class") || "")]);
}
return found;
"""


@contextmanager
def chromium(**preferences):
    """A headless browser that logs what its console says and what it asks the network for."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    assert browser, "chromium is absent: install Debian's packages chromium and chromium-driver for the slow tests"
    assert driver, "chromedriver is absent: install Debian's package chromium-driver for the slow tests"
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.add_experimental_option("prefs", preferences)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    opened = webdriver.Chrome(options=options, service=Service(driver))
    try:
        yield opened
    finally:
        opened.quit()


@pytest.fixture(scope="module")
def comparison():
    return comparison_json()


@pytest.fixture(scope="module")
def folder(comparison, tmp_path_factory):
    """A comparison's folder as the command leaves it: the page, its sheets, and a folder for each run."""
    made = tmp_path_factory.mktemp("comparison")
    for row in comparison["rows"]:
        for run in row["runs"]:
            (made / run["folder"]).mkdir(parents=True)
            if run["seed"] == 0:
                (made / run["folder"] / "report.html").write_text("a report")
    for name in ("comparison.json", "recipe.yaml"):
        (made / name).write_text("{}")
    publish.write(comparison, made)
    return made


@pytest.fixture(scope="module")
def shared():
    with chromium() as opened:
        yield opened


@pytest.fixture
def browser(shared, folder):
    """The page, opened anew, wide and light."""
    look(shared, "light", 1280)
    shared.get("about:blank")
    shared.get((folder / "comparison.html").as_uri())
    wait(shared, "return document.readyState === 'complete' && !document.querySelector('button[disabled]')")
    return shared


def wait(browser, script, *arguments):
    """Until a script returns true, on a machine as slow as may be."""
    from selenium.webdriver.support.wait import WebDriverWait

    WebDriverWait(browser, 30).until(lambda opened: opened.execute_script(script, *arguments), script)


def look(browser, scheme, width):
    wanted = {"prefers-color-scheme": scheme, "prefers-reduced-motion": "reduce"}
    media = {"features": [{"name": name, "value": value} for name, value in wanted.items()]}
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def css(browser, selector):
    from selenium.webdriver.common.by import By

    return browser.find_elements(By.CSS_SELECTOR, selector)


def press(browser, *keys):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    ActionChains(browser).send_keys(*(getattr(Keys, key) for key in keys)).perform()


def hover(browser, element):
    from selenium.webdriver.common.action_chains import ActionChains

    browser.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", element)
    ActionChains(browser).move_to_element(element).perform()


def order(browser, place=0):
    """The pruners of a table in the order that the page shows, without the dense line."""
    body = "document.querySelectorAll('tbody.dense')[arguments[0]].nextElementSibling"
    return browser.execute_script(f"return [...{body}.rows].map(row => row.dataset.pruner)", place)


def head(browser, words):
    return next(button for button in css(browser, "th[data-sort] button") if button.text.startswith(words))


def tip(browser):
    (element,) = css(browser, "#tip")
    return element.text if element.is_displayed() else None


def expected_accuracy(row):
    accuracy = row["measures"]["accuracy"]
    return f"{100 * accuracy['mean']:.2f} % [{100 * accuracy['low']:.2f}, {100 * accuracy['high']:.2f}]"


def first_table(comparison):
    table = comparison["tables"][0]
    keys = ("task", "kind", "budget")
    rows = [row for row in comparison["rows"] if [row[key] for key in keys] == [table[key] for key in keys]]
    return table, rows


def contrast(first, second):
    """WCAG 2.2, of two colours as the browser writes them: rgb(r, g, b)."""

    def luminance(colour):
        parts = [int(part) / 255 for part in colour.removeprefix("rgb(").removesuffix(")").split(",")]
        red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    dark, light = sorted((luminance(first), luminance(second)))
    return (light + 0.05) / (dark + 0.05)


def test_the_page_opens_without_a_word_on_the_console_and_asks_the_network_for_nothing(shared, folder):
    cut = {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0}
    shared.execute_cdp_cmd("Network.enable", {})
    shared.execute_cdp_cmd("Network.emulateNetworkConditions", cut)
    look(shared, "light", 1280)
    shared.get("about:blank")
    for kind in ("browser", "performance"):
        shared.get_log(kind)
    page = (folder / "comparison.html").as_uri()
    shared.get(page)

    head(shared, "SynOps").click()
    assert shared.get_log("browser") == []
    said = [json.loads(line["message"])["message"] for line in shared.get_log("performance")]
    asked = [each["params"]["request"]["url"] for each in said if each["method"] == "Network.requestWillBeSent"]
    assert asked
    assert {address for address in asked if not address.startswith("data:")} == {page}
    loaded = shared.execute_script("return performance.getEntriesByType('resource').map(entry => entry.name)")
    assert [address for address in loaded if not address.startswith("data:")] == []


def test_a_click_on_a_head_sorts_and_a_second_click_turns_round(browser, comparison):
    table, rows = first_table(comparison)
    assert order(browser) == table["order"]
    by_cost = sorted(rows, key=lambda row: row["measures"]["synops"]["mean"])

    head(browser, "SynOps").click()
    assert order(browser) == [row["pruner"] for row in by_cost]
    assert head(browser, "SynOps").find_element("xpath", "..").get_attribute("aria-sort") == "ascending"
    head(browser, "SynOps").click()
    assert order(browser) == [row["pruner"] for row in reversed(by_cost)]
    assert len(css(browser, "th[aria-sort]")) == len(comparison["tables"]), "one head a table says the order"
    dense = browser.execute_script("return document.querySelector('tbody.dense tr').dataset.pruner")
    assert dense == "dense"


@pytest.mark.parametrize("key", ["ENTER", "SPACE"])
def test_the_keyboard_sorts_too(browser, comparison, key):
    _, rows = first_table(comparison)
    browser.execute_script("arguments[0].focus()", head(browser, "pruner"))
    press(browser, key)

    assert order(browser) == sorted(row["pruner"] for row in rows)
    assert css(browser, "#said")[0].get_attribute("textContent") == "Sorted by pruner, ascending."


def test_a_failed_line_stays_below_however_the_table_is_sorted(browser):
    bodies = "[...document.querySelectorAll('tbody.dense')]"
    place = browser.execute_script(
        f"return {bodies}.findIndex(each => each.nextElementSibling.querySelector('.failed'))"
    )
    failed = order(browser, place)[-1]
    table = f"{bodies}[arguments[0]].closest('table')"
    for column in range(1, 10):
        for _ in range(2):
            browser.execute_script(
                f"{table}.querySelectorAll('th[data-sort] button')[arguments[1]].click()", place, column
            )
            if column > 1:
                assert order(browser, place)[-1] == failed
    assert FAILURE in browser.execute_script(f"return {table}.querySelector('.failed').textContent", place)


def test_hovering_a_point_shows_its_numbers_and_leaving_hides_them(browser, comparison):
    from selenium.webdriver.common.action_chains import ActionChains

    point = css(browser, "svg.narrow .point")[2]
    row = comparison["rows"][int(point.get_attribute("data-row"))]
    assert tip(browser) is None
    hover(browser, point.find_element("css selector", ".mark"))

    shown = tip(browser)
    assert shown.startswith(f"{row['pruner']} ({row['host']})")
    assert expected_accuracy(row) in shown
    assert f"seeds\n{row['measures']['accuracy']['n']}" in shown
    ActionChains(browser).move_to_element(css(browser, "figure:has(svg.narrow) figcaption")[0]).perform()
    assert tip(browser) is None


def test_the_keyboard_reaches_every_point_of_a_picture_by_one_stop_and_the_arrows(browser, comparison):
    table, rows = first_table(comparison)
    picture = css(browser, "svg.wide")[0]
    assert len(picture.find_elements("css selector", '.point[tabindex="0"]')) == 1
    browser.execute_script("arguments[0].querySelector('.point[tabindex=\"0\"]').focus()", picture)
    seen = []
    for _ in range(len(rows) + 1):
        focused = browser.switch_to.active_element
        row = comparison["rows"][int(focused.get_attribute("data-row"))]
        assert expected_accuracy(row) in tip(browser)
        assert focused.get_attribute("aria-describedby") == "tip"
        seen.append(row["pruner"])
        press(browser, "ARROW_DOWN")

    assert seen == ["dense", *table["order"]]
    press(browser, "ESCAPE")
    assert tip(browser) is None
    press(browser, "END")
    assert tip(browser).startswith(table["order"][-1])
    press(browser, "TAB")
    assert tip(browser) is None


def test_a_point_leads_to_its_run_folder(browser, folder):
    point = css(browser, "svg.wide .point")[1]
    target = (folder / unquote(point.get_dom_attribute("href"))).as_uri() + "/"
    browser.execute_script("arguments[0].focus()", point)
    press(browser, "ENTER")

    wait(browser, "return document.readyState === 'complete' && location.href === arguments[0]", target)


def test_every_link_of_the_page_leads_to_something_that_is_there(browser, folder):
    script = "return [...document.querySelectorAll('a')].map(each => each.getAttribute('href'))"
    links = browser.execute_script(script)
    files = {link for link in links if not link.startswith("#")}

    assert len(files) > 200
    assert any(link.endswith("report.html") for link in files)
    assert [link for link in files if not (folder / unquote(link)).exists()] == []


def test_a_host_can_be_hidden_and_shown_again(browser):
    def seen(host):
        return sum(point.is_displayed() for point in css(browser, f'.point[data-host="{host}"] .mark'))

    before = {host: seen(host) for host in ("nni", "snnsl", "dense")}
    button = next(each for each in css(browser, ".legend button") if each.get_attribute("data-host") == "nni")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", button)
    button.click()

    assert before["nni"] > 0
    assert seen("nni") == 0
    assert {host: seen(host) for host in ("snnsl", "dense")} == {host: before[host] for host in ("snnsl", "dense")}
    pressed = [each.get_attribute("aria-pressed") for each in css(browser, '.legend button[data-host="nni"]')]
    assert set(pressed) == {"false"}
    assert not css(browser, '.point.off[tabindex="0"]')
    button.click()
    assert seen("nni") == before["nni"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_words_stand_out_in_both_schemes(browser, scheme):
    look(browser, scheme, 1280)
    colours = browser.execute_script(SHOWN_COLOURS)

    assert len(colours) > 1000
    faint = {(what, ink, ground) for ink, ground, what in colours if contrast(ink, ground) < 4.5}
    assert faint == set()


def test_the_dark_scheme_is_dark(browser):
    ground = "return getComputedStyle(document.body).backgroundColor"
    light = browser.execute_script(ground)
    look(browser, "dark", 1280)

    assert contrast(light, "rgb(255, 255, 255)") < 1.2
    assert contrast(browser.execute_script(ground), "rgb(0, 0, 0)") < 1.2


@pytest.mark.parametrize("width", [320, 1280])
def test_tables_and_pictures_scroll_in_their_boxes_and_the_page_only_downwards(browser, width):
    look(browser, "light", width)
    browser.refresh()
    wide = "return [document.documentElement.scrollWidth, document.documentElement.clientWidth]"
    found, room = browser.execute_script(wide)

    assert found <= room <= width
    measured = "box => [box.scrollWidth, box.clientWidth, getComputedStyle(box).overflowX]"
    boxes = browser.execute_script(f"return [...document.querySelectorAll('.scroll')].map({measured})")
    assert all(overflow == "auto" for _, _, overflow in boxes)
    if width == 320:
        assert any(inside > box for inside, box, _ in boxes)


def test_focus_is_seen_and_the_first_stop_leads_past_the_head(browser):
    press(browser, "TAB")
    skip = browser.switch_to.active_element
    assert skip.text == "Skip to the tables"
    assert skip.rect["x"] >= 0
    press(browser, "ENTER", "TAB")
    focused = browser.switch_to.active_element
    assert browser.execute_script("return arguments[0].closest('main') !== null", focused)
    assert focused.value_of_css_property("outline-style") != "none"


def test_without_scripts_the_rows_and_the_pictures_are_there(folder, comparison):
    with chromium(**{"profile.managed_default_content_settings.javascript": 2}) as plain:
        plain.get((folder / "comparison.html").as_uri())
        buttons = css(plain, "th button, .legend button")
        assert not any(button.is_enabled() for button in buttons), "scripts ran, so this test shows nothing"
        rows = css(plain, "tr[data-pruner]")
        assert len(rows) == sum(len(table["order"]) + 1 for table in comparison["tables"])
        assert rows[1].is_displayed()
        assert comparison["tables"][0]["order"][0] in rows[1].text
        assert css(plain, "svg.narrow .point")[0].is_displayed()
