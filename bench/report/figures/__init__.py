"""Figures of the report as SVG, a module for each kind."""
