"""The side of each in-process profiler that runs inside the program under test.

A Tool has begin(), on(), off() and end(): begin prepares, on and off switch the recording around each stretch, end
writes it to config['output'] and answers the tool's own figures, or None.
"""
