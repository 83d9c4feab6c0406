"""docs/pages/ in a browser: the numbers are refmaml's, and dragging and keys work.

`make test-pages` runs this; a module page_NAME.py has what is special to each page.
"""

import json
import subprocess
from importlib import import_module

import numpy as np
import pytest
from browser import CHROMIUM, OPTIONS, PAGES, Browser, absent

pytestmark = [pytest.mark.browser, pytest.mark.skipif(bool(absent()), reason=absent())]
NAMES = sorted(path.stem for path in PAGES.glob("*.html"))
FIGURES = [import_module(f"page_{name}") for name in NAMES if name != "index"]
SECONDS = 2  # of processor time, to load a page


def each(values):
    """Parameters: every page with each of its values."""
    return [pytest.param(page, v, id=f"{page.NAME}-{v}") for page in FIGURES for v in values(page)]


@pytest.fixture(scope="module")
def browser():
    browser = Browser()
    yield browser
    browser.close()


def path_of(page):
    return PAGES / f"{page.NAME}.html"


def differences(page, numbers):
    """[(quantity, error, allowed)] of all that differs by more than is allowed."""
    found, count = [], 0
    for quantity, value, expected, allowed in page.compare(numbers):
        value, expected = np.asarray(value, float), np.asarray(expected, float)
        same = value.shape == expected.shape
        error = abs(value - expected) if same else np.array(np.inf)
        count += 1
        if not np.all(error <= allowed):
            found.append((quantity, float(error.max()), float(np.max(allowed))))
    assert count > 0
    return found


@pytest.mark.parametrize("page,settings", each(lambda page: range(len(page.SETTINGS))))
def test_every_number_of_a_page_is_refmaml_s(browser, page, settings):
    numbers = browser.open(path_of(page)).numbers(page.SETTINGS[settings])
    assert differences(page, numbers) == []


@pytest.mark.parametrize("page,name", each(lambda page: page.PLANTED))
def test_a_wrong_term_in_a_page_is_found(browser, page, name, tmp_path):
    text, (right, wrong) = path_of(page).read_text(), page.PLANTED[name]
    assert text.count(right) == 1
    (copy := tmp_path / "page.html").write_text(text.replace(right, wrong))
    browser.open(copy)
    assert any(differences(page, browser.numbers(settings)) for settings in page.SETTINGS)


@pytest.mark.parametrize("page", FIGURES, ids=lambda page: page.NAME)
def test_the_numbers_in_the_text_are_those_that_the_page_computed(browser, page):
    browser.open(path_of(page)).numbers(page.SETTINGS[-1])
    wrong = browser.run(
        "return [...document.querySelectorAll('[data-live]')].filter(e => "
        "!(e.dataset.live in shown) || e.textContent !== format(shown[e.dataset.live]))"
        ".map(e => [e.dataset.live, e.textContent])"
    )
    count = browser.run("return document.querySelectorAll('[data-live]').length")
    assert wrong == [] and count >= 3


@pytest.mark.parametrize("page,handle", each(lambda page: page.DRAGS))
def test_a_drag_changes_what_it_should(browser, page, handle):
    right, down, changed = page.DRAGS[handle]
    before = browser.open(path_of(page)).numbers()
    browser.drag(handle, right, down)
    after = browser.numbers()
    assert before[changed] != after[changed] and before["shown"] != after["shown"]
    assert differences(page, after) == []


@pytest.mark.parametrize("page,key", each(lambda page: page.KEYS))
def test_a_key_changes_what_it_should(browser, page, key):
    from selenium.webdriver import Keys

    (focused, name), (changed, by) = key, page.KEYS[key]
    before = browser.open(path_of(page)).numbers()
    browser.press(focused, getattr(Keys, name))
    after = browser.numbers()
    change = np.asarray(after[changed], float) - np.asarray(before[changed], float)
    assert np.allclose(change, by, rtol=0, atol=1e-9), change  # decimals in binary
    assert before["shown"] != after["shown"] and differences(page, after) == []


