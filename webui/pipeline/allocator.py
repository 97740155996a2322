"""How the C library hands out memory: freed blocks are kept for the next step instead of given back to the kernel.

A denoising step frees and asks for gigabytes in blocks of 10 to 80 MB. By default glibc returns each of them to the
kernel, and every page must be zeroed and mapped again when it is next touched: measured on two cores at SD 1.5 size,
that is a fifth of a step. The price is that the process stays as large as its largest moment until `give_back`.
"""

import ctypes
import sys

_M_TRIM_THRESHOLD = -1
_M_MMAP_MAX = -4
_M_ARENA_MAX = -8
_KEEP_ALL_BYTES = 2**31 - 1


def keep_freed_memory() -> bool:
    """Tells glibc to keep freed memory. False where the C library is another one, and nothing was changed."""
    libc = _glibc()
    if libc is None:
        return False
    options = ((_M_ARENA_MAX, 1), (_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, _KEEP_ALL_BYTES))
    return all(libc.mallopt(option, ctypes.c_int(value)) == 1 for option, value in options)


def give_back() -> None:
    """Returns what is free to the system, after something large was unloaded."""
    libc = _glibc()
    if libc is not None:
        libc.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None)
    return libc if hasattr(libc, "mallopt") and hasattr(libc, "gnu_get_libc_version") else None
