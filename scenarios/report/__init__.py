"""The self-contained HTML report of a run."""

from voltier.scenarios.report.comparison import write_comparison
from voltier.scenarios.report.page import write_report
from voltier.scenarios.report.picture import write_picture

__all__ = ["write_comparison", "write_picture", "write_report"]
