"""Bytes and seconds as people read them: decimal units, as sites and disks are sold."""

from webui.library.downloads.events import DownloadProgress

MINUTE_S = 60.0


def status_text(progress: DownloadProgress) -> str:
    """ "1.2 of 6.9 GB · 45.3 MB/s · 2 min left"."""
    parts = [amount(progress.done, progress.total)]
    if progress.bytes_per_s > 0:
        parts.append(f"{progress.bytes_per_s / 1e6:.1f} MB/s")
    if progress.seconds_left is not None:
        parts.append(f"{duration(progress.seconds_left)} left")
    return " · ".join(parts)


def amount(done: int, total: int | None) -> str:
    """ "12 of 134 MB", in the unit of the larger one; "134 MB" without a `total`."""
    largest = total or done
    unit, name = next(((unit, name) for unit, name in ((1e9, "GB"), (1e6, "MB")) if largest >= unit), (1e3, "kB"))
    digits = 1 if unit == 1e9 or largest / unit < 10 else 0
    shown = f"{done / unit:.{digits}f}"
    return f"{shown} {name}" if total is None else f"{shown} of {total / unit:.{digits}f} {name}"


def duration(seconds: float) -> str:
    if seconds < MINUTE_S:
        return f"{max(seconds, 1):.0f} s"
    minutes = round(seconds / MINUTE_S)
    return f"{minutes} min" if minutes < 90 else f"{minutes / 60:.1f} h"
