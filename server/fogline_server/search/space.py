"""Which chains a search tries, and what each is with a part of its training. Needs neither torch nor onnx."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count

from fogline_server.compression.chain import Chain, Link, needs_of
from fogline_server.compression.examples import examples_of
from fogline_server.registry.lineage import fingerprint
from fogline_shared.errors import InvalidInput
from fogline_shared.recipe import Recipe

# Every method, alone and in the combinations that pay, with a few values of the option that matters most. The first eleven do
# not train: a recipe without a transfer set has these.
DEFAULT = (
    "float16",
    "int8_static",
    "int8_static:calibrator=percentile",
    "int8_dynamic",
    "int16_activations",
    "weight_only",
    "weight_only:bits=4",
    "low_rank",
    "low_rank,int8_static",
    "prune_channels:share=0.125:rounds=1:steps=0,int8_static",
    "sparse_magnitude:sparsity=0.3:rounds=1:steps=0,int8_static",
    "qat,int8_static",
    "prune_channels:share=0.25",
    "prune_channels:share=0.5",
    "prune_channels:share=0.25,finetune,int8_static",
    "prune_channels:share=0.5,finetune,int8_static",
    "prune_channels:share=0.75,finetune,int8_static",
    "prune_channels:share=0.5,qat,int8_static",
    "prune_channels:share=0.5,finetune,weight_only",
    "prune_channels:share=0.25,sparse_magnitude:sparsity=0.5,int8_static",
    "sparse_magnitude:sparsity=0.6",
    "sparse_magnitude:sparsity=0.5,int8_static",
    "sparse_magnitude:sparsity=0.7,int8_static",
    "sparse_magnitude:sparsity=0.85,int8_static",
    "sparse_n_m",
    "sparse_n_m,int8_static",
    "low_rank,finetune",
    "low_rank:energy=0.8,finetune,int8_static",
    "binarize",
)
# The name of a form is the name of a variant: at most forty letters.
_WORDS, _MARK = 33, 6


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A chain of the space with its whole training. ``number``: its place; ``name``: that of its variant."""

    number: int
    name: str
    chain: Chain

    @property
    def trains(self) -> bool:
        """Whether a method of it trains."""
        return any(steps_of(link) for link in self.chain.links)

    @property
    def single(self) -> bool:
        """Whether it is one method by itself."""
        return len(self.chain.links) == 1

    def with_share(self, share: float) -> Chain:
        """The chain with that share of its training steps, at least one of each method's."""
        return Chain(links=tuple(_shortened(link, share) for link in self.chain.links))


def entries(chains: Sequence[Chain], steps: int) -> list[Entry]:
    """The space in order, each chain once; ``chains``: instead of the default ones."""
    numbers, seen = count(), set()

    def each() -> Iterator[Entry]:
        for given in chains or [Chain.parse(text) for text in DEFAULT]:
            chain = Chain(links=tuple(_with_steps(link, steps) for link in given.links))
            name = name_of(chain)
            if name not in seen:
                seen.add(name)
                yield Entry(number=next(numbers), name=name, chain=chain)

    return list(each())


def divided(space: Sequence[Entry], recipe: Recipe) -> tuple[list[Entry], list[tuple[Entry, InvalidInput]]]:
    """What can be tried, and what cannot for want of examples, with the reason; raises InvalidInput ``invalid_dataset``."""
    examples = examples_of(recipe, needs_of(entry.chain for entry in space))
    tried, left_out = [], []
    for entry in space:
        try:
            examples.check(entry.chain.needs)
        except InvalidInput as error:
            left_out.append((entry, error))
        else:
            tried.append(entry)
    return tried, left_out


def name_of(chain: Chain) -> str:
    """The methods' names and a mark of their options, as a variant's name; the same chain has the same name everywhere."""
    words = "-".join(link.method for link in chain.links)[:_WORDS].rstrip("-_")
    return f"{words}-{fingerprint(chain.as_json())[:_MARK]}"


def steps_of(link: Link) -> int:
    """How many steps a link trains, in each of its rounds; 0: it does not."""
    return int(getattr(link.load(), "steps", 0))


def _with_steps(link: Link, steps: int) -> Link:
    """The link with its steps written down, shared among its rounds."""
    method = link.load()
    if not hasattr(method, "steps") or "steps" in link.options:
        return link
    return replace(link, options={**link.options, "steps": max(1, steps // getattr(method, "rounds", 1))})


def _shortened(link: Link, share: float) -> Link:
    steps = steps_of(link)
    return replace(link, options={**link.options, "steps": max(1, round(steps * share))}) if steps else link
