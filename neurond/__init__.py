"""The node daemon: one supervisor, one actor process for each device."""
