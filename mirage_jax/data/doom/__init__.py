"""A real world source: ViZDoom plays Freedoom levels, their geometry gives exact depth.

Level geometry is in map units (32 to a metre, x east, y north, z up); everything that leaves this
package is in metres.  Read next: ``levels.py`` (what may be recorded), ``wad.py`` (geometry),
``cast.py`` (depth), ``engine.py`` (pictures and motion), ``paths.py`` (camera motion),
``record.py`` (clips).
"""
