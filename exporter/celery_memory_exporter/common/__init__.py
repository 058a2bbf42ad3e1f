"""What the agent and the exporter share: values, their form on the wire, counting, names. Standard
library only."""
