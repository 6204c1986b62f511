"""The errors that a user can mend: scripts print them plainly and exit with status 2."""


class UserError(ValueError):
    """Something outside the code is wrong; the message names the file, the key or the value."""


class ConfigError(UserError):
    """A key, name, argument or value of the configuration is wrong."""


class DataError(UserError):
    """A folder or an image is missing, unreadable or not as expected."""


class CheckpointError(UserError):
    """A checkpoint is missing, damaged, or belongs to something else."""
