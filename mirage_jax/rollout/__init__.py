"""Walking through a world: scene and cameras in, video, memory and measurements out, chunk after chunk."""
