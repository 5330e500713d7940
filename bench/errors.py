"""Every error a user can meet, in one tree.

BenchError                  one clear line: what is wrong, where, what to do; exit code 2
├── RequestError            an unknown name, a bad value, a bad suite file
├── DataError               a dataset that does not hold what it should
│   └── MissingData         a dataset that is not there, with the way to obtain it
├── WeightsError            backbone weights that are unknown or do not fit
│   └── MissingWeights      backbone weights that are not there, with the way to obtain them
├── StoreError              a results folder that cannot be read or written
│   └── CorruptRun          a stored run whose digests do not agree
├── MethodError             a method that broke its contract; the run is recorded as failed
└── CodeError               a run that loaded other code than was planned; recorded as failed too
"""


class BenchError(Exception):
    """Base of all errors that `bench` raises on purpose; the message is one line for the user."""


class RequestError(BenchError):
    """What was asked for cannot be understood."""


class DataError(BenchError):
    """A dataset does not hold what it should."""


class MissingData(DataError):
    """A dataset or category is not on this machine."""


class WeightsError(BenchError):
    """Backbone weights are unknown, damaged or do not fit the backbone."""


class MissingWeights(WeightsError):
    """Backbone weights are not on this machine."""


class StoreError(BenchError):
    """The results folder cannot be read or written."""


class CorruptRun(StoreError):
    """A stored run does not agree with its own digests."""


class MethodError(BenchError):
    """A method broke the contract of `bench.detector`."""


class CodeError(BenchError):
    """A run has loaded other code than was planned."""

    def __init__(self, message: str, source_sha256: str) -> None:
        super().__init__(message)
        self.source_sha256 = source_sha256
        """Source hash of what was loaded."""
