"""The Training page of the Dask dashboard: runs in progress, on the scheduler that they use.

A scheduler plugin (`plugin.py`) keeps thinned series of what drivers send (`run_series.py`). It
adds a second Bokeh application to the dashboard (`page.py`): the page `/training`, and single plots
under "More" (`panels.py`, `resource_panels.py`). A page that is opened late shows the whole run.
Without open pages nothing is drawn.

The folder imports nothing else of ooc_train, since it travels by value to schedulers that lack the
package. It imports Bokeh only if the scheduler has a dashboard.
"""
