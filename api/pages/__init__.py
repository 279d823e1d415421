"""The pages for people: HTML under /credits, built on the same queries and commands as the JSON API."""
