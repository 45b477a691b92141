"""Scores that cannot flatter: counts are pooled, gaps stop the run.

Every module turns outputs into counts per utterance (``items``); ``metrics``
says which count is divided by which; ``bootstrap`` gives the interval; ``report``
writes the page. Of all modules only ``mos`` imports torch.
"""
