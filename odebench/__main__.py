"""`odebench` and `python -m odebench`: an interruption is one line from the first moment on."""

import os
import sys


def run() -> None:
    """Imports the command line, then runs it and exits.

    Threads that wait for others sleep: by default they spin, which makes a run three to four times as long where other
    programs need the cores, and saves a tenth where none does.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        from odebench.cli import main
    except KeyboardInterrupt:
        print("odebench: interrupted", file=sys.stderr)
        sys.exit(130)
    main()


if __name__ == "__main__":
    run()
