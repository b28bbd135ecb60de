"""Fewer inferences for a video: between key frames the class map of the latest one moves with the picture.

track.py follows the motion since the latest key frame, policy.py says which frames are key frames, stabilize.py keeps
classes from flickering, segmenter.py stands in for a Segmenter. Off unless asked for.
"""
