"""All recipes by name."""

from __future__ import annotations

from perceiver_deploy.errors import UsageError
from perceiver_deploy.train import bytes as masked_bytes
from perceiver_deploy.train import digits, languages, sentiment, text_tasks
from perceiver_deploy.train.recipe import Recipe

RECIPES: dict[str, Recipe] = {
    module.RECIPE.name: module.RECIPE for module in (digits, languages, masked_bytes, sentiment, text_tasks)
}


def find_recipe(name: str) -> Recipe:
    """The recipe of that name, or a `UsageError` that lists them."""
    if name not in RECIPES:
        raise UsageError(f"There is no recipe {name!r}; expected one of {', '.join(RECIPES)}.")
    return RECIPES[name]
