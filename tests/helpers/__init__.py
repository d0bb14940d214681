"""Small models, reports, registries and stand-ins that the tests share."""
