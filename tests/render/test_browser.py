"""The page in headless Chromium: it draws, sorts, filters, remembers, and can be read in the dark and on a phone."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from page_factory import HOSTILE, html_of, results, stored_in, write_examples

from odebench.result.schema import Result

missing = [name for name in ("altair", "vl_convert", "jinja2", "selenium") if importlib.util.find_spec(name) is None]
BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
missing += [name for name, path in (("chromium", BROWSER), ("chromedriver", shutil.which("chromedriver"))) if not path]
pytestmark = pytest.mark.skipif(bool(missing), reason=f"needs {', '.join(missing)}")

SECONDS = 20
READY = "return document.documentElement.dataset.drawn === arguments[0]"


def shown_results() -> list[Result]:
    """Those of the page's tests on two data sets, and one model whose name is a script."""
    (hostile,) = (make for make in results() if make.evaluation.attack.name == "cw")
    odd = hostile.evaluation.model_copy(
        update={
            "model": hostile.evaluation.model.model_copy(update={"name": HOSTILE.replace("/", " ")}),
            "attack": hostile.evaluation.attack.model_copy(update={"name": "worst-case"}),
            "dataset": hostile.evaluation.dataset.model_copy(update={"name": "letters"}),
        }
    )
    found = hostile.found.model_copy(update={"dataset_sha256": "1" * 64})
    # with the checks of a worst case, so that it is ranked
    checks = next(each.checks for each in results() if each.evaluation.attack.name == "worst-case" and not each.flags)
    return [
        *results(),
        hostile.model_copy(update={"evaluation": odd, "run_key": odd.run_key, "found": found, "checks": checks}),
    ]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A page as a file, opened without any server."""
    folder = tmp_path_factory.mktemp("page")
    stored = stored_in(folder, shown_results())
    write_examples(next(item for item in stored if item.result.evaluation.attack.name == "worst-case"))
    page = folder / "index.html"
    page.write_text(html_of(folder), encoding="utf-8")
    return page.as_uri()


@pytest.fixture(scope="module")
def chromium(address: str) -> Iterator[Any]:
    """One browser for all tests, without a network."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = str(BROWSER)
    for argument in (
        *("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--lang=en"),
        *("--host-resolver-rules=MAP * ~NOTFOUND", "--no-first-run", "--disable-component-update"),
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    driver.set_page_load_timeout(SECONDS)
    yield driver
    driver.quit()


class Page:
    """What a reader does with the page, and sees."""

    def __init__(self, driver: Any, address: str) -> None:
        self.driver, self.address = driver, address
        self.open()

    def open(self, fragment: str = "", *, width: int = 1280, height: int = 900, scheme: str = "light") -> None:
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        self.scheme(scheme, wait=False)
        self.driver.get("about:blank")
        self.driver.get(self.address + fragment)
        self.wait(scheme)

    def scheme(self, name: str, *, wait: bool = True) -> None:
        feature = {"name": "prefers-color-scheme", "value": name}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
        if wait:
            self.wait(name)

    def wait(self, scheme: str) -> None:
        from selenium.webdriver.support.wait import WebDriverWait

        WebDriverWait(self.driver, SECONDS, 0.05).until(lambda driver: driver.execute_script(READY, scheme))

    def script(self, text: str, *arguments: Any) -> Any:
        return self.driver.execute_script(text, *arguments)

    def find(self, selector: str) -> Any:
        return self.driver.find_element("css selector", selector)

    def column(self, key: str) -> list[str]:
        """The values of a column, of the rows that are shown, from above."""
        return self.script(
            "const place = [...document.querySelectorAll('#table thead th')].findIndex(e => e.dataset.key === "
            "arguments[0]); return [...document.querySelectorAll('#table tbody tr')].filter(r => r.offsetParent "
            "!== null).map(r => r.cells[place].innerText.trim())",
            key,
        )

    def sorting(self) -> dict[str, str]:
        """Columns that say that they are sorted."""
        return self.script(
            "return Object.fromEntries([...document.querySelectorAll('#table th[aria-sort]')].filter(e => e.ariaSort "
            "!== 'none').map(e => [e.dataset.key, e.ariaSort]))"
        )

    def choose(self, name: str, text: str) -> None:
        from selenium.webdriver.support.select import Select

        Select(self.find(f"#filter-{name}")).select_by_visible_text(text)

    def fragment(self) -> str:
        return str(self.script("return location.hash"))


@pytest.fixture
def page(chromium: Any, address: str) -> Page:
    return Page(chromium, address)


def numbers(texts: list[str]) -> list[float]:
    return [float(text.split()[0].replace("T=", "")) for text in texts if text not in ("", "no horizon")]


def test_it_loads_without_an_error_and_without_a_request(page: Page) -> None:
    page.driver.get_log("browser")
    page.driver.get_log("performance")
    page.open()
    assert page.driver.get_log("browser") == []
    sent = [
        entry["message"]
        for entry in page.driver.get_log("performance")
        if '"Network.requestWillBeSent"' in entry["message"] or '"Network.loadingFailed"' in entry["message"]
    ]
    loaded = [text for text in sent if '"url":"data:' not in text and '"url":"about:' not in text]
    assert [page.address in text for text in loaded] == [True], "the page itself and nothing else"
    assert page.script("return document.title") == "odebench: robustness of Neural ODE image classifiers"


def test_charts_are_drawn_and_a_mark_tells_its_figure(page: Page) -> None:
    charts = page.driver.find_elements("css selector", "[data-chart]")
    assert (
        len(charts) == 7
    )  # clean, worst case and two horizons of one data set, clean, worst case and one of the other
    for chart in charts:
        assert chart.find_elements("css selector", "svg .mark-symbol path"), chart.get_attribute("aria-label")
    assert len(page.driver.find_elements("css selector", "#picture-0 .legend .swatch")) == 3

    from selenium.webdriver.common.action_chains import ActionChains

    last = page.find("[data-chart='0-0-1']")
    page.script("arguments[0].scrollIntoView({block: 'center'})", last)
    mark = next(
        path
        for path in last.find_elements("css selector", "svg .mark-symbol path")
        if "kd-ode" in (path.get_attribute("aria-label") or "")
    )
    ActionChains(page.driver).move_to_element(mark).perform()
    text = page.find("#vg-tooltip-element").text
    assert page.find("#vg-tooltip-element").is_displayed()
    for part in ("kd-ode", "T=", "60.5 %", "50.7 to 69.5 %", "train seeds", "16 / 16", "worst-case"):
        assert part in text, text


def test_a_header_sorts_both_ways_by_number(page: Page) -> None:
    assert page.sorting() == {}
    header = page.find("th[data-key='robust'] button")
    header.click()
    assert page.sorting() == {"robust": "descending"}
    values = numbers(page.column("robust"))
    assert values == sorted(values, reverse=True)
    assert len(set(values)) > 5
    header.click()
    assert page.sorting() == {"robust": "ascending"}
    assert numbers(page.column("robust")) == sorted(values)
    page.find("th[data-key='horizon'] button").click()
    assert page.sorting() == {"horizon": "ascending"}
    horizons = page.column("horizon")
    assert numbers(horizons) == sorted(numbers(horizons))
    assert horizons[-2:] == ["no horizon", "no horizon"], "what has none comes last"
    page.find("th[data-key='horizon'] button").click()
    horizons = page.column("horizon")
    assert numbers(horizons) == sorted(numbers(horizons), reverse=True)
    assert horizons[-2:] == ["no horizon", "no horizon"], "either way"
    page.find("th[data-key='model'] button").click()
    names = [name.removesuffix(" unranked") for name in page.column("model")]
    assert names == sorted(names)


def test_the_keyboard_sorts_too(page: Page) -> None:
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    page.find("#filters button").send_keys("")
    keys = ActionChains(page.driver)
    # after the filters comes the table, which scrolls by keys, then its headers
    keys.send_keys(*[Keys.TAB] * 5).perform()
    assert page.script("return document.activeElement.closest('th').dataset.key") == "robust"
    assert page.script("return getComputedStyle(document.activeElement).outlineStyle") == "solid"
    ActionChains(page.driver).send_keys(Keys.ENTER).perform()
    assert page.sorting() == {"robust": "descending"}
    ActionChains(page.driver).send_keys(Keys.SPACE).perform()
    assert page.sorting() == {"robust": "ascending"}
    values = numbers(page.column("robust"))
    assert values == sorted(values)


def test_each_filter_leaves_what_it_names(page: Page) -> None:
    assert len(page.column("model")) == 12
    assert page.find("#count").text == "12 of 34 figures shown"
    page.choose("data", "letters")
    assert set(page.column("data")) == {"letters"}
    assert page.column("model") == [HOSTILE.replace("/", " ")]
    page.find("#filters button").click()
    page.choose("threat", "linf 0.05")
    assert set(page.column("threat")) == {"linf 0.05"}
    assert page.find("#count").text == "5 of 34 figures shown"
    page.choose("flag", "solver gap")
    assert (page.column("model"), page.column("flags")) == (["kd-ode"], ["solver gap"])
    page.choose("flag", "no flag")
    assert len(page.column("model")) == 4
    assert set(page.column("flags")) == {""}
    page.find("#filters button").click()
    page.choose("attack", "fgsm alone")
    assert set(page.column("attacks")) == {"fgsm alone"}
    assert len(page.column("model")) == 10
    page.choose("attack", "every row")
    assert page.find("#count").text == "34 of 34 figures shown"
    page.find("#filter-model").send_keys("KD-")
    assert set(page.column("model")) == {"kd-ode"}
    page.find("#filters button").click()
    assert page.find("#count").text == "12 of 34 figures shown"
    assert page.fragment() == ""


def test_the_address_keeps_filters_and_order(page: Page) -> None:
    page.choose("threat", "linf 0.1")
    page.choose("attack", "fgsm alone")
    page.find("#filter-model").send_keys("ode")
    page.find("th[data-key='robust'] button").click()
    before = page.column("robust")
    fragment = page.fragment()
    assert fragment == "#?model=ode&threat=linf+0.1&attack=fgsm&sort=robust&order=descending"
    page.open(fragment)
    assert page.column("robust") == before
    assert len(before) == 4
    assert page.sorting() == {"robust": "descending"}
    assert page.script("return document.querySelector('#filter-attack').value") == "fgsm"
    page.open("#?threat=nonsense&sort=nonsense")
    assert page.find("#count").text == "12 of 34 figures shown"
    assert page.driver.get_log("browser") == []


def test_a_model_leads_to_its_open_panel_with_images(page: Page) -> None:
    page.script("arguments[0].scrollIntoView({block: 'center'})", page.find("tr[data-model='kd-ode'] th a"))
    page.find("tr[data-model='kd-ode'] th a").click()
    panel = page.find("details.model[open]")
    assert panel.find_element("css selector", ".name").text == "kd-ode"
    images = panel.find_elements("css selector", ".strip img")
    assert len(images) == 6
    for image in images:
        assert page.script("return [arguments[0].naturalWidth, arguments[0].clientWidth]", image) == [8, 70]
        assert image.value_of_css_property("image-rendering") == "pixelated"
    assert "true 1, predicted 7" in panel.text


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_all_without_moving_sideways(page: Page, scheme: str) -> None:
    page.open(width=360, height=740, scheme=scheme)
    page.script("document.querySelectorAll('details').forEach(e => e.open = true)")
    assert page.script("return [document.documentElement.scrollWidth, innerWidth]") == [360, 360]
    wide = page.script(
        "return [...document.querySelectorAll('body *')].filter(e => !e.closest('.scroll, .skip, #vg-tooltip-element') "
        "&& e.getBoundingClientRect().right > 360.5).map(e => e.outerHTML.slice(0, 80))"
    )
    assert wide == []
    assert page.script("const e = document.querySelector('#table').parentElement; return e.scrollWidth > e.clientWidth")
    assert page.column("robust")[0]
    under = "return getComputedStyle(document.querySelector('#table tbody th'), '::after').content"
    assert "digits" in page.script(under), "which data set, without moving sideways"
    page.open(width=1200, height=740, scheme=scheme)
    assert page.script(under) == "none", "its column is in sight"
    page.open(width=360, height=740, scheme=scheme)
    small = page.script(
        "return [...document.querySelectorAll('form select, form input, form button, thead button')]"
        ".filter(e => e.offsetHeight < 36).map(e => e.outerHTML.slice(0, 60))"
    )
    assert small == [], "large enough for a finger"


def contrast(page: Page, selector: str) -> float:
    """The contrast of a text with the page, as WCAG 2 defines it."""
    return page.script(
        "const light = text => { const [r, g, b] = text.match(/[\\d.]+/g).map(v => v / 255).map(v => v <= 0.04045 ? "
        "v / 12.92 : ((v + 0.055) / 1.055) ** 2.4); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };"
        "const e = document.querySelector(arguments[0]); const style = getComputedStyle(e);"
        "const one = light(style.fill === 'rgb(0, 0, 0)' || !e.ownerSVGElement ? style.color : style.fill);"
        "const other = light(getComputedStyle(document.body).backgroundColor);"
        "return (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05)",
        selector,
    )


def test_light_and_dark_can_be_read_and_charts_follow(page: Page) -> None:
    seen = {}
    for scheme in ("light", "dark"):
        page.scheme(scheme)
        for selector in ("body", ".foot", "a", "td small", ".badge.flag", ".lead", "[data-chart] svg text"):
            assert contrast(page, selector) > 4.5, (scheme, selector)
        seen[scheme] = page.script(
            "return [getComputedStyle(document.body).backgroundColor, document.querySelector('[data-chart] "
            "svg .role-axis-label text').getAttribute('fill'), document.querySelector('#picture-0 .swatch').style"
            ".getPropertyValue('--colour')]"
        )
    assert seen["light"][0] != seen["dark"][0]
    assert seen["light"][1] != seen["dark"][1], "the charts are drawn again"
    assert len(page.driver.find_elements("css selector", "[data-chart='0-0-0'] > svg")) == 1


def test_a_name_that_is_a_script_stays_text(page: Page) -> None:
    name = HOSTILE.replace("/", " ")
    assert page.script("return [...document.querySelectorAll('#table tbody th')].map(e => e.innerText)").count(name) > 0
    assert page.script("return [...document.querySelectorAll('script')].length") == 3
    assert page.script("return [...document.querySelectorAll('[data-chart] script, #vg-tooltip-element script')]") == []
    from selenium.common.exceptions import NoAlertPresentException

    with pytest.raises(NoAlertPresentException):
        _ = page.driver.switch_to.alert


def test_a_page_without_results_has_no_error_either(chromium: Any, tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    path = tmp_path / "index.html"
    path.write_text(html_of(tmp_path / "results"), encoding="utf-8")
    chromium.get_log("browser")
    chromium.get(path.as_uri())
    assert chromium.get_log("browser") == []
    assert chromium.execute_script("return document.querySelector('#count').textContent") == "0 of 0 figures shown"