@pytest.mark.parametrize("name", NAMES)
def test_a_page_loads_alone_without_a_complaint_and_in_short_time(browser, name):
    assert browser.seconds_to_load(path := PAGES / f"{name}.html") < SECONDS
    outside = [url for url in browser.requests() if not url.startswith(("data:", "about:"))]
    assert outside == [path.as_uri()]
    assert browser.complaints() == []


def test_the_links_to_code_fit_an_installed_package_if_the_address_says_so(browser):
    def links():
        return browser.run(
            "return [...document.querySelectorAll('a.source')].map(a => a.getAttribute('href'))"
        )

    code = "refmaml/methods/imaml.py"  # docs/ is refmaml/docs there
    browser.open(path := PAGES / "anchor.html")
    assert f"../../{code}" in links()
    browser.open(path, "#installed")
    assert "../../methods/imaml.py" in links() and f"../../{code}" not in links()


def test_the_time_to_load_is_that_of_the_page_s_work(browser, tmp_path):
    (path := tmp_path / "page.html").write_text(
        "<!doctype html><title>x</title><script>"
        "for (const end = performance.now() + 1500; performance.now() < end; );</script>"
    )
    empty = browser.seconds_to_load(tmp_path)
    # 1.5 s of work; on a busy machine the page has only a part of a core for it.
    assert browser.seconds_to_load(path) > empty + 0.05


def test_a_request_and_a_complaint_are_noticed(browser, tmp_path):
    script = "<script>new Image().src = 'file:///none.png'; undefinedName()</script>"
    (path := tmp_path / "page.html").write_text(f"<!doctype html><title>x</title>{script}")
    browser.open(path)
    assert "file:///none.png" in browser.requests() and browser.complaints()


CUT_OFF = (
    "return [...document.querySelectorAll('math *')].filter(e => e.getBoundingClientRect().right > "
    "e.closest('div, p, td, figcaption, summary, li').getBoundingClientRect().right + 1)"
    ".map(e => e.textContent)"
)


@pytest.mark.parametrize("width,height", [(1280, 800), (390, 844)])
@pytest.mark.parametrize("name", NAMES)
def test_a_page_is_no_wider_than_its_window_and_cuts_off_no_formula(browser, name, width, height):
    browser.size(width, height)
    try:
        browser.open(PAGES / f"{name}.html")
        assert browser.run("return document.documentElement.scrollWidth") <= width
        assert browser.run(CUT_OFF) == []
    finally:
        browser.size(1280, 800)


def test_a_formula_that_is_cut_off_is_found(browser, tmp_path):
    page = "<div style='width: 50px'><math><mtext>wider_than_fifty_pixels</mtext></math></div>"
    (path := tmp_path / "page.html").write_text(f"<!doctype html><title>x</title>{page}")
    browser.open(path)
    assert browser.run(CUT_OFF) == ["wider_than_fifty_pixels"]


@pytest.mark.parametrize("page", FIGURES, ids=lambda page: page.NAME)
def test_every_control_and_handle_has_a_name_and_is_reached_by_tab(browser, page):
    browser.open(path_of(page))
    nameless = browser.run(
        "return [...document.querySelectorAll('input, select, .handle')].filter(e => "
        "e.tabIndex < 0 || !(e.ariaLabel || (e.labels && e.labels.length))).map(e => e.id)"
    )
    assert nameless == []


@pytest.mark.parametrize("page", FIGURES, ids=lambda page: page.NAME)
def test_a_page_writes_its_numbers_when_its_address_asks_for_them(page):
    command = [CHROMIUM, *OPTIONS, "--dump-dom", path_of(page).as_uri() + "?numbers"]
    out = subprocess.run(command, capture_output=True, text=True, timeout=120).stdout
    text = out.split('<pre id="numbers">')[1].split("</pre>")[0]
    assert differences(page, json.loads(text.replace("&gt;", ">").replace("&lt;", "<"))) == []
