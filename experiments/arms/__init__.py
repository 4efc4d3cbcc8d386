"""The arms that several studies share."""
