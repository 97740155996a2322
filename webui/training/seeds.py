"""Seeds made of seeds. Imports no torch."""

_MASK = 2**64 - 1


def mixed(*numbers: int) -> int:
    """64 bits in which every bit depends on all `numbers` in order: splitmix64's finaliser over each (Steele 2014)."""
    state = 0
    for number in numbers:
        state = (state + number + 0x9E3779B97F4A7C15) & _MASK
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
        state ^= state >> 31
    return state
