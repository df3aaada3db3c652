"""`python -m speak`."""

from speak.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
