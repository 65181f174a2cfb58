"""Every strategy at several budgets, on networks of four kinds, with the same minutes each."""
