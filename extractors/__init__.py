"""From a video file to clip features: decoding, frame selection, recipes and backbones. Knows nothing of scores."""
