"""Rules by which a pair is removed alone."""

from typing import NamedTuple


class Rule(NamedTuple):
    """Why a pair is removed alone.

    reason: for the table and the page.
    condition: SQL condition on the measures.
    explanation: SQL of a text for the page that says what decided, such as the measure and its threshold.
    """

    reason: str
    condition: str
    explanation: str = "null"


def make_bound(reason: str, expression: str, sign: str, bound: float, title: str = "") -> Rule:
    """Return the rule that a measure must not be on one side of a bound.

    Args:
        reason: reason for the table and the page.
        expression: SQL of the measure.
        sign: `<`, `>`, `<=` or `>=`, between the measure and the bound of a removed pair.
        bound: the bound.
        title: name of the measure on the page; default: the expression.
    """
    explanation = f"format('{title or expression} {{:.4g}} {sign} {bound:.4g}', ({expression})::double)"
    return Rule(reason, f"{expression} {sign} {bound!r}", explanation)
