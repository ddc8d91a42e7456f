"""Pipelines over streams: sources → fusion into windows → the predictor → stages → sinks. ``docs/streams.md`` is the guide."""
