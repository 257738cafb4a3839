"""Machine: what runs where: devices, memory, disks, locks and logs. No number depends on what is here but by threads.

Capture, sources, stages and the command line import it.
"""
