"""Chains: text and JSON that say the same, and orders that are refused when they are written down."""

from __future__ import annotations

import pytest

from fogline_server.compression.chain import Chain
from fogline_shared.errors import InvalidInput

TEXT = "prune_channels:share=0.5:rounds=2,finetune,int8_static:qdq=true:calibrator=entropy"


def test_text_and_json_come_back() -> None:
    chain = Chain.parse(TEXT)
    assert str(chain) == TEXT
    assert Chain.from_json(chain.as_json()) == chain
    assert chain.links[2].load().qdq is True


@pytest.mark.parametrize(
    ("text", "code", "says"),
    [
        ("int8_static,finetune", "chain_order", "finetune changes the torch model: put it before"),
        ("binarize,int8_static", "chain_order", "int8_static starts from float weights: put it before"),
        ("float16,weight_only", "chain_order", "float16 writes the ONNX file and ends a chain"),
        ("finetune,magic", "unknown_method", "magic"),
        ("", "unknown_method", "known: "),
        ("finetune:steps", "invalid_chain", "name=value"),
        ("finetune:steps=many", "invalid_method_options", "'steps' is int"),
        ("finetune:steps=true", "invalid_method_options", "'steps' is int"),
        (",".join(["finetune"] * 9), "invalid_chain", "1 to 8 methods, not 9"),
    ],
)
def test_a_chain_that_cannot_be_is_refused_when_it_is_written_down(text: str, code: str, says: str) -> None:
    with pytest.raises(InvalidInput) as error:
        Chain.parse(text)
    assert error.value.code == code
    assert says in error.value.message


@pytest.mark.parametrize("value", [None, [1], [{}], [{"method": "finetune", "options": 3}], "finetune"])
def test_json_of_another_shape_is_refused(value: object) -> None:
    with pytest.raises(InvalidInput) as error:
        Chain.from_json(value)
    assert error.value.code == "invalid_chain"
