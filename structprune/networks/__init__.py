"""Networks whose weights install from the registry without the code that defines them.

A recipe names one by `model: {source: structprune.networks.text_detector:TextDetector, weights: package:…}`. Each is a
plain module whose keys are those of its weights. Nothing here knows of data, tasks or plans.
"""
