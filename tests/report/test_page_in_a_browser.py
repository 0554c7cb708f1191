"""The pages in a browser: wide and narrow, light and dark, without an error, an overflow or a request outside."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from structprune.compare import compare_runs, render_comparison, render_runs
from structprune.report import Report, render_html
from structprune.report.group_details import GroupDetails, Members, RunGroups, sampled
from structprune.report.run_facts import RunFacts
from tests.peer_comparisons import OURS, THEIRS, comparison, row
from tests.run_folders import BETTER, FAST, FASTER, GOOD, write_run

sync_api = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install 'structprune[dev]'")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="no axe: pip install 'structprune[dev]'")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.thorough,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium, chromium-browser or google-chrome on the path"),
]


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


def members_of(report):
    """A chain of the report's groups; the first ones have a barrier, the last one has no scores."""
    names = [group.name for group in report.groups]
    alone = [Members(layers=[name], more=0) for name in names]
    after = [*alone[1:], Members(layers=[], more=0)]
    passed, scores = Members(layers=["norm"], more=2), sampled(np.arange(300.0), np.arange(300) >= 200, 100)
    groups = [
        GroupDetails(
            name=name,
            made_by=alone[index],
            passes=passed,
            read_by=after[index],
            feeds=names[index + 1 : index + 2],
            barriers=[0] if index < 2 else [],
            scores=scores if index + 1 < len(names) else None,
            unscored="no norm",
        )
        for index, name in enumerate(names)
    ]
    return RunGroups(schema="structprune.groups/1", criterion="l1", rounds=2, held=100, groups=groups)


def comparison_with_the_peer():
    """A network's cut by structprune and by torch-pruning, rounded and not, layer by layer."""
    rounded = [row(f"torch-pruning-{width}", "torch-pruning", 2.0 + width / 20, 0.93) for width in (8, 16)]
    rows = [OURS, THEIRS, *rounded]
    widths = [
        {"name": f"layer{i // 8}.{i % 8}.conv", "channels": 64, "kept": {row["network"]: 20 + i for row in rows}}
        for i in range(40)
    ]
    return comparison(*rows, widths=widths)


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """The addresses of a run's page, of one that compares three runs, and of one beside torch-pruning."""
    place = tmp_path_factory.mktemp("pages")
    facts = RunFacts(
        "2026-11-27 00:16 UTC", "88 s", "structprune run quickstart --out " + 30 * "long", {"report.json": ""}
    )
    large = large_report()
    groups = [group.to_data() for group in large.groups]
    others = [{**group, "kept_channels": max(1, group["kept_channels"] // 2)} for group in groups]
    runs = {"first": {**FAST, **GOOD, "groups": groups}, "second": {**FASTER, **BETTER, "groups": others}}
    folders = [write_run(place / name, recipe={"prune": {"criterion": name}}, **run) for name, run in runs.items()]
    folders.append(write_run(place / f"with-a-name-that-is-{10 * 'long-'}", **FASTER, **GOOD, groups=groups))
    texts = {
        "report": render_html(large, "large", facts, members_of(large)),
        "compare": render_runs(compare_runs(folders, place)),
        "peer": render_comparison(comparison_with_the_peer()),
    }
    for name, text in texts.items():
        (place / f"{name}.html").write_text(text, encoding="utf-8")
    return {name: (place / f"{name}.html").as_uri() for name in texts}


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
@pytest.mark.parametrize("name", ["report", "compare", "peer"])
def test_a_page_is_sound_at_any_width_and_in_any_light(browser, pages, name, width):
    problems = []
    page = opened(browser, pages[name], problems, viewport={"width": width, "height": 800})
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        assert page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") == 0
        rules = {} if scheme == "light" else {"runOnly": ["color-contrast"]}  # which alone hangs on the colours
        violations = axe.Axe().run(page, options=rules).response["violations"]
        assert [v["id"] for v in violations if v["impact"] in ("serious", "critical")] == []
        back = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (back == "rgb(255, 255, 255)") == (scheme == "light")
    assert problems == []
    page.close()


def test_pictures_are_walked_through_and_fold_and_groups_are_filtered(browser, pages):
    problems = []
    page = opened(browser, pages["report"], problems, viewport={"width": 1280, "height": 800})
    plot = page.locator('[data-plot="widths"]')
    readout = plot.locator("xpath=following-sibling::p")
    plot.press("End")
    assert readout.inner_text() == "stages.9.blocks.2.conv3: dense 64 channels, kept 56 (88 %)"
    plot.press("Home")
    plot.press("Enter")  # folds its stage
    plot.press("Home")
    assert readout.inner_text() == "stages.0 (12 layers, mean): dense 64 channels, kept 6.500 (10 %)"
    page.fill("#filter", "stages.3.blocks.1.")
    assert page.inner_text("#hits") == "4 of 120"
    assert page.locator("tr[data-name]:visible").count() == 4
    assert problems == []
    page.close()


def test_without_scripts_the_numbers_are_there(browser, pages):
    page = browser.new_page(java_script_enabled=False)
    page.goto(pages["report"])
    assert page.locator(".needs-script:visible").count() == 0
    assert page.locator("details.stage").count() == 10
    page.close()


def test_runs_are_read_off_the_pictures_of_a_comparison(browser, pages):
    problems = []
    page = opened(browser, pages["compare"], problems, viewport={"width": 390, "height": 800})
    for name, words in {
        "speed": "long-: 3 times as fast as dense (95 %: 2.900 to 3.100), accuracy 0.8000 (95 %: 0.7556 to 0.8381)",
        "quality": "in the end: first 0.8000 (95 %: ",
        "widths": "stages.9 (12 layers, mean): dense 64 channels, first 50.50 (79 %), second 25 (39 %)",
    }.items():
        plot = page.locator(f'[data-plot="{name}"]')
        plot.press("End")
        assert words in plot.locator("xpath=following-sibling::p").inner_text()
    assert page.locator(".scrolls + .sideways:visible").count() > 2
    assert problems == []
    page.close()


def test_groups_are_explored_by_the_keyboard(browser, pages):
    problems = []
    page = opened(browser, pages["report"], problems, viewport={"width": 1280, "height": 800})
    plot, facts = page.locator('[data-plot="groups"]'), page.locator("#group-facts")
    plot.press("Home")
    readout = plot.locator("xpath=following-sibling::p").inner_text()
    assert readout.startswith(
        "stages.0.blocks.0.conv0: 64 channels, 1 stay (2 %); made by stages.0.blocks.0.conv0; read by "
    )
    assert readout.endswith("300 units from 299 to 0; 100 stay, down to 200, and the next has 199")
    plot.press("Enter")
    assert page.input_value("#group-choice") == "0"
    assert "norm and 2 more" in facts.inner_text()
    assert facts.locator('a[href="#barrier-0"]').count() == page.locator("#barrier-0").count() == 1
    scores = page.locator("#group-scores")
    assert "Shown are 99 of 300, evenly by rank." in scores.get_attribute("aria-label")
    scores.press("Home")
    assert scores.locator("xpath=following-sibling::p").inner_text() == "1. of 300: 299, stays"
    facts.get_by_role("button", name="stages.0.blocks.0.conv1").press("Enter")
    assert page.input_value("#group-choice") == "1"
    page.fill("#group-filter", "stages.9.blocks.2.conv3")
    assert page.inner_text("#group-hits") == "1 of 120"
    assert "none: no norm" in facts.inner_text()
    assert not scores.is_visible()
    assert problems == []
    page.close()
