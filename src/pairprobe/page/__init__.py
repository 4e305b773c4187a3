"""report.html: what a run found, for people, in one file that needs nothing else.

document.py has the sections in order; stored.py what a run logged; svg.py and charts.py draw; style.css is its look.
"""
