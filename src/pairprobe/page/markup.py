"""HTML as values: what is not markup already is escaped when it is put into an element, so none can be forgotten."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable

from pairprobe.outcomes import Interval, signed

#: What no HTML page may hold, even escaped: control characters and half surrogates.
UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
VOID = ("br", "hr", "meta", "link", "img", "col")


class Html(str):
    """Markup that stands as it is; any other string is text."""

    __slots__ = ()


#: What may stand inside an element.
Child = str | None | Iterable["Child"]


def escape(text: str) -> Html:
    """Text as markup that shows it exactly: <b> and & stay as they stand, control characters become �."""
    return Html(html.escape(UNPRINTABLE.sub("\ufffd", text), quote=True))


def join(*children: Child) -> Html:
    """The children one after the other; None is left out."""
    found: list[str] = []
    for child in children:
        if isinstance(child, Html):
            found.append(child)
        elif isinstance(child, str):
            found.append(escape(child))
        elif child is not None:
            found.append(join(*child))
    return Html("".join(found))


def tag(name: str, /, *children: Child, **attributes: str | float | bool | None) -> Html:
    """An element. class_ and aria_label are written class and aria-label; None and False are left out."""
    written = []
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        word = key.rstrip("_").replace("_", "-")
        written.append(f" {word}" if value is True else f' {word}="{escape(_plain(value))}"')
    head = f"<{name}{''.join(written)}>"
    return Html(head) if name in VOID else Html(f"{head}{join(*children)}</{name}>")


def _plain(value: str | float) -> str:
    """Numbers of a drawing to a tenth of a pixel, which halves its size."""
    return value if isinstance(value, str) else f"{value:.1f}".removesuffix(".0")


# ── what sections are made of ────────────────────────────────────────────────────────────────────────────


def section(title: str, *children: Child, anchor: str, kind: str = "") -> Html:
    """A section with its heading, which the table of contents links to."""
    return tag(
        "section", tag("h2", title, id=f"{anchor}-title"), *children,
        id=anchor, class_=kind or None, aria_labelledby=f"{anchor}-title",
    )  # fmt: skip


def paragraph(*children: Child, kind: str | None = None) -> Html:
    return tag("p", *children, class_=kind)


def bullets(items: Iterable[Child], kind: str | None = None) -> Html:
    return tag("ul", [tag("li", item) for item in items], class_=kind)


def table(
    caption: str,
    head: Iterable[Child],
    rows: Iterable[Iterable[Child]],
    *,
    text: int = 1,
    marked: frozenset[int] = frozenset(),
) -> Html:
    """A table that scrolls within itself where the page is narrow. Its first column names the row.

    text: how many columns from the left hold words; the others hold numbers. marked: rows to set off.
    """

    def cells(row: Iterable[Child]) -> Iterable[Html]:
        for i, cell in enumerate(row):
            kind = None if i < text else "n"
            yield tag("td", cell, class_=kind) if i else tag("th", cell, scope="row")

    heads = [tag("th", h, scope="col", class_=None if i < text else "n") for i, h in enumerate(head)]
    lines = [tag("tr", cells(row), class_="marked" if i in marked else None) for i, row in enumerate(rows)]
    return tag(
        "div",
        tag("table", tag("caption", caption), tag("thead", tag("tr", heads)), tag("tbody", lines)),
        class_="scroll", role="region", tabindex="0", aria_label=caption,
    )  # fmt: skip


def facts(rows: Iterable[tuple[Child, Child]], kind: str = "facts") -> Html:
    """Names and what they are, as a list of two columns."""
    return tag("dl", [tag("div", tag("dt", name), tag("dd", value)) for name, value in rows], class_=kind)


def folded(summary: Child, *children: Child, is_open: bool = False) -> Html:
    """What only some readers want; on paper it is always open."""
    return tag("details", tag("summary", summary), *children, open=is_open)


def code(text: str) -> Html:
    return tag("code", text)


def command(text: str) -> Html:
    return tag("pre", tag("code", text), class_="command")


def form(word: str) -> Html:
    """A word form, exactly as its source has it, apart from the direction of what stands around it."""
    return tag("bdi", word or "(empty)", class_="form", translate="no")


# ── numbers ──────────────────────────────────────────────────────────────────────────────────────────────

UNDEFINED = Html('<span class="none" title="not defined or not measured">—</span>')


def number(value: float | None, digits: int = 3, sign: bool = False) -> Html:
    """A number as people read it, with all its digits in the page for machines."""
    if value is None:
        return UNDEFINED
    shown = signed(value, digits) if sign else f"{value:.{digits}f}".replace("-", "−")
    return tag("data", shown, value=repr(float(value)))


def chance(p: float | None) -> Html:
    """A p-value; small ones are not shown as 0."""
    if p is None:
        return UNDEFINED
    return tag("data", f"{p:.3f}" if p >= 0.0005 else "< 0.001", value=repr(float(p)))


def within(interval: Interval | None, digits: int = 3, sign: bool = True) -> Html:
    """'−0.062 to +0.214'"""
    if interval is None:
        return UNDEFINED
    return tag(
        "span", number(interval.low, digits, sign), " to ", number(interval.high, digits, sign), class_="interval"
    )


def percent(share: float | None) -> Html:
    return UNDEFINED if share is None else tag("data", f"{100 * share:.0f} %", value=repr(float(share)))


def count(n: int) -> str:
    """12 345 with a space that does not break."""
    return f"{n:,}".replace(",", "\u202f")
