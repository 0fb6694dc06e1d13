"""The gateway: one endpoint over every model that the fleet can serve."""
