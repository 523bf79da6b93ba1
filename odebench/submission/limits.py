"""How much an entry may hold, and how long its code may run."""

TIME_LIMIT = 3600
"""The default number of seconds that an entry's own code may take when it is verified."""
MAX_FILES = 100
MAX_TEXT_BYTES = 100_000
MAX_WEIGHTS_BYTES = 10_000_000
MAX_FOLDER_BYTES = 30_000_000
