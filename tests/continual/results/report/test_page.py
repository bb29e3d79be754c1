from __future__ import annotations

import itertools
import os
import re
import shutil
from html.parser import HTMLParser

import pytest

from structured_ensembles.continual.results.report import About, render, summary, write
from structured_ensembles.errors import DataError

SCRIPT = "<script>alert(1)</script>"
OWNERS = {"backbone.a": [0, 1, 2, 3, -1], "backbone.b": [0, 0, 1, -1]}
ABOUT = About(
    "split digits",
    OWNERS,
    frozenset({"structured"}),
    failures=("packnet, seed 3: the loss is not finite",),
    notices=("structured, seed 0: a task gets no channels",),
    unaided=("structured finds the task of nearly all images.",),
    settings={"backbone": "small_cnn", "epochs": 5},
)
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


class _Page(HTMLParser):
    """What the tests ask of a page: its tags with their attributes, and its visible text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text, self._hidden = [], "", False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._hidden = tag in {"script", "style"}

    def handle_endtag(self, tag):
        self._hidden &= tag not in {"script", "style"}

    def handle_data(self, data):
        self.text += "" if self._hidden else data.replace("\N{NO-BREAK SPACE}", " ")

    def named(self, name):
        return [attributes for tag, attributes in self.tags if tag == name]


def sound(page):
    """Headings in order, no name twice, links that lead somewhere, an alternative for every chart."""
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert 1 not in levels[1:]
    assert all(b <= a + 1 for a, b in itertools.pairwise(levels))
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


def test_the_page_says_what_was_found(made_up):
    results = made_up()
    page = _Page(render(results, ABOUT))
    sound(page)
    for sentence in summary(results, ABOUT.proved):
        assert sentence.replace("\N{NO-BREAK SPACE}", " ") in page.text
    for told in (
        *ABOUT.failures,
        *ABOUT.notices,
        *ABOUT.unaided,
        "small_cnn",
        "Who owns which channels",
        "4 tasks, one after the other",
    ):
        assert told in page.text
    assert all(name in page.text for name in results)
    assert page.named("html") == [{"lang": "en"}]


@pytest.mark.parametrize(
    ("names", "tasks", "seeds"),
    [(["structured"], 1, 1), (["naive"], 2, 1), (["naive", "joint"], 3, 2), (["packnet", "single_task"], 12, 1)],
)
def test_the_page_does_without_what_there_is_not(made_up, names, tasks, seeds):
    page = _Page(render(made_up(names, tasks, seeds), About("x")))
    sound(page)
    for absent in ("What failed", "Notices", "Settings", "Who owns which channels", "to the bit"):
        assert absent not in page.text
    assert ("Capacity left" in page.text) is bool({"structured", "packnet"} & set(names))


def test_every_accuracy_is_in_a_table(made_up):
    results = made_up(["structured", "naive"], tasks=2, seeds=1)
    text = _Page(render(results, About("x"))).text
    for (run,) in results.values():
        for accuracy in (*run.accuracies[0][:1], *run.accuracies[1]):
            assert f"{100 * accuracy:.1f} %" in text


def test_nothing_is_asked_of_a_network(made_up):
    text = render(made_up(), ABOUT)
    assert not re.search(r"https?:|@import|url\(", text)
    assert not _Page(text).named("link")
    assert not any("src" in script for script in _Page(text).named("script"))


def test_names_are_text_and_never_code(made_up):
    results = {SCRIPT: made_up(["structured"])["structured"]}
    about = About(SCRIPT, {SCRIPT: [0]}, frozenset({SCRIPT}), (SCRIPT,), (SCRIPT,), {SCRIPT: SCRIPT})
    text = render(results, about)
    assert SCRIPT not in text
    assert len(_Page(text).named("script")) == 1
    assert SCRIPT in _Page(text).text


def test_strange_owners_and_no_results_are_refused_and_the_old_page_stays(made_up, tmp_path):
    path = tmp_path / "deep" / "stream.html"
    write(path, made_up(), ABOUT)
    before = path.read_text(encoding="utf-8")
    with pytest.raises(DataError, match="channels of a are owned by task 4: pass numbers from 0 to 3, or -1"):
        write(path, made_up(), About("x", {"a": [0, 4]}))
    with pytest.raises(DataError, match="no result of any strategy"):
        write(path, {}, ABOUT)
    assert path.read_text(encoding="utf-8") == before
    assert [entry.name for entry in path.parent.iterdir()] == ["stream.html"]


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright, to test pages in a browser")
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip("no Chromium: apt-get install chromium, or name one in the variable CHROMIUM")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.mark.parametrize(("width", "scheme"), [(375, "light"), (1280, "dark")])
def test_in_a_browser_nothing_complains_and_nothing_is_wider_than_the_screen(browser, made_up, tmp_path, width, scheme):
    results = made_up(tasks=10, seeds=2) | {"a_name_" * 20: made_up(["naive"], tasks=10)["naive"]}
    about = About("data_" * 40, {"stages.0." * 20: [*range(10), -1]}, settings={"long " * 30: "folder/" * 60})
    write(tmp_path / "stream.html", results, about)
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
