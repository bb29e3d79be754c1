from __future__ import annotations

import copy
import itertools
import re

import pytest

from structured_ensembles.errors import DataError
from structured_ensembles.evaluation.report import NOTHING, render, words, write

from ...pages import Page

SCRIPT = "<script>alert(1)</script>"


@pytest.fixture
def several(evaluation):
    ours = evaluation["predictors"][0]
    evaluation["predictors"] += [copy.deepcopy(ours) | {"name": name} for name in ("narrow", "deep")]
    return evaluation


def in_order(levels):
    return levels[0] == 1 and all(b <= a + 1 for a, b in itertools.pairwise(levels)) and 1 not in levels[1:]


def test_the_page_says_what_was_found(evaluation, pictures):
    page = Page(render(evaluation, pictures))
    for sentence in words.summary(evaluation["predictors"][0]):
        assert sentence.replace("\N{NO-BREAK SPACE}", " ") in page.text
    for name in map(words.BLOCKS.about, words.BLOCKS):
        assert name.capitalize() in page.text
    assert "None" not in page.text
    assert "nan" not in page.text


def test_the_language_is_named_and_the_headings_are_in_order(several, pictures):
    page = Page(render(several, pictures))
    assert page.named("html") == [{"lang": "en"}]
    assert in_order(page.levels)


def test_no_name_is_given_twice(several, pictures):
    names = [attributes["id"] for _, attributes in Page(render(several, pictures)).tags if "id" in attributes]
    assert len(names) == len(set(names))


def test_every_link_leads_somewhere(several, pictures):
    page = Page(render(several, pictures))
    names = {f"#{attributes['id']}" for _, attributes in page.tags if "id" in attributes}
    assert {link["href"] for link in page.named("a")} <= names
    described = {f"#{attributes['aria-labelledby']}" for _, attributes in page.tags if "aria-labelledby" in attributes}
    assert described <= names


def test_every_picture_has_an_alternative(several, pictures):
    page = Page(render(several, pictures))
    assert len(page.named("img")) == len(pictures.uncertain) + len(pictures.confidently_wrong)
    assert all(image["alt"] for image in page.named("img"))
    charts = [attributes for attributes in page.named("svg") if "aria-hidden" not in attributes]
    assert len(charts) == len(page.named("figure"))
    assert all(chart["role"] == "img" and chart["aria-label"] for chart in charts)


def test_nothing_is_asked_of_a_network(several, pictures):
    text = render(several, pictures)
    page = Page(text)
    assert not re.search(r"https?:|@import|url\(", text)
    assert all(image["src"].startswith("data:") for image in page.named("img"))
    assert not page.named("link")
    assert not any("src" in script for script in page.named("script"))


def test_names_are_text_and_never_code(evaluation, pictures):
    evaluation["data"] |= {"name": SCRIPT, "classes": [SCRIPT] * 10}
    ours = evaluation["predictors"][0]
    ours |= {"name": SCRIPT, "file": SCRIPT, "method": SCRIPT, "failures": {f"out_of_distribution: {SCRIPT}": SCRIPT}}
    ours["out_of_distribution"][0]["name"] = SCRIPT
    ours["structure"]["layers"][0]["layer"] = SCRIPT
    ours["corruptions"]["name"] = ours["corruptions"]["by_kind"][0]["kind"] = SCRIPT
    ours["adversarial"]["transfer"]["crafted_on"][0] = SCRIPT
    text = render(evaluation, pictures)
    assert SCRIPT not in text
    assert len(Page(text).named("script")) == 2
    assert SCRIPT in Page(text).text


@pytest.mark.parametrize("block", words.BLOCKS)
def test_the_page_does_without_any_block(several, pictures, block):
    for one in several["predictors"]:
        one[block] = None
    page = Page(render(several, pictures))
    assert f"Not measured: {words.BLOCKS.about(block)}." in page.text
    assert words.BLOCKS.about(block).capitalize() not in page.text
    assert in_order(page.levels)


