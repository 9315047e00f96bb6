"""Who the handler is to the controllers: its certificate, and the port on which it shows that."""
