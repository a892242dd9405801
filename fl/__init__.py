"""Federated learning on top of secure aggregation: data, model, server and client loops."""
