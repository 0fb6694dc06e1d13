"""Text on its way in and out: chat templates, tokenising, detokenising, stop strings. No torch."""
