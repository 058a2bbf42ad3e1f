"""What people look at: dashboards, rules, and the program that writes them."""
