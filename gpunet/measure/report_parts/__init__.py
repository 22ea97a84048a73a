"""The sections of report.html, each from its records to HTML; :mod:`gpunet.measure.report` puts them on the page."""
