"""CRC-32C, the checksum of OCDBT and of zarr, at the speed of NumPy."""

from __future__ import annotations

import numpy as np

_POLYNOMIAL = 0x82F63B78


def _table() -> np.ndarray:
    """What each value of a byte does to the checksum."""
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, table >> 1 ^ _POLYNOMIAL, table >> 1)
    return table


_TABLE = _table()
_STEPS = _TABLE.tolist()


def crc32c(data: bytes | np.ndarray) -> int:
    """The CRC-32C of `data`.

    >>> hex(crc32c(b"123456789"))
    '0xe3069283'
    """
    octets = np.frombuffer(data, np.uint8)
    return _short(octets) if octets.size < 256 else _long(octets)


def _short(octets: np.ndarray) -> int:
    state = 0xFFFFFFFF
    for octet in octets.tolist():
        state = _STEPS[(state ^ octet) & 0xFF] ^ state >> 8
    return state ^ 0xFFFFFFFF


def _long(octets: np.ndarray) -> int:
    """Many stretches at once: the checksum is linear, so those of two stretches add up.

    Zeros before the data change nothing when the state starts as zero; that it starts as ones is
    the same as flipping the first four bytes. 32 stretches more, of zeros after each single bit,
    tell what the length of a stretch does to the state before it.
    """
    count = 1 << octets.size.bit_length() // 2
    padded = np.zeros(count * -(-octets.size // count), np.uint8)
    padded[-octets.size :] = octets
    padded[padded.size - octets.size :][:4] ^= 0xFF
    state = np.concatenate([np.zeros(count, np.uint32), np.uint32(1) << np.arange(32, dtype="u4")])
    for column in np.ascontiguousarray(padded.reshape(count, -1).T):
        state[:count] ^= column
        state = _TABLE[state & 0xFF] ^ state >> 8
    sums, shift = state[:count], state[count:]
    while len(sums) > 1:
        sums = _applied(shift, sums[0::2]) ^ sums[1::2]
        shift = _applied(shift, shift)
    return int(sums[0]) ^ 0xFFFFFFFF


def _applied(shift: np.ndarray, states: np.ndarray) -> np.ndarray:
    """Each state after as many zero bytes as `shift` stands for."""
    shifted = np.zeros_like(states)
    for bit, image in enumerate(shift):
        shifted ^= np.where(states >> np.uint32(bit) & 1, image, np.uint32(0))
    return shifted
