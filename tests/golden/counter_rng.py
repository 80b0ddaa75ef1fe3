"""The random numbers of src/core/rng.h, for golden scripts: the same (seed, stream, counter) gives the same bits.

key  = mix(seed + 0x9E3779B97F4A7C15 * (stream + 1))
bits = mix(key + 0x9E3779B97F4A7C15 * (counter + 1))
"""

import numpy as np

_GOLDEN = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1


def _mix(z):
    with np.errstate(over="ignore"):
        z = np.asarray(z, dtype=np.uint64)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


class Rng:
    """Draws arrays; every draw moves the counter as the C++ class does."""

    def __init__(self, seed, stream=0):
        self._key = int(_mix((seed + _GOLDEN * (stream + 1)) & _MASK))
        self.counter = 0

    def bits(self, n):
        with np.errstate(over="ignore"):
            counters = np.arange(self.counter + 1, self.counter + n + 1, dtype=np.uint64)
            self.counter += n
            return _mix(np.uint64(self._key) + np.uint64(_GOLDEN) * counters)

    def uniform(self, n):
        return (self.bits(n) >> np.uint64(11)).astype(np.float64) * 2.0**-53

    def normal(self, n):
        u = self.uniform(2 * n)
        return np.sqrt(-2.0 * np.log(1.0 - u[0::2])) * np.cos(2.0 * np.pi * u[1::2])

    def below(self, limit, n):
        """n integers in [0, limit), limit < 2**32: the high half of bits * limit."""
        b = self.bits(n)
        m = np.uint64(limit)
        low = ((b & np.uint64(0xFFFFFFFF)) * m) >> np.uint64(32)
        return (((b >> np.uint64(32)) * m + low) >> np.uint64(32)).astype(np.int64)

    def shuffle(self, values):
        """Fisher-Yates from the end, in place."""
        for i in range(len(values), 1, -1):
            j = int(self.below(i, 1)[0])
            values[i - 1], values[j] = values[j], values[i - 1]
        return values


if __name__ == "__main__":
    print([hex(int(b)) for b in Rng(1, 2).bits(3)])
