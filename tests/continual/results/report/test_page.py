from __future__ import annotations

import itertools
import re
from dataclasses import replace

import pytest

from structured_ensembles.continual.results.records import StreamCell, StreamRun
from structured_ensembles.continual.results.report import render, summary, write
from structured_ensembles.continual.results.tables import unaided
from structured_ensembles.continual.streams.untold import Untold
from structured_ensembles.errors import DataError

from ....pages import Page

SCRIPT = "<script>alert(1)</script>"
OWNERS = {"backbone.a": [0, 1, 2, 3, -1], "backbone.b": [0, 0, 1, -1]}
ABOUT = ("split digits", {"backbone": "small_cnn", "epochs": 5})


@pytest.fixture
def told(made_up, as_runs):
    """Runs that have something to tell of everything a page has a place for."""
    first, *others = as_runs(made_up(), OWNERS)
    assert first.cell == StreamCell("structured", 0)
    found = Untold(told=0.99, right=0.97, task=0.98, batch=1.0, auroc=0.9, novelty=0.8, nbytes=2000)
    first = replace(first, notices=("a task gets no channels",), untold=found)
    failed = StreamRun(StreamCell("packnet", 3), "the loss is not finite")
    return [replace(run, proved=run.cell.strategy == "structured") for run in (first, *others)] + [failed]


def sound(page):
    """Headings in order, no name twice, links that lead somewhere, an alternative for every chart."""
    assert page.levels[0] == 1
    assert 1 not in page.levels[1:]
    assert all(b <= a + 1 for a, b in itertools.pairwise(page.levels))
    names = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(names) == len(set(names))
    asked = {link["href"][1:] for link in page.named("a")}
    asked |= {attributes["aria-labelledby"] for _, attributes in page.tags if "aria-labelledby" in attributes}
    assert asked <= set(names)
    shown = [attributes for attributes in page.named("svg") if "aria-hidden" not in attributes]
    assert len(shown) == len(page.named("figure"))
    assert all(chart["role"] == "img" and chart["aria-label"] for chart in shown)
    assert "None" not in page.text
    assert not re.search(r"\bnan\b", page.text)


def test_the_page_says_what_was_found(made_up, told):
    results = made_up()
    page = Page(render(told, *ABOUT))
    sound(page)
    for sentence in summary(results, {"structured"}):
        assert sentence.replace("\N{NO-BREAK SPACE}", " ") in page.text
    for words in (
        "packnet, seed 3: the loss is not finite",
        "structured, seed 0: a task gets no channels",
        *unaided(told),
        "structured finds the task of 98.0 % of single images",
        "Checked to the bit at the end, for every seed: structured.",
        "small_cnn",
        "Who owns which channels",
        "4 tasks, one after the other",
    ):
        assert words in page.text
    assert all(name in page.text for name in results)
    assert page.named("html") == [{"lang": "en"}]


@pytest.mark.parametrize(
    ("names", "tasks", "seeds"),
    [(["structured"], 1, 1), (["naive"], 2, 1), (["naive", "joint"], 3, 2), (["packnet", "single_task"], 12, 1)],
)
def test_the_page_does_without_what_there_is_not(made_up, as_runs, names, tasks, seeds):
    page = Page(render(as_runs(made_up(names, tasks, seeds)), "x", {}))
    sound(page)
    for absent in ("What failed", "Notices", "Settings", "Who owns which channels", "to the bit"):
        assert absent not in page.text
    assert ("Capacity left" in page.text) is bool({"structured", "packnet"} & set(names))


def test_every_accuracy_is_in_a_table(made_up, as_runs):
    results = made_up(["structured", "naive"], tasks=2, seeds=1)
    text = Page(render(as_runs(results), "x", {})).text
    for (run,) in results.values():
        for accuracy in (*run.accuracies[0][:1], *run.accuracies[1]):
            assert f"{100 * accuracy:.1f} %" in text


def test_nothing_is_asked_of_a_network(told):
    text = render(told, *ABOUT)
    assert not re.search(r"https?:|@import|url\(", text)
    assert not Page(text).named("link")
    assert not any("src" in script for script in Page(text).named("script"))


def test_names_are_text_and_never_code(made_up, as_runs):
    runs = as_runs({SCRIPT: made_up(["structured"])["structured"]}, {SCRIPT: [0]})
    found = Untold(told=0.99, right=0.97, task=0.98, batch=1.0, auroc=0.9, novelty=0.8, nbytes=2000)
    runs = [replace(run, proved=True, notices=(SCRIPT,), untold=found) for run in runs]
    text = render([*runs, StreamRun(StreamCell(f"{SCRIPT}?", 0), SCRIPT)], SCRIPT, {SCRIPT: SCRIPT})
    assert SCRIPT not in text
    assert len(Page(text).named("script")) == 1
    assert SCRIPT in Page(text).text


def test_strange_owners_and_no_results_are_refused_and_the_old_page_stays(made_up, as_runs, told, tmp_path):
    path = tmp_path / "deep" / "stream.html"
    write(path, told, *ABOUT)
    before = path.read_text(encoding="utf-8")
    with pytest.raises(DataError, match="channels of a are owned by task 4: pass numbers from 0 to 3, or -1"):
        write(path, as_runs(made_up(), {"a": [0, 4]}), *ABOUT)
    with pytest.raises(DataError, match="no result of any strategy"):
        write(path, [], *ABOUT)
    assert path.read_text(encoding="utf-8") == before
    assert [entry.name for entry in path.parent.iterdir()] == ["stream.html"]


@pytest.mark.parametrize(("width", "scheme"), [(375, "light"), (1280, "dark")])
def test_in_a_browser_nothing_complains_and_nothing_is_wider_than_the_screen(
    browser, made_up, as_runs, tmp_path, width, scheme
):
    results = made_up(tasks=10, seeds=2) | {"a_name_" * 20: made_up(["naive"], tasks=10)["naive"]}
    runs = as_runs(results, {"stages.0." * 20: [*range(10), -1]})
    write(tmp_path / "stream.html", runs, "data_" * 40, {"long " * 30: "folder/" * 60})
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
    page, complaints, requests = context.new_page(), [], []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto((tmp_path / "stream.html").as_uri())
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("details:not([open])").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert complaints == []
    assert requests == [page.url]
    context.close()
