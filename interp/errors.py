"""What a person can put right: each message is one sentence that says what was expected, what came and what to do."""


class LoadError(ValueError):
    """A model that cannot be loaded."""


class InputError(ValueError):
    """An input a model cannot take, or a file that cannot be read."""
