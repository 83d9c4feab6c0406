"""Formulas that a student types into docs/pages/r_operator.html are judged rightly."""

import pytest
from browser import PAGES, Browser, absent

pytestmark = [pytest.mark.browser, pytest.mark.skipif(bool(absent()), reason=absent())]
COMPLETE = (
    "rs*(dxh - mean(dxh) - xh*mean(dxh*xh)) + s*(rdxh - mean(rdxh) - rxh*mean(dxh*xh)"
    " - xh*mean(rdxh*xh + dxh*rxh))"
)
DX = "s*(dxh - mean(dxh) - xh*mean(dxh*xh))"


@pytest.fixture(scope="module")
def browser():
    browser = Browser()
    yield browser.open(PAGES / "r_operator.html")
    browser.close()


def verdict(browser, which, text):
    """What the page says after the text was typed."""
    field = browser.find(f"typed-{which}")
    field.clear()
    field.send_keys(text)
    browser.numbers()
    return browser.find(f"judged-{which}").text


@pytest.mark.parametrize(
    "which,text,said",
    [
        ("dx", DX, "Right"),
        ("dx", "s*dxh - s*mean(dxh) - s*mean(xh*dxh)*xh/1", "Right"),
        ("dx", "s*(dxh - mean(dxh))", "the term of the variance"),
        ("dx", "dxh*s", "treated as constants"),
        ("dx", f"2*{DX}", "100.0 % off."),
        ("rdx", COMPLETE, "Right"),
        ("rdx", COMPLETE.split(" + ", 1)[1], "the rs term is missing"),
        ("rdx", COMPLETE.replace(" + dxh*rxh", ""), "dxh*rxh in the last mean is missing"),
        ("rdx", COMPLETE.replace(" - rxh*mean(dxh*xh)", ""), "rxh*mean(dxh*xh) is missing"),
        ("rdx", COMPLETE.replace("+ s*(", "+ 1.001*s*("), "% off"),
        ("dx", "s*(dxh", "a ) is missing"),
        ("dx", "s*", "ends too early"),
        ("dx", "s*rs", "unknown: rs"),
        ("dx", "alert(1)", "unknown: alert"),
        ("dx", "s s", "not expected: s"),
    ],
)
def test_a_typed_formula_is_judged(browser, which, text, said):
    assert said in verdict(browser, which, text)
    assert browser.complaints() == []
