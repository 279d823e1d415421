"""What can go wrong with the servers this package brings along."""


class EmbeddedServerError(Exception):
    """An embedded server could not be installed, started or stopped; the message ends with its log."""


class MissingToolError(EmbeddedServerError):
    """A program that has to be installed on this machine is not on the PATH."""
