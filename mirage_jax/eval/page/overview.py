"""The page of all protocols: what each found, its first metrics as charts, its table.

It opens without a network; scenes, videos and curves are on the pages of the protocols, which lie
in folders beside it.
Read next: `report_page.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from mirage_jax.eval.page import report_page as page
from mirage_jax.eval.protocols import Protocol
from mirage_jax.eval.results import ResultFile
from mirage_jax.eval.summary import Summary

_MOST_CARDS = 4


class Found(NamedTuple):
    """What a protocol found."""

    protocol: Protocol
    results: ResultFile
    summary: Summary


def overview_page(found: Sequence[Found], told: Mapping[str, Any]) -> str:
    """Return the page.

    Args:
        found: of each protocol, in order.
        told: how it was run: command, settings, versions, device.
    """
    systems = list(dict.fromkeys(name for one in found for name in one.summary))
    colors = page.colors_of(systems)
    parts = [
        f"<h1>What the memory of {told['world']} is worth</h1>",
        f'<p class="soft">The same weights, noise and paths for every system. {page.NOTE}</p>',
    ]
    for protocol, results, summary in found:
        cards = page.metric_cards(results, protocol, summary, colors, _MOST_CARDS)
        parts += [
            f"<h2>{page.TITLES[protocol.name]}</h2>",
            f'<p class="soft">{page.LEADS[protocol.name]} <a href="{protocol.folder}/report.html">'
            "Scenes, videos, all charts</a></p>",
            page.verdict(results, protocol, summary),
            f'<div class="cards">{cards}</div>',
            page.table_of(summary),
        ]
    parts.append(page.how_it_was_run(told, systems))
    return page.html_document(f"{told['world']}: all protocols", parts)
