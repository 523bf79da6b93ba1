"""`odebench` and `python -m odebench`: an interruption is one line from the first moment on."""

import sys


def run() -> None:
    """Imports the command line, then runs it and exits."""
    try:
        from odebench.cli import main
    except KeyboardInterrupt:
        print("odebench: interrupted", file=sys.stderr)
        sys.exit(130)
    main()


if __name__ == "__main__":
    run()
