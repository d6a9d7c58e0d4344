"""Figures for print, as SVG or PNG: one head as a heat map, or over the picture it looks at.

Each module is named as the one of the browser canvas (``assets/canvas``) that it looks like: ``heatmap`` and
``picture`` lay a figure out once, in CSS pixels; a pen of ``pens`` puts it on paper.
"""
