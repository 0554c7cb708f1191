"""What the commands in tools/ run: suites of networks, each put through structprune and held against something else.

Enters a selection of networks, leaves a file of records and a page of docs/. A suite has tasks for one network, a
runner for many that goes on where it was interrupted, and a writer of tables and pages. Nothing else in the package
imports this one; what a suite needs beside structprune's own dependencies is imported by its functions.
"""
