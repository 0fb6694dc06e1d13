"""What joins processes of one host: shared memory, ZeroMQ channels, admin sockets, children."""
