"""Runs the tests of what is made for the people who run the backend: the report in a browser, the dashboard's queries on
a Prometheus.

    python3 tests/ops [WORD...]     words choose tests by their names
"""

from scene import HERE, LOAD, PROGRAMS # first: it says where tests/qemu is

import runner

makes = "cargo build --release --locked --bins --example verified_load"
runner.run(HERE, {PROGRAMS / "vhost-user-scsi-mpath": makes, LOAD: makes})
