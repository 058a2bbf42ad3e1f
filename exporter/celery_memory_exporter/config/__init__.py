"""Settings of the exporter: frozen values, read from strict YAML."""
