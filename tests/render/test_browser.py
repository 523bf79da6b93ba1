"""The page in headless Chromium: it draws, filters, remembers, and can be read and used by everybody."""

from __future__ import annotations

import csv
import importlib.util
import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from page_factory import HOSTILE, html_of, results, stored_in, write_examples

from odebench.render.records import FIELDS
from odebench.result.schema import Result

missing = [name for name in ("selenium",) if importlib.util.find_spec(name) is None]
BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
missing += [name for name, path in (("chromium", BROWSER), ("chromedriver", shutil.which("chromedriver"))) if not path]
pytestmark = pytest.mark.skipif(bool(missing), reason=f"needs {', '.join(missing)}")

SECONDS = 20


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
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
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
    folder = str(tmp_path_factory.mktemp("downloads"))
    driver.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": folder})
    driver.downloads = Path(folder)
    yield driver
    driver.quit()


class Page:
    """What a reader does with the page, and sees."""

    def __init__(self, driver: Any, address: str) -> None:
        self.driver, self.address = driver, address

    def open(self, fragment: str = "", *, width: int = 1280, height: int = 900, scheme: str = "light") -> None:
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        self.scheme(scheme)
        self.driver.get("about:blank")
        self.driver.get(self.address + fragment)
        self.until(lambda: self.script("return document.documentElement.dataset.drawn === 'yes'"))

    def scheme(self, name: str) -> None:
        feature = {"name": "prefers-color-scheme", "value": name}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})

    def until(self, holds: Callable[[], Any]) -> Any:
        from selenium.webdriver.support.wait import WebDriverWait

        return WebDriverWait(self.driver, SECONDS, 0.05).until(lambda _: holds())

    def script(self, text: str, *arguments: Any) -> Any:
        return self.driver.execute_script(text, *arguments)

    def find(self, selector: str) -> Any:
        return self.driver.find_element("css selector", selector)

    def column(self, key: str) -> list[str]:
        """The values of a column, from above."""
        return self.script(
            "const place = [...document.querySelectorAll('#table thead th')].findIndex(e => e.dataset.key === "
            "arguments[0]); return [...document.querySelectorAll('#table tbody tr')].map(r => "
            "r.cells[place].innerText.trim())",
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

    def tab(self, name: str) -> None:
        self.script(
            "[...document.querySelectorAll('[role=tab]')].find(e => e.textContent === arguments[0]).click()", name
        )

    def chosen(self) -> list[str]:
        return self.script("return [...document.querySelectorAll('[aria-selected=true]')].map(e => e.textContent)")

    def marks(self, chart: str) -> list[str]:
        """What the marks of a chart say."""
        return self.script(
            "return [...document.querySelectorAll(`#chart-${arguments[0]} .mark`)].map(e => e.ariaLabel)", chart
        )

    def panel(self) -> str:
        """The model of the panel that is open; empty where none is."""
        return self.script(
            "return document.querySelector('#panel').open ? "
            "document.querySelector('#panel article:not([hidden])').dataset.model : ''"
        )

    def focused(self) -> str:
        return self.script("const e = document.activeElement; return e.id || e.ariaLabel || e.textContent.trim()")

    def keys(self, *keys: str) -> None:
        from selenium.webdriver.common.action_chains import ActionChains

        ActionChains(self.driver).send_keys(*keys).perform()

    def fragment(self) -> str:
        return str(self.script("return location.hash"))


@pytest.fixture
def page(chromium: Any, address: str) -> Iterator[Page]:
    """The page as it opens; no test may leave an error in the console."""
    page = Page(chromium, address)
    chromium.get_log("browser")
    page.open()
    yield page
    assert chromium.get_log("browser") == []


def numbers(texts: list[str]) -> list[float]:
    return [float(text.split()[0].replace("T=", "")) for text in texts if text not in ("", "no horizon")]


def test_it_opens_with_the_middle_epsilon_and_without_a_request(page: Page) -> None:
    page.driver.get_log("performance")
    page.open()
    sent = [
        entry["message"]
        for entry in page.driver.get_log("performance")
        if '"Network.requestWillBeSent"' in entry["message"] or '"Network.loadingFailed"' in entry["message"]
    ]
    loaded = [text for text in sent if '"url":"data:' not in text and '"url":"about:' not in text]
    assert [page.address in text for text in loaded] == [True], "the page itself and nothing else"
    assert page.chosen() == ["digits", "linf"]
    assert page.find("#caption").text == "digits, linf, epsilon 0.1"
    assert page.column("model") == ["resnet", "kd-ode", "kd-ode", "ode", "ode"]
    assert page.column("rank")[0] == "1"
    bar = page.script(
        "const [all, band, at] = ['.bar', '.bar i', '.bar b'].map(s => document.querySelector(`#table ${s}`)"
        ".getBoundingClientRect()); return [band.left, band.right, at.left + at.width / 2].map(x => "
        "(x - all.left) / all.width)"
    )
    low, high = (float(part) / 100 for part in page.column("robust")[0].split("[")[1].rstrip("]").split(", "))
    assert bar == pytest.approx([low, high, numbers(page.column("robust"))[0] / 100], abs=0.02)


def test_charts_share_an_axis_and_a_mark_tells_its_figure(page: Page) -> None:
    for chart, count in (("clean", 5), ("robust", 5), ("nfe", 5), ("curve", 9)):
        assert len(page.marks(chart)) == count, chart
    axes = page.script(
        "return [...document.querySelectorAll('.chart svg')].map(e => [...e.querySelectorAll('text[text-anchor=end]')]"
        ".map(t => `${t.textContent} ${t.getAttribute('y')}`).join())"
    )
    assert len(axes) == 4
    assert len(set(axes)) == 1
    (mark,) = (each for each in page.marks("robust") if "kd-ode" in each and "T=0.5" in each)
    for part in ("robust accuracy 60.5%", "50.7 to 69.5%", "NFE 16 / 16", "train seeds 2", "images 100", "worst-case"):
        assert part in mark
    from selenium.webdriver.common.action_chains import ActionChains

    shape = page.find("#chart-robust .mark .shape")
    ActionChains(page.driver).move_to_element(shape).perform()
    assert page.find("#tip").is_displayed()
    assert page.find("#tip dd").text == "resnet"
    front = page.script("return document.querySelector('#chart-nfe .front').getAttribute('d')")
    assert front.count("V") == 0, "resnet, which costs no NFE, is the most robust"


def test_filters_drive_table_and_charts_and_lead_to_the_table(page: Page) -> None:
    assert page.find("#count").text == "5 of 34 figures shown"
    page.find("#filter-find").send_keys("KD-")
    assert set(page.column("model")) == {"kd-ode"}
    assert all("kd-ode" in mark for chart in ("clean", "robust", "nfe", "curve") for mark in page.marks(chart))
    page.choose("horizon", "T=2")
    assert (page.column("horizon"), len(page.marks("robust"))) == (["T=2"], 1)
    assert page.script("return Math.abs(document.querySelector('#figures').getBoundingClientRect().top) < 200")
    assert page.find("#title-curve").text.endswith("T=2")
    page.choose("flag", "no flag")
    assert page.column("model") == []
    page.find("#filters button").click()
    assert page.fragment() == ""
    page.choose("epsilon", "0.05")
    assert "65.5%" in page.marks("robust")[1]
    page.choose("attack", "fgsm alone")
    assert set(page.column("attacks")) == {"fgsm alone"}
    assert set(page.column("rank")) == {""}
    assert all("fgsm alone" in mark for mark in page.marks("robust"))
    page.choose("attack", "each")
    assert len(page.column("model")) == 15
    page.tab("l2")
    assert (page.column("model"), page.find("#caption").text) == (["ode unranked", "ode"], "digits, l2, epsilon 0.5")
    assert len(page.driver.find_elements("css selector", "#chart-robust .mark.empty")) == 1, "unranked"


def test_a_model_of_the_legend_hides_and_returns(page: Page) -> None:
    button = "#legend [data-line='kd-ode']"
    assert page.find(button).get_attribute("aria-pressed") == "true"
    page.find(button).click()
    assert not [mark for mark in page.marks("robust") if "kd-ode" in mark]
    assert page.fragment() == "#hide=kd-ode"
    assert len(page.column("model")) == 5, "the table keeps it"
    page.find(button).click()
    assert len(page.marks("robust")) == 5


def test_a_header_sorts_both_ways_by_number(page: Page) -> None:
    assert page.sorting() == {}
    page.find("th[data-key='robust'] button").click()
    assert page.sorting() == {"robust": "descending"}
    values = numbers(page.column("robust"))
    assert values == sorted(values, reverse=True)
    page.find("th[data-key='robust'] button").click()
    assert numbers(page.column("robust")) == sorted(values)
    for order in ("ascending", "descending"):
        page.find("th[data-key='horizon'] button").click()
        assert page.sorting() == {"horizon": order}
        horizons = page.column("horizon")
        assert numbers(horizons) == sorted(numbers(horizons), reverse=order == "descending")
        assert horizons[-1] == "no horizon", "what has none comes last, either way"


@pytest.mark.parametrize("fragment", ["#hide=%25", "#hide=kd-ode,%25E0%25A4", "#model=%25", "#hide=%"])
def test_an_address_that_cannot_be_decoded_breaks_nothing(page: Page, fragment: str) -> None:
    page.open(fragment)
    assert page.marks("robust")
    assert any("kd-ode" in mark for mark in page.marks("robust")) is ("kd-ode" not in fragment)
    page.find("#legend [data-line='ode']").click()
    assert not [mark for mark in page.marks("robust") if mark.startswith("model ode,")]


def test_the_address_keeps_what_is_shown_and_back_returns(page: Page) -> None:
    page.choose("epsilon", "0.05")
    page.find("th[data-key='robust'] button").click()
    before, fragment = page.column("robust"), page.fragment()
    assert fragment == "#epsilon=0.05&sort=robust&order=descending"
    page.tab("letters")
    assert page.chosen() == ["letters", "l2"]
    assert page.column("model") == [HOSTILE.replace("/", " ")]
    page.driver.back()
    page.until(lambda: page.chosen() == ["digits", "linf"])
    assert page.column("robust") == before
    page.open(fragment)
    assert page.column("robust") == before
    page.open("#data=nothing&epsilon=7&sort=nonsense&model=none")
    assert (page.chosen(), len(page.column("model")), page.panel()) == (["digits", "linf"], 5, "")


def test_a_model_has_an_address_and_a_panel(page: Page) -> None:
    page.choose("epsilon", "0.05")
    page.script("document.querySelector('#table a[href=\"#model=kd-ode\"]').click()")
    assert (page.panel(), page.fragment()) == ("kd-ode", "#model=kd-ode&epsilon=0.05")
    page.driver.back()
    page.until(lambda: page.panel() == "")
    assert page.fragment() == "#epsilon=0.05"
    page.driver.forward()
    page.until(lambda: page.panel() == "kd-ode")
    page.find("#close").click()
    page.until(lambda: page.fragment() == "#epsilon=0.05")
    assert page.panel() == ""

    page.open("#model=kd-ode")
    text = page.find("#panel").text
    for part in (
        "odebench run --model kd-ode --attack fgsm,worst-case --seed 0,1",
        "Recipe",
        "Checks",
        "true 1, predicted 7",
    ):
        assert part in text, part
    images = page.driver.find_elements("css selector", "#panel article:not([hidden]) .strip img")
    assert len(images) == 6
    for image in images:
        assert page.script("return [arguments[0].naturalWidth, arguments[0].clientWidth]", image) == [8, 70]
    page.find("#close").click()
    page.until(lambda: page.fragment() == "")


def test_the_keyboard_alone_does_every_task(page: Page) -> None:
    from selenium.webdriver.common.keys import Keys

    ring = "const e = document.activeElement; return e.matches('.mark') || getComputedStyle(e).outlineStyle !== 'none'"

    def tab_to(holds: Callable[[], bool], most: int = 40) -> None:
        for _ in range(most):
            if holds():
                assert page.script(ring), "it can be seen where the focus is"
                return
            page.keys(Keys.TAB)
        raise AssertionError(f"not reached by Tab; at {page.focused()}")

    page.script("document.body.focus()")
    tab_to(lambda: page.focused() == "digits")
    page.keys(Keys.ARROW_RIGHT)
    assert (page.chosen()[0], page.focused()) == ("letters", "letters")
    page.keys(Keys.ARROW_LEFT)
    assert page.chosen() == ["digits", "linf"]
    tab_to(lambda: page.focused() == "filter-horizon")
    page.keys(Keys.ARROW_DOWN)
    assert set(page.column("horizon")) == {"T=0.5"}
    page.keys(Keys.ARROW_UP)
    page.script("scrollTo(0, 0)")
    tab_to(lambda: page.focused() == "kd-ode")
    page.keys(Keys.SPACE)
    assert page.fragment() == "#hide=kd-ode"
    assert page.focused() == "kd-ode", "the focus stays"
    page.keys(Keys.SPACE)

    tab_to(lambda: page.focused().startswith("model resnet"))
    assert page.find("#tip").is_displayed()
    page.keys(Keys.ARROW_DOWN)
    assert page.focused().startswith("model kd-ode, at T=")
    before = page.focused()
    page.keys(Keys.ARROW_LEFT, Keys.ARROW_RIGHT)
    page.keys(Keys.ARROW_RIGHT)
    assert page.focused().startswith("model kd-ode, at T=")
    assert page.focused() != before or "T=2" in before
    page.keys(Keys.ENTER)
    page.until(lambda: page.panel() == "kd-ode")
    assert page.script("return document.querySelector('#panel').contains(document.activeElement)")
    page.keys(Keys.ESCAPE)
    page.until(lambda: page.panel() == "" and page.fragment() == "")

    tab_to(lambda: page.focused().startswith("robust %"))
    page.keys(Keys.ENTER)
    assert page.sorting() == {"robust": "descending"}
    tab_to(lambda: page.focused() == "save-csv")
    page.keys(Keys.ENTER)
    tab_to(lambda: page.focused() == "save-json")
    page.keys(Keys.SPACE)
    saved = [page.driver.downloads / f"leaderboard-digits-linf.{kind}" for kind in ("csv", "json")]
    page.until(lambda: all(path.is_file() and path.stat().st_size for path in saved))
    with saved[0].open(newline="") as file:
        rows = list(csv.DictReader(file))
    found = json.loads(saved[1].read_text())
    assert list(rows[0]) == list(found["figures"][0]) == [*FIELDS, "attack", "file"]
    assert [f"{100 * float(row['robust_accuracy']):.1f}" for row in rows] == [
        t.split()[0] for t in page.column("robust")
    ]
    assert [str(each["robust_accuracy"]) for each in found["figures"]] == [row["robust_accuracy"] for row in rows]
    assert (found["schema_version"], rows[0]["flags"], found["figures"][0]["horizon"]) == (1, "", None)


CONTRAST = """
const light = ([r, g, b]) => { const [x, y, z] = [r, g, b].map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 :
  ((v + 0.055) / 1.055) ** 2.4); return 0.2126 * x + 0.7152 * y + 0.0722 * z; };
const parts = text => text.match(/[\\d.]+/g).map(Number);
const behind = e => { for (; e; e = e.parentElement) { const c = parts(getComputedStyle(e).backgroundColor);
  if (c.length < 4 || c[3] === 1) return c; } return parts(getComputedStyle(document.body).backgroundColor); };
const low = [];
for (const e of document.querySelectorAll("body *")) {
  if (!e.checkVisibility() || e.closest("script")) continue;
  if (![...e.childNodes].some(n => n.nodeType === 3 && n.data.trim())) continue;
  const style = getComputedStyle(e);
  const [one, other] = [light(parts(e.ownerSVGElement ? style.fill : style.color)), light(behind(e))];
  const ratio = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
  if (ratio < 4.5) low.push(`${ratio.toFixed(1)} ${e.outerHTML.slice(0, 80)}`);
}
return [low, document.querySelectorAll("body *").length];
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_has_the_contrast_of_aa_and_a_phone_needs_no_moving_sideways(page: Page, scheme: str) -> None:
    page.open(width=390, height=740, scheme=scheme)
    page.script("document.querySelectorAll('details').forEach(e => e.open = true)")
    assert page.script("return [document.documentElement.scrollWidth, innerWidth]") == [390, 390]
    wide = page.script(
        "return [...document.querySelectorAll('body *')].filter(e => e.checkVisibility() && "
        "!e.closest('.scroll, .skip') && e.getBoundingClientRect().right > 390.5).map(e => e.outerHTML.slice(0, 80))"
    )
    assert wide == []
    small = page.script(
        "return [...document.querySelectorAll('form select, form input, button')]"
        ".filter(e => e.checkVisibility() && e.offsetHeight < 36).map(e => e.outerHTML.slice(0, 60))"
    )
    assert small == [], "large enough for a finger"
    low, count = page.script(CONTRAST)
    assert low == []
    page.open("#model=kd-ode", width=1024, scheme=scheme)
    page.script("document.querySelectorAll('#panel details').forEach(e => e.open = true)")
    assert page.script(CONTRAST)[0] == []
    assert count > 300


def test_the_published_page_is_short_as_it_opens(chromium: Any) -> None:
    published = Page(chromium, (Path(__file__).parents[2] / "leaderboard" / "index.html").as_uri())
    chromium.get_log("browser")
    published.open(width=1440)
    assert published.script("return document.documentElement.scrollHeight") <= 3000
    said = r"Of \d+ differences between models (none|\d+) (is|are) significant, with .* train seeds?\."
    assert re.fullmatch(said, published.find("#decided").text)
    assert chromium.get_log("browser") == []
    assert len(published.marks("nfe")) > 10
    published.choose("attack", "pgd alone")
    assert published.find("#decided").text == "", "no figure of one attack has a rank"
    published.open("#data=cifar10-jpeg", width=1440)
    labels = "[...document.querySelectorAll('#chart-curve svg > text[text-anchor=middle]:not(.axis)')]"
    at = dict(published.script(f"return {labels}.map((one) => [one.textContent, Number(one.getAttribute('x'))])"))
    assert sorted(at) == ["0", "1/255", "3/255"]
    assert at["3/255"] - at["0"] == pytest.approx(3 * (at["1/255"] - at["0"]))


def test_a_name_that_is_a_script_stays_text(page: Page) -> None:
    name = HOSTILE.replace("/", " ")
    page.tab("letters")
    assert page.column("model") == [name]
    assert page.script("return [...document.querySelectorAll('script')].length") == 2
    page.script("document.querySelector('#table tbody a').click()")
    assert page.panel() == name
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
