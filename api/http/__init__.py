"""The HTTP framework of the API: routes, authentication, permissions, limits, problems, OpenAPI."""
