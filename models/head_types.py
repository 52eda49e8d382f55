"""The heads that can be trained, by the name that `train-head --head-type` and a head's file give them.

A new head is one file with a configuration, a recipe and a network (`models.head`), and one line here.
"""

from dataclasses import dataclass

from .cofinal import CoFInAlConfig, CoFInAlRecipe
from .cofinal_paper import PaperConfig
from .gdlt import GDLTConfig
from .head import HeadConfig, Recipe
from .transformer import TransformerRecipe


@dataclass(frozen=True)
class HeadType:
    """A head's configuration and its training."""

    config: type[HeadConfig]
    recipe: type[Recipe]


HEAD_TYPES = {
    "cofinal": HeadType(CoFInAlConfig, CoFInAlRecipe),
    "cofinal-paper": HeadType(PaperConfig, TransformerRecipe),
    "gdlt": HeadType(GDLTConfig, TransformerRecipe),
}


def type_name(config: HeadConfig) -> str:
    """Return the name of the head that a configuration is of."""
    return next(name for name, head_type in HEAD_TYPES.items() if type(config) is head_type.config)
