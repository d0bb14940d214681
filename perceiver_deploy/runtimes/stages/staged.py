"""A session of several graphs: the stages of a variant, opened as they are needed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

from perceiver_deploy.arrays import Arrays
from perceiver_deploy.bundle.manifest import Axis, Stage, StageName
from perceiver_deploy.runtimes.session import Session
from perceiver_deploy.runtimes.stages.queries import answer_queries


class StagedSession(Session):
    """The stages of a variant as one session.

    What `run` needs is opened at once: the stage `full`, or without it `encoder` and `decoder`, which `run` then calls
    one after the other. `encoder` and `decoder` beside `full` are opened when `encode` or `decode` is first called.
    """

    def __init__(
        self,
        full: Stage,
        axes: Mapping[str, Axis],
        stages: Mapping[StageName, Stage],
        open_stage: Callable[[StageName], Session],
        check_stages: Callable[[Session], None] = lambda session: None,
    ) -> None:
        """`full` says what `run` takes and gives, `stages` which stages `open_stage` can open.

        `check_stages` is called with the session before `encoder` or `decoder` beside `full` is first used.
        """
        super().__init__(full, axes)
        self.stages = stages
        self._open_stage = open_stage
        self._check_stages: Callable[[Session], None] | None = check_stages if "full" in stages else None
        self._sessions: dict[StageName, Session] = {}
        self._lock = threading.RLock()  # checking the stages runs them
        needed = [name for name in stages if name == "full" or "full" not in stages]
        first, *_ = [self.stage(name) for name in needed]
        self.runtime, self.device, self.settings = first.runtime, first.device, first.settings

    def stage(self, name: StageName) -> Session:
        """The session of one stage."""
        if name not in self.stages:
            return super().stage(name)
        with self._lock:
            if name not in self._sessions:
                self._uses.require_open()
                self._sessions[name] = self._open_stage(name)
            if name != "full" and (check := self._check_stages) is not None:
                self._check_stages = None
                try:
                    check(self)
                except BaseException:
                    self._check_stages = check
                    raise
            return self._sessions[name]

    def _execute(self, inputs: Arrays) -> Arrays:
        if "full" in self.stages:
            return self.stage("full").run(inputs)
        return answer_queries(self, inputs, lambda count: count)

    def _release(self) -> None:
        for session in self._sessions.values():
            session.close()
