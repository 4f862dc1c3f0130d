class TrajplanError(Exception):
    """What a user can put right; its message is one sentence that says what is wrong and what to do."""


class DataError(TrajplanError):
    """A dataset that cannot be found, read or used; the message names dataset, episode and field."""


class ConfigError(TrajplanError):
    """A setting that is unknown or out of range."""


class CheckpointError(TrajplanError):
    """A checkpoint folder that is missing, incomplete or made for something else."""
