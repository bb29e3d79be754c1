"""The page in a real browser: Playwright with the system's Chromium, or the one that the variable CHROMIUM names."""

from __future__ import annotations

import copy
import math

import pytest

from structured_ensembles.evaluation.report import words, write


@pytest.fixture
def visit(browser, tmp_path, pictures):
    """Opens an evaluation's page; what went wrong and what it asked for are in ``complaints`` and ``requests``."""
    opened = []

    def visit(evaluation, **options):
        path = tmp_path / "report.html"
        write(path, evaluation, pictures)
        context = browser.new_context(**options)
        opened.append(context)
        page = context.new_page()
        page.complaints, page.requests = [], []
        page.on("console", lambda message: page.complaints.append(message.text))
        page.on("pageerror", lambda error: page.complaints.append(str(error)))
        page.on("dialog", lambda dialog: (page.complaints.append(dialog.message), dialog.dismiss()))
        page.on("request", lambda request: page.requests.append(request.url))
        page.goto(path.as_uri())
        return page

    yield visit
    for context in opened:
        context.close()


def shown(page, name):
    return page.locator(f'[data-show="{name}"]').inner_text().replace("\N{NO-BREAK SPACE}", " ")


def slow(entropies, right, threshold):
    """What the slider should show, counted one by one."""
    kept = [good == "1" for doubt, good in zip(entropies, right, strict=True) if doubt <= threshold]
    declined = [good == "1" for doubt, good in zip(entropies, right, strict=True) if doubt > threshold]
    return {
        "coverage": len(kept) / len(entropies),
        "accuracy": sum(kept) / len(kept) if kept else None,
        "wrong": kept.count(False),
        "given": len(kept),
        "avoided": declined.count(False),
        "price": declined.count(True),
    }


def agree(page, expected):
    for name in ("wrong", "given", "avoided", "price"):
        assert shown(page, name) == f"{expected[name]:,}"
    for name in ("coverage", "accuracy"):
        if expected[name] is None:
            assert shown(page, name) == words.MISSING
        else:
            assert float(shown(page, name).removesuffix(" %")) == pytest.approx(100 * expected[name], abs=0.0501)


def test_the_slider_starts_at_the_stored_threshold(visit, evaluation, pictures):
    page = visit(evaluation)
    agree(page, slow(pictures.entropies, pictures.right, evaluation["predictors"][0]["selective"]["threshold"]))


def test_the_slider_shows_what_a_slow_count_gives(visit, evaluation, pictures):
    page = visit(evaluation)
    for position in (0, 150, 400, 620, 850, 1000):
        page.locator("#threshold").fill(str(position))
        agree(page, slow(pictures.entropies, pictures.right, math.log(10) * (position / 1000) ** 3))
    page.locator("#reset").click()
    agree(page, slow(pictures.entropies, pictures.right, evaluation["predictors"][0]["selective"]["threshold"]))


def test_the_slider_obeys_the_keyboard(visit, evaluation, pictures):
    page = visit(evaluation)
    page.get_by_label("Threshold of doubt").focus()
    page.keyboard.press("End")
    assert shown(page, "given") == "1,000"
    for _ in range(5):
        page.keyboard.press("ArrowLeft")
    agree(page, slow(pictures.entropies, pictures.right, math.log(10) * 0.995**3))
    assert page.locator("#threshold").get_attribute("aria-valuetext") == shown(page, "threshold")


def test_the_ring_moves_along_the_curve(visit, evaluation):
    page = visit(evaluation)
    page.locator("#threshold").fill("1000")
    ring, line = page.locator(".here"), page.locator("figure:has(.here) polyline.s0")
    x, y = (float(part) for part in line.get_attribute("points").split()[-1].split(","))
    assert float(ring.get_attribute("cx")) == pytest.approx(x, abs=0.1)
    assert float(ring.get_attribute("cy")) == pytest.approx(y, abs=0.1)


def test_without_a_threshold_nothing_is_declined_at_first(visit, evaluation):
    evaluation["predictors"][0]["selective"] |= {"threshold": None, "gamma": None, "at_threshold": None}
    page = visit(evaluation)
    assert shown(page, "coverage") == "100.0 %"
    assert page.locator("#reset").inner_text() == "Decline nothing"


def test_the_slider_works_where_nothing_else_was_measured(visit, evaluation, pictures):
    blocks = ("calibration", "uncertainty", "selective", "out_of_distribution", "adversarial", "corruptions", "cost")
    evaluation["predictors"][0] |= dict.fromkeys((*blocks, "structure"))
    page = visit(evaluation)
    page.locator("#threshold").fill("500")
    agree(page, slow(pictures.entropies, pictures.right, math.log(10) / 8))
    assert page.complaints == []


def test_without_scripts_there_is_no_dead_slider(visit, evaluation):
    page = visit(evaluation, java_script_enabled=False)
    assert not page.locator("#slider").is_visible()
    assert page.get_by_role("heading", name="In short").is_visible()


def test_nothing_complains_and_nothing_is_fetched(visit, evaluation):
    page = visit(evaluation)
    assert page.complaints == []
    assert [address for address in page.requests if not address.startswith("data:")] == [page.url]


def test_names_are_shown_and_never_run_as_code(visit, evaluation):
    attack = "<script>alert(1)</script><img src=x onerror=alert(2)>"
    evaluation["data"] |= {"name": attack, "classes": [attack] * 10}
    evaluation["predictors"][0]["name"] = attack
    page = visit(evaluation)
    assert page.complaints == []
    assert page.locator("h1").inner_text().startswith(attack)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [375, 1280])
def test_nothing_is_wider_than_the_screen(visit, evaluation, width, scheme):
    other = copy.deepcopy(evaluation["predictors"][0]) | {"name": "a_name_" * 20, "file": "runs/" + "folder/" * 30}
    evaluation["predictors"].append(other)
    page = visit(evaluation, viewport={"width": width, "height": 800}, color_scheme=scheme)
    page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("document.body.scrollWidth") <= width


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_stand_out_from_the_paper(visit, evaluation, scheme):
    page = visit(evaluation, color_scheme=scheme)
    paper = luminance(page, "body", "backgroundColor")
    for place in ("body", ".lead", "figcaption", ".meaning", "a[href]", ".eyebrow", "thead th", ".card li"):
        assert contrast(luminance(page, place, "color"), paper) >= 4.5
    for place in (".slider label", ".result", ".slider button"):
        assert contrast(luminance(page, place, "color"), luminance(page, ".slider", "backgroundColor")) >= 4.5
    for place in ("svg .tick", "svg .title"):
        assert contrast(luminance(page, place, "fill"), paper) >= 4.5


def luminance(page, place, what):
    """Relative luminance as WCAG defines it."""
    text = page.locator(place).first.evaluate(f"(one) => getComputedStyle(one).{what}")
    shares = [int(part) / 255 for part in text.removeprefix("rgb(").removesuffix(")").split(",")]
    red, green, blue = (share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one, other):
    low, high = sorted((one, other))
    return (high + 0.05) / (low + 0.05)


def test_on_paper_everything_is_unfolded(visit, evaluation):
    page = visit(evaluation)
    assert page.locator("details[open]").count() == 0
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("details:not([open])").count() == 0
    page.emulate_media(media="print")
    assert not page.locator("nav").is_visible()
    assert not page.locator("#threshold").is_visible()
    assert page.locator('[data-show="coverage"]').is_visible()
