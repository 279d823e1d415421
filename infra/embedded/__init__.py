"""Servers that come with the product, for trying it out and for tests: PostgreSQL and Kafka on loopback.

Linux and macOS. Import the module you want: `postgres`, `broker` or `apache_kafka`.
"""
