"""Errors of the embedded servers."""


class EmbeddedServerError(Exception):
    """An embedded server could not be installed, started or stopped. The message may end with its log."""


class MissingToolError(EmbeddedServerError):
    """A required program is not on the PATH."""
