"""The version of the package, and the releases of torch it was tried with."""

__version__ = "0.1.0"

# The stable ABI begins with 2.10; the last release tried is the upper end. pyproject.toml states the same range.
TORCH_TESTED = ("2.10", "2.13")
