"""The Grafana dashboards as code. `python -m grafana` writes grafana/dashboards/*.json; a test compares.

A dashboard is a table of rows of panels (`panels.Panel`); `drawing` turns it into Grafana's JSON.
"""
