"""The three commands and what they share. This room may import the other three; nothing imports it."""
