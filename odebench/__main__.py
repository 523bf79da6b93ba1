"""`odebench` and `python -m odebench`: an interruption is one line from the first moment on."""

import os
import sys


def run() -> None:
    """Imports the command line, then runs it and exits.

    Threads that wait for others sleep. By default they spin, which is a little faster on free cores and several times
    slower where other programs need them.
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
