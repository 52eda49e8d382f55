"""The heads that can be trained, by the name that `train-head --head-type` and a head's file give them."""

from models.cofinal import CoFInAl, CoFInAlConfig
from models.gdlt import GDLT, GDLTConfig
from models.grading import GradingConfig, GradingNetwork

CONFIGS: dict[str, type[GradingConfig]] = {"cofinal": CoFInAlConfig, "gdlt": GDLTConfig}


def build(config: GradingConfig) -> GradingNetwork:
    """Build the untrained network of a configuration."""
    if isinstance(config, CoFInAlConfig):
        return CoFInAl(config)
    assert isinstance(config, GDLTConfig), config
    return GDLT(config)


def head_type(config: GradingConfig) -> str:
    """Return the name of the head that a configuration is of."""
    return next(name for name, kind in CONFIGS.items() if type(config) is kind)
