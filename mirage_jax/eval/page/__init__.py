"""The report of an evaluation as one page that needs no network.

Read next: `report_page.py`, `charts.py`, `media.py`.
"""
