"""The base of what is read from a bundle's JSON, and how its problems are told."""

from pydantic import BaseModel, ConfigDict, ValidationError


class Strict(BaseModel):
    """Frozen, and refuses fields that it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


def first_problem(error: ValidationError, whole: str) -> str:
    """`place: problem` of the first that was found, on one line; `whole` is the place of what concerns all of it."""
    problem = error.errors()[0]
    place = ".".join(map(str, problem["loc"]))
    return f"{place or whole}: {problem['msg'].removeprefix('Value error, ')}"
