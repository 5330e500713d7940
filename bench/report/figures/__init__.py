"""Figures of the report as SVG, a module for each kind: what to show, what to say, how to draw."""
