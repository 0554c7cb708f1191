"""report.html in a browser: wide and narrow, light and dark, without an error, an overflow or a request outside."""

import json
import shutil
from pathlib import Path

import pytest

from structprune.report import Report, render_html
from structprune.report.run_facts import RunFacts

sync_api = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install 'structprune[dev]'")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="no axe: pip install 'structprune[dev]'")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium, chromium-browser or google-chrome on the path")


def large_report(layers=120):
    """The stored report as of a network of many layers, trained for some epochs."""
    data = json.loads((Path(__file__).parent / "report.json").read_text())
    names = [f"stages.{i // 12}.blocks.{i % 12 // 4}.conv{i % 4}" for i in range(layers)]
    group, layer = data["groups"][0], data["layers"][0]
    data["groups"] = [
        {**group, "name": name, "channels": 64, "kept_channels": 1 + i % 64} for i, name in enumerate(names)
    ]
    data["layers"] = [{**layer, "layer": name} for name in names]
    epochs = [
        {"epoch": i + 1, "train_loss": 1 / (1 + i), "lr": 0.1, "metric": "accuracy", "value": 0.9} for i in range(5)
    ]
    data["epochs"] = {"dense": epochs, "slim": epochs[:3]}
    return Report.model_validate(data)


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    facts = RunFacts(
        "2026-11-27 00:16 UTC", "88 s", "structprune run quickstart --out " + 30 * "long", {"report.json": ""}
    )
    path.write_text(render_html(large_report(), "large", facts), encoding="utf-8")
    return path.as_uri()


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


def opened(browser, address, problems, **options):
    page = browser.new_page(**options)
    page.on("console", lambda message: problems.append(message.text))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("request", lambda request: problems.append(request.url) if request.url != address else None)
    page.goto(address)
    return page


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_is_sound_at_any_width_and_in_any_light(browser, address, width, scheme):
    problems = []
    page = opened(browser, address, problems, viewport={"width": width, "height": 800}, color_scheme=scheme)
    assert problems == []
    assert page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") == 0
    violations = axe.Axe().run(page).response["violations"]
    assert [v["id"] for v in violations if v["impact"] in ("serious", "critical")] == []
    back = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (back == "rgb(255, 255, 255)") == (scheme == "light")
    page.close()


def test_pictures_are_walked_through_and_fold_and_groups_are_filtered(browser, address):
    problems = []
    page = opened(browser, address, problems, viewport={"width": 1280, "height": 800})
    plot = page.locator('[data-plot="widths"]')
    readout = plot.locator("xpath=following-sibling::p")
    plot.press("End")
    assert readout.inner_text() == "stages.9.blocks.2.conv3: dense 64, kept 56 channels, 88 %"
    plot.press("Home")
    plot.press("Enter")  # folds its stage
    plot.press("Home")
    assert readout.inner_text() == "stages.0 (12 layers, mean): dense 64, kept 6.500 channels, 10 %"
    page.fill("#filter", "stages.3.blocks.1.")
    assert page.inner_text("#hits") == "4 of 120"
    assert page.locator("tr[data-name]:visible").count() == 4
    assert problems == []
    page.close()


def test_without_scripts_the_numbers_are_there(browser, address):
    page = browser.new_page(java_script_enabled=False)
    page.goto(address)
    assert page.locator(".needs-script:visible").count() == 0
    assert page.locator("details.stage").count() == 10
    page.close()
