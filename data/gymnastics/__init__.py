"""The generated gymnast: choreography and its scores, motion, filming and drawing."""
