"""Headwise: see every head of any transformer, and trust every mask. Start with: streamlit run app.py"""

from headwise.pages import navigate

navigate()
