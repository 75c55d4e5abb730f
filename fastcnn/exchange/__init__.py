"""Weights and nets of other libraries: what fastcnn reads from their files, and writes for them."""

from fastcnn.exchange.html_export import save_html as save_html
