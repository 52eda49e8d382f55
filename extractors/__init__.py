"""A video file in, clip features out: decoding, frame selection, recipes and backbones. Knows nothing of scores."""
