"""All recipes by name."""

from __future__ import annotations

from perceiver_deploy.errors import UsageError
from perceiver_deploy.train.recipe import Recipe
from perceiver_deploy.train.recipes import (
    breast_cancer,
    digits,
    films_audiovisual,
    films_autoencoding,
    films_video,
    flow,
    furniture,
    languages,
    sentiment,
    text_tasks,
)
from perceiver_deploy.train.recipes import bytes as masked_bytes

_MODULES = (
    masked_bytes,
    sentiment,
    text_tasks,
    digits,
    flow,
    films_autoencoding,
    languages,
    films_video,
    films_audiovisual,
    furniture,
    breast_cancer,
)
RECIPES: dict[str, Recipe] = {module.RECIPE.name: module.RECIPE for module in _MODULES}


def find_recipe(name: str) -> Recipe:
    """The recipe of that name, or a `UsageError` that lists them."""
    if name not in RECIPES:
        raise UsageError(f"There is no recipe {name!r}; expected one of {', '.join(RECIPES)}.")
    return RECIPES[name]
