"""Small files that are there whole or not at all, whatever happens and whoever reads meanwhile."""

import secrets
from pathlib import Path


def write_whole(path: Path, data: bytes) -> None:
    """`data` into a file beside `path`, which then takes its place. Raises OSError, and then leaves nothing behind."""
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        part.write_bytes(data)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
