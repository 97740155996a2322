"""Models that the user brings, found under `models/face`: swappers, restorers, detectors. Never fetched, never needed.

Nothing here is told by a file's or a tensor's name; a file that cannot be used is listed with its reason.
"""
