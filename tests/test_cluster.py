"""Which cluster a job runs on."""

from typing import Any

import distributed
from distributed import Client

from ooc_train.cluster import choose_executor


def test_the_client_of_as_current_goes_before_the_one_made_last():
    source: Any = object()  # rows that lie elsewhere
    choose: Any = choose_executor
    with (
        distributed.LocalCluster(
            n_workers=1, processes=False, dashboard_address="127.0.0.1:0"
        ) as cluster,
        Client(cluster) as first,
        Client(cluster) as second,
    ):
        assert choose(source).client is second
        with first.as_current():
            assert choose(source).client is first
        assert choose(source, first).client is first
