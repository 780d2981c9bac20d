"""The Training page of the Dask dashboard: runs as they go, on the scheduler that they use.

A scheduler plugin (`plugin.py`) keeps what drivers send of their runs, thinned (`runs.py`), and
puts a second Bokeh application beside the dashboard's own (`page.py`): the page at `/training`, and
single plots under More (`parts.py`). Pages look at what is kept, so that one which is opened
halfway shows a whole run, and none costs anything while nobody looks.

The folder imports nothing else of ooc_train: it travels by value to schedulers that lack the
package. Nor does it import Bokeh before it has found that the scheduler has a dashboard.
"""
