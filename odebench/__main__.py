"""`python -m odebench`."""

from odebench.cli import main

if __name__ == "__main__":
    main()
