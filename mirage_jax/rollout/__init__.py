"""Walking through a world, chunk after chunk.

Scene and cameras go in; video, memory and measurements come out.
"""
