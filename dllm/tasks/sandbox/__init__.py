"""Generated programs are run and judged apart from this process and from their own judge.

Two processes, each in a jail of its own: one holds the program and answers calls, the other holds
the tests, calls the program through a pipe and sees plain values only. So a program can neither
read the tests nor claim to have passed them: it can only give right or wrong answers.
"""
