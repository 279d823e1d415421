"""The pages people see: HTML under /credits, made from the same views and use cases as the JSON API."""
