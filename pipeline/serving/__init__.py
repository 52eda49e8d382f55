"""serve-scores: upload videos in a browser on one's own machine, and see why they score as they do."""