def test_the_page_does_without_all_of_them(evaluation, pictures):
    evaluation["predictors"][0] |= dict.fromkeys(words.BLOCKS)
    page = Page(render(evaluation, pictures))
    assert "Its file takes 1.13 MB." in page.text
    assert in_order(page.levels)


def test_the_page_does_without_what_may_be_null_inside_a_block(evaluation, pictures):
    ours = evaluation["predictors"][0]
    ours["calibration"] |= {"temperature": None, "calibrated": None}
    ours["uncertainty"] |= {"entropy_wrong": None}
    ours["selective"] |= dict.fromkeys(("threshold", "gamma", "at_threshold", "by_gamma", "coverage_at_5_risk"))
    ours["adversarial"]["transfer"] = None
    ours["cost"] |= {"dense": None, "deep": None}
    ours["cost"]["ensemble"]["peak_bytes"] = None
    ours["structure"]["layers"] = None
    for row in (*ours["adversarial"]["fgsm"], *ours["corruptions"]["by_kind"], *ours["corruptions"]["by_severity"]):
        row["rejected_share"] = row["accuracy_of_kept"] = None
    text = Page(render(evaluation, pictures)).text
    assert "None" not in text
    assert "Decline nothing" in text
    assert "temperature" not in text


def test_a_predictor_that_could_not_answer_has_a_page_too(evaluation):
    ours = evaluation["predictors"][0]
    ours |= dict.fromkeys(("calibration", "uncertainty", "selective", "out_of_distribution", "structure"))
    ours["failures"] = {"answers": "the logits of 3 of 1000 images are NaN: train the ensemble again"}
    page = Page(render(evaluation, NOTHING))
    assert "answering the test images" in page.text
    assert not page.named("input")
    assert "Images to look at" not in page.text
    assert in_order(page.levels)


def test_extra_kinds_of_damage_alone_have_no_mean_by_severity(evaluation, pictures):
    evaluation["predictors"][0]["corruptions"]["by_severity"] = []
    page = Page(render(evaluation, pictures))
    assert "By kind of damage" in page.text
    assert "Damaged images by severity" not in str(page.tags)


def test_failures_are_told(evaluation, pictures):
    evaluation["predictors"][0] |= {"adversarial": None, "failures": {"adversarial": "epsilon -1: pass 0 or more"}}
    text = Page(render(evaluation, pictures)).text
    assert "What failed" in text
    assert "epsilon -1: pass 0 or more" in text
    assert "Not measured" not in text


def test_several_predictors_stand_side_by_side_and_the_others_are_folded(several, pictures):
    page = Page(render(several, pictures))
    assert "Side by side" in page.text
    assert [one.get("class") for one in page.named("details")].count("other") == 2
    assert len(page.named("input")) == 1, "only ours has a slider"


def test_a_single_network_has_a_page_too(evaluation, pictures):
    evaluation["predictors"][0]["members"] = 1
    page = Page(render(evaluation, pictures))
    assert "1 member," in page.text
    assert "deep ensemble of 1" not in page.text
    assert words.BLOCKS.about("structure").capitalize() not in page.text


def test_one_predictor_has_nobody_beside_it(evaluation, pictures):
    assert "Side by side" not in Page(render(evaluation, pictures)).text


def test_another_schema_is_refused_and_the_old_page_stays(evaluation, pictures, tmp_path):
    path = tmp_path / "deep" / "report.html"
    write(path, evaluation, pictures)
    before = path.read_text(encoding="utf-8")
    with pytest.raises(DataError, match="version 2: pass 'structens-evaluation', version 1"):
        write(path, evaluation | {"version": 2}, pictures)
    with pytest.raises(DataError, match="no predictor"):
        write(path, evaluation | {"predictors": []}, pictures)
    assert path.read_text(encoding="utf-8") == before
    assert [entry.name for entry in path.parent.iterdir()] == ["report.html"]
