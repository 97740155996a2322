"""Captions and masks by networks that a user may add: taggers, writers of sentences, and what tells the subject from
its background. Nothing here runs unless it is asked for, and what is there already stays unless it is told otherwise.
"""
