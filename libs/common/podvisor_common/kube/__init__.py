"""Kubernetes for controllers: client, informers, work queue, reconciling, leader election, events.

Raw bytes come from the API server and are decoded into partial msgspec structs; no generated model is ever loaded.
"""
