"""The five dashboards, each in a module of its own."""
