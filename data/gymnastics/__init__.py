"""A drawn gymnast: what she shows and how it is judged, how she moves, how she is filmed and drawn."""
