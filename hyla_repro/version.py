"""The version of this package, of an installation as of a folder of source."""

__version__ = "0.1.0"
