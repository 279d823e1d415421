"""HTTP operations on payments and their flags."""
