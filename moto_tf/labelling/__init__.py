"""People who say which episodes succeeded: a page, and what it writes."""
