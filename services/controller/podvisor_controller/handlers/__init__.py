"""The way to the handlers: which there are, who they are, and connections to them."""
