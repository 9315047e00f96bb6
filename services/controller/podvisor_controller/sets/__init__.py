"""What every controller of a set of equal objects needs, whatever the objects are."""
