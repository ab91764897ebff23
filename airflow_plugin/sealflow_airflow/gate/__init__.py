"""The gate in Airflow's API server: what a task reports is held against signed evidence before Airflow believes it.

No code of a DAG runs in that process. :mod:`middleware` sees each request, :mod:`messages` reads what a task reports,
:mod:`ruling` decides, :mod:`access` records who read which connection, variable and XCom.
"""
