"""The licences that an entry may have, as SPDX writes them."""

from __future__ import annotations

import difflib

ACCEPTED = (
    "0BSD",
    "AGPL-3.0-only",
    "AGPL-3.0-or-later",
    "Apache-2.0",
    "Artistic-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC-BY-4.0",
    "CC-BY-SA-4.0",
    "CC0-1.0",
    "EPL-2.0",
    "EUPL-1.2",
    "GPL-2.0-only",
    "GPL-2.0-or-later",
    "GPL-3.0-only",
    "GPL-3.0-or-later",
    "ISC",
    "LGPL-2.1-only",
    "LGPL-2.1-or-later",
    "LGPL-3.0-only",
    "LGPL-3.0-or-later",
    "MIT",
    "MPL-2.0",
    "Unlicense",
    "Zlib",
)
"""Open licences, under which others may run, change and pass on code and weights."""


def licence_problem(given: str) -> str | None:
    """Why a licence is not accepted, with the nearest that is; None for one that is."""
    if given in ACCEPTED:
        return None
    folded = {name.casefold(): name for name in ACCEPTED}
    near = difflib.get_close_matches(given.casefold(), folded, n=1, cutoff=0.5)
    hint = f" did you mean {folded[near[0]]!r}?" if near else ""
    return f"{given!r} is not among the accepted licences;{hint} accepted (SPDX): {', '.join(ACCEPTED)}"
