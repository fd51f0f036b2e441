"""Every registered method once more, as plain loops in double precision.

Written from specifications of the papers and their code; nothing here imports the package.
"""
