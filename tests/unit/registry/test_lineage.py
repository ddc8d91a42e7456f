from __future__ import annotations

import pytest

from fogline_server.registry.lineage import GENESIS, broken_link, chain, head_of

FACTS = [{"step": "round", "n": n} for n in range(4)]


def test_a_chain_as_made_holds_and_its_head_depends_on_every_link() -> None:
    links = chain(FACTS)
    assert broken_link(links) is None
    assert head_of([]) == GENESIS
    heads = {head_of(chain([*FACTS[:i], {"step": "other"}, *FACTS[i + 1 :]])) for i in range(4)}
    assert len(heads | {head_of(links)}) == 5


@pytest.mark.parametrize("at", range(4))
def test_a_changed_link_is_found_where_it_is(at: int) -> None:
    links = chain(FACTS)
    links[at] = {**links[at], "facts": {"step": "round", "n": 99}}
    assert broken_link(links) == at


def test_a_removed_or_swapped_link_is_found() -> None:
    links = chain(FACTS)
    assert broken_link(links[1:]) == 0
    assert broken_link([links[0], links[2], links[1], links[3]]) == 1
