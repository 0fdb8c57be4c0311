# SPDX-License-Identifier: Apache-2.0
"""Records that nobody wrote: labels of the World Factbook put together anew, with values of many forms.

The Factbook's own records are those of some three hundred countries, and a label tells much of its value there: a model
that sees no others learns where such values usually end, and not to copy to the line's end whatever stands there.
"""

from __future__ import annotations

import re
from random import Random

from .answer_batches import RecordsOfCountries
from .fields import FIELD
from .tasks import VALUES, draw_name

INVENTED = 0.5
"""How often records are invented."""
OF_A_YEAR = re.compile(r" \d{4}$")
UNITS = (
    "%", " km", " sq km", " m", " years", " deaths/1,000 population", " billion kWh", " bbl/day", " GW", " kg", " hours",
    " people", " nm", " percent of GDP", " tons", " MW", " million Btu/person", " beds", " cu m", " per 100 inhabitants",
)  # fmt: skip
TITLES = ("President", "Prime Minister", "King", "Queen", "Ambassador", "Chancellor", "Director", "Mayor", "Judge")


class InventedRecords(RecordsOfCountries):
    """As `RecordsOfCountries` draws them, half of them invented; among these, figures of one label for several years."""

    def __init__(self, prose: dict[str, str]) -> None:
        super().__init__(prose)
        factbook = [text for name, text in prose.items() if name.startswith("factbook_")]
        labels = (OF_A_YEAR.sub("", line[2]) for text in factbook for line in FIELD.finditer(text))
        self._labels = sorted({label for label in labels if len(label) <= 50})
        self._novels = [text for name, text in prose.items() if not name.startswith("factbook_")] or factbook

    def _text(self, rng: Random, num_chars: int) -> str:
        if rng.random() >= INVENTED:
            return super()._text(rng, num_chars)
        names = list(dict.fromkeys(draw_name(rng) for _ in range(rng.randint(2, 5))))
        labels = self._drawn_labels(rng, max(3, num_chars // (45 * len(names))))
        parts = []
        for name in names:
            lines = [f"{name} - {label}: {self._value(rng, year)}" for label, year in labels if rng.random() < 0.9]
            parts.append("\n".join(lines)[: num_chars // len(names)].rsplit("\n", 1)[0])
        return "\n\n".join(parts)

    def _drawn_labels(self, rng: Random, count: int) -> list[tuple[str, str]]:
        """Labels, and the year that a label is of, empty where it is of none."""
        labels: list[tuple[str, str]] = []
        while len(labels) < count:
            label = rng.choice(self._labels) if rng.random() < 0.8 else self._words(rng, 1, 4)
            if rng.random() < 0.25:
                last = rng.randint(1990, 2025)
                labels += [(f"{label} {year}", str(year)) for year in range(last, last - rng.randint(2, 5), -1)]
            else:
                labels.append((label, ""))
        return labels[:count]

    def _value(self, rng: Random, year: str) -> str:
        form = 0.0 if year else rng.random()
        if form < 0.4:
            return draw_figure(rng, year)
        if form < 0.55:
            return self._words(rng, 1, 7)
        if form < 0.7:
            return rng.choice((", ", "; ", " and ")).join(self._words(rng, 1, 2) for _ in range(rng.randint(2, 4)))
        if form < 0.8:
            return f"{self._words(rng, 1, 4)} ({self._words(rng, 1, 4)}){rng.choice(('', draw_figure(rng, '')))}"
        if form < 0.9:
            since = f"{rng.randint(1, 28)} {rng.choice(('May', 'June', 'October', 'March'))} {rng.randint(1950, 2025)}"
            name = f"{self._words(rng, 1, 2).title()} {self._words(rng, 1, 1).upper()}"
            return f"{rng.choice(TITLES)} {name} (since {since})"
        return rng.choice(VALUES)(rng)

    def _words(self, rng: Random, least: int, most: int) -> str:
        text = rng.choice(self._novels)
        start = rng.randrange(len(text) - 400)
        words = text[start : start + 400].replace(":", "").split()[1:-1]
        return " ".join(words[: rng.randint(least, most)]).strip("-_,;.!?\"'") or "none"


def draw_figure(rng: Random, year: str) -> str:
    """A number with its unit, often with the year that it is of, which is drawn where `year` is empty."""
    digits = rng.randint(1, 7)
    number = rng.choice(
        (f"{rng.randrange(10**digits):,}", f"{rng.uniform(0, 10 ** rng.randint(0, 3)):.{rng.randint(1, 3)}f}")
    )
    if rng.random() < 0.3:
        figure = f"${number}{rng.choice(('', ' million', ' billion', ' trillion'))}"
    else:
        figure = f"{number}{rng.choice(('', *UNITS))}"
    year = year or str(rng.randint(1990, 2025))
    return figure + rng.choices(("", f" ({year} est.)", f" ({year})"), (0.3, 0.5, 0.2))[0]
