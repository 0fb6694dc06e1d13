"""What a decoder does to rows between its products, called alone."""
