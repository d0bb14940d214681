import logging

import pytest

from perceiver_deploy.progress import count_bytes, log, only_errors


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes any stream for a terminal
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    level = log.level
    yield
    log.setLevel(level)


@pytest.mark.parametrize(("level", "shown"), [(logging.INFO, True), (logging.WARNING, False)])
def test_bytes_are_counted_on_stderr_unless_quiet(level, shown, terminal, capsys):
    log.setLevel(level)
    with count_bytes("a.deb", 2_000_000) as show:
        show(1_500_000)
    out, err = capsys.readouterr()
    assert out == ""
    assert ("a.deb" in err) == ("1.5/2.0 MB" in err) == shown


def test_a_library_tells_errors_only_and_as_much_as_before_afterwards():
    noisy = logging.getLogger("noisy")
    noisy.setLevel(logging.DEBUG)
    with pytest.raises(KeyError), only_errors("noisy"):
        assert not noisy.isEnabledFor(logging.WARNING)
        assert noisy.isEnabledFor(logging.ERROR)
        raise KeyError
    assert noisy.level == logging.DEBUG
    root = logging.getLogger()
    level = root.level
    with only_errors():
        assert root.level == logging.ERROR
    assert root.level == level
