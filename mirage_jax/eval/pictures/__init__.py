"""Pictures of what is there: camera paths, scenes, memories; `mirage memory view` and the like."""
