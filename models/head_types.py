"""The heads that can be trained, by the name that `train-head --head-type` and a head's file give them."""

from .cofinal import CoFInAlConfig
from .gdlt import GDLTConfig
from .grading import GradingConfig

CONFIGS: dict[str, type[GradingConfig]] = {"cofinal": CoFInAlConfig, "gdlt": GDLTConfig}


def head_type(config: GradingConfig) -> str:
    """Return the name of the head that a configuration is of."""
    return next(name for name, kind in CONFIGS.items() if type(config) is kind)
