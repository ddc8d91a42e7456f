"""Encoded replies, taken apart before admission: each array is decoded when, and each time, somebody reads it.

What a reply claims is compared with what the codec makes of the model that was sent before anything is allocated; a
reply that fits in size but not in content fails when admission reads it, and is refused with the same code.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from numpy.typing import NDArray

from fogline_shared import flower, tensors
from fogline_shared.codecs.base import Codec
from fogline_shared.errors import Corrupt
from fogline_shared.flower import Address, ArrayRecord, ConfigRecord, LazyArray, Message

ENCODING = "encoding"


class DecodedArray(LazyArray):
    """The parameters that an encoded update leads to: ``reference`` plus what is in ``packed``."""

    def __init__(self, packed: flower.Array, codec: Codec, reference: NDArray[Any]) -> None:
        # Not Array's: that one wants the bytes.
        self.dtype = reference.dtype.name
        self.shape = reference.shape
        self.stype = "numpy.ndarray"
        self._packed, self._codec, self._reference = packed, codec, reference

    def numpy(self) -> NDArray[Any]:
        """A private, writable array; raises Corrupt ``bad_encoding``."""
        values: NDArray[Any] = self._codec.decode(self._packed.numpy(), self._reference.size)
        new = values.reshape(self.shape)
        new += self._reference
        return new


def unpack(
    reply: Message, codec: Codec, reference: Mapping[str, NDArray[Any]], *, arrays: str, running: Collection[str]
) -> Message:
    """The reply with arrays as the model has them; one that is not encoded, as it is.

    A reply encoded in another way than ``codec`` becomes an error reply: ``wrong_codec`` or ``bad_encoding``.
    ``arrays``: the record's name.
    """
    if reply.has_error() or ENCODING not in reply.content:
        return reply
    record = reply.content.get(arrays)
    if not isinstance(record, ArrayRecord):
        return reply
    try:
        _check_name(reply.content[ENCODING], codec)
        decoded = {name: _decoded(name, record[name], codec, reference, running) for name in record}
    except Corrupt as error:
        about = reply.metadata
        address = Address(
            message_id=about.reply_to_message_id,
            node_id=about.src_node_id,
            group_id=about.group_id,
            message_type=about.message_type,
        )
        return flower.reply(flower.failure(flower.UNREADABLE_REPLY, error.code, error.message), address)
    reply.content[arrays] = flower.assemble(decoded)
    return reply


def _check_name(encoding: object, codec: Codec) -> None:
    named = encoding.get("codec") if isinstance(encoding, ConfigRecord) else None
    if named != codec.name:
        raise Corrupt("wrong_codec", f"the reply is encoded with {str(named)[:60]!r}; the run has {codec.name}")


def _decoded(
    name: str,
    array: flower.Array,
    codec: Codec,
    reference: Mapping[str, NDArray[Any]],
    running: Collection[str],
) -> flower.Array:
    """Plain where the model has bytes itself, the array is a running statistic, or nobody knows it: for admission to judge."""
    sent = reference.get(name)
    if sent is None or name in running or array.dtype != "uint8" or not codec.packs(sent.dtype.name, sent.size):
        return array
    if tuple(array.shape) != (codec.nbytes(sent.size),):
        expected = codec.nbytes(sent.size)
        raise Corrupt("bad_encoding", f"{name!r} in {codec.name} is {expected} bytes, not of shape {array.shape}")
    return DecodedArray(array, codec, sent)


def sizes(replies: Collection[Message], reference: Mapping[str, NDArray[Any]], *, arrays: str) -> tuple[int, int]:
    """Bytes of a round's replies that have arrays: as they were sent, and as they would be plain."""
    records = [reply.content.get(arrays) for reply in replies if not reply.has_error()]
    sent = [_size(record) for record in records if isinstance(record, ArrayRecord)]
    return sum(sent), len(sent) * _length(reference)


def _size(record: ArrayRecord) -> int:
    place = flower.origin(record)
    if place is not None:
        return place.stat().st_size
    try:
        return _length(flower.arrays_of(record))
    except Corrupt:
        return 0  # it could not have been sent


def _length(arrays: Mapping[str, NDArray[Any]]) -> int:
    return sum(map(len, tensors.encode(arrays)))
