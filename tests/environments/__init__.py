import pytest

pytest.register_assert_rewrite("tests.environments.checks")
