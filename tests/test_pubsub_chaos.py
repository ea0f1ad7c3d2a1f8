"""Everything goes wrong, one thing after the other, and every subscriber sees every message once, in order, or a gap.

The small form runs with the other tests; ``make chaos`` runs the large one. The report is printed.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from chaos import Chaos, chaos

SMALL = {"timeout": 1.0, "watchdog": 1.0, "lifetime": 3.0}
LARGE = os.environ.get("CHAOS") == "large"


def judged(cluster: Chaos, capsys: Any) -> Any:
    """Finish, print the report, and see whether anything was lost without a word."""
    answer = cluster.finish()
    with capsys.disabled():
        print("\n" + "\n".join(cluster.report))
    counts = answer["report"]
    assert answer["late"] == 0, "\n".join([*answer["behind"], *(host.log() for host in cluster.hosts)])
    assert counts.get("missing without a gap", 0) == 0
    assert counts.get("twice or late", 0) == 0
    logs = [host.log() for host in cluster.hosts]
    assert not any("Traceback" in log for log in logs), "\n".join(logs)
    return counts


def test_nothing_is_lost_without_a_word(tmp_path: Path, capsys: Any) -> None:
    with chaos(tmp_path, 110, SMALL, rate=20) as cluster:
        cluster.fault("a worker is killed", cluster.kill_a_worker)
        cluster.fault("the link of a host is cut", lambda: cluster.cut_the_link(3))
        cluster.fault("Redis is frozen", lambda: cluster.freeze_redis(3))
        cluster.fault("Redis is restarted", lambda: cluster.restart_redis(1))
        counts = judged(cluster, capsys)
    assert counts.get("gaps", 0) == 0, "all of it could be replayed"


@pytest.mark.skipif(not LARGE, reason="make chaos runs it; a minute and a half")
def test_a_thousand_subscribers(tmp_path: Path, capsys: Any) -> None:
    with chaos(tmp_path, 1000, {}, rate=10) as cluster:
        cluster.fault("a worker is killed", cluster.kill_a_worker)
        cluster.fault("Redis is restarted, with its data", lambda: cluster.restart_redis(5))
        cluster.fault("Redis is frozen for 20 s", lambda: cluster.freeze_redis(20))
        cluster.fault("the link of a host is cut for 20 s", lambda: cluster.cut_the_link(20))
        cluster.fault("the output buffer limit is exceeded", cluster.exceed_the_output_buffer)
        cluster.fault("another worker is killed", cluster.kill_a_worker)
        assert cluster.ask()["report"].get("gaps", 0) == 0, "all of it could be replayed"
        cluster.fault("Redis dies and forgets", cluster.crash_redis)
        counts = judged(cluster, capsys)
    assert counts["gaps"] > 0
