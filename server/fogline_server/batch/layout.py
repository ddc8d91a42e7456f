"""How a table's columns become examples. Pure: Arrow in, arrays out.

Three layouts are understood: a column named like the model's input that holds one example a row, as a list of numbers or
as the bytes of little-endian float32; or one numeric column per value, in the table's order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from fogline_shared.errors import InvalidInput
from fogline_shared.manifest import Manifest

FloatArray = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Layout:
    """``inputs``: one packed column, or ``width`` numeric ones. ``shape``: one example."""

    inputs: tuple[str, ...]
    packed: bool
    shape: tuple[int, ...]
    id_column: str = ""

    @property
    def width(self) -> int:
        """Values of one example."""
        return math.prod(self.shape)

    @property
    def columns(self) -> list[str]:
        """All columns to read, each once."""
        return list(dict.fromkeys([*self.inputs, *([self.id_column] if self.id_column else [])]))


def layout_of(schema: Any, manifest: Manifest, *, id_column: str = "") -> Layout:
    """Choose the layout; raises InvalidInput ``missing_column``, ``wrong_width``, ``wrong_column_type``."""
    shape = manifest.input_shape
    names = list(schema.names)
    if len(set(names)) != len(names):
        raise InvalidInput("missing_column", "the table has two columns of one name")
    if id_column and id_column not in names:
        raise InvalidInput("missing_column", f"no column {id_column!r} to copy; there are: {_some(names)}")
    if manifest.input_name in names:
        layout = Layout(inputs=(manifest.input_name,), packed=True, shape=shape, id_column=id_column)
        _check_packed(schema.field(manifest.input_name), layout.width)
        return layout
    numeric = tuple(f.name for f in schema if f.name != id_column and _is_number(f.type))
    if len(numeric) == math.prod(shape):
        return Layout(inputs=numeric, packed=False, shape=shape, id_column=id_column)
    raise InvalidInput(
        "missing_column",
        f"no column {manifest.input_name!r}, and {len(numeric)} numeric columns where an example has "
        f"{math.prod(shape)} values; there are: {_some(names)}",
    )


def _check_packed(field: Any, width: int) -> None:
    kind = field.type
    found: int | None
    if pa.types.is_fixed_size_list(kind) and _is_number(kind.value_type):
        found = kind.list_size
    elif pa.types.is_fixed_size_binary(kind):
        found = kind.byte_width / 4
    elif _is_list(kind) and _is_number(kind.value_type):
        return  # each row is checked as it is read
    elif pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return
    else:
        raise InvalidInput("wrong_column_type", f"column {field.name!r} is {kind}: lists of numbers or bytes are read")
    if found != width:
        raise InvalidInput("wrong_width", f"column {field.name!r} has {found:g} values a row, an example {width}")


def examples_of(batch: Any, layout: Layout, *, first_row: int) -> FloatArray:
    """(n, *shape) float32 of a record batch whose first row is ``first_row`` of the input.

    Raises InvalidInput ``null_input`` or ``wrong_width``, naming a row.
    """
    columns = [batch.column(name) for name in layout.inputs]
    for name, column in zip(layout.inputs, columns, strict=True):
        if column.null_count:
            row = first_row + int(pc.index(column.is_null(), value=True).as_py())
            raise InvalidInput("null_input", f"row {row} has no value in column {name!r}", row=row)
    if not layout.packed:
        flat = np.empty((len(batch), layout.width), dtype=np.float32)
        for index, column in enumerate(columns):
            flat[:, index] = column.to_numpy(zero_copy_only=False)
    else:
        flat = _packed(columns[0], layout.width, first_row)
    return flat.reshape(len(batch), *layout.shape)


def _packed(column: Any, width: int, first_row: int) -> FloatArray:
    kind = column.type
    if pa.types.is_fixed_size_binary(kind):
        start = column.offset * kind.byte_width
        return np.frombuffer(column.buffers()[1], dtype="<f4", offset=start, count=len(column) * width)
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        _check_rows(pc.binary_length(column).to_numpy(), 4 * width, "bytes", first_row)
        joined = column.cast(pa.binary(4 * width))
        return _packed(joined, width, first_row)
    if _is_list(kind):
        _check_rows(pc.list_value_length(column).to_numpy(), width, "values", first_row)
    values = column.flatten()
    if values.null_count:
        row = first_row + int(pc.index(values.is_null(), value=True).as_py()) // width
        raise InvalidInput("null_input", f"row {row} holds a null", row=row)
    return np.asarray(values.to_numpy(zero_copy_only=False), dtype=np.float32)


def _check_rows(lengths: NDArray[Any], expected: int, unit: str, first_row: int) -> None:
    wrong = np.flatnonzero(lengths != expected)
    if len(wrong):
        row = first_row + int(wrong[0])
        raise InvalidInput("wrong_width", f"row {row} has {lengths[wrong[0]]} {unit}, an example {expected}", row=row)


def _is_list(kind: Any) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind))


def _is_number(kind: Any) -> bool:
    return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind))


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:10]) + (", …" if len(names) > 10 else "")
